"""Importers: what each kind of file is found to be, and what is read of it."""

import gzip
from pathlib import Path

import pytest

from harness.base.errors import CollectError
from harness.model.case import Irqchip
from harness.record.collectors.foreign import exits, interrupts, machine, tables
from harness.record.collectors.foreign.model import (
    EventCounts,
    ExitTable,
    FileKind,
    KernelLog,
    Snapshots,
    TraceTally,
    VmMachine,
)
from harness.record.collectors.foreign.read import ReadingFacts, kind_of, kind_of_file, read_file

GOLDEN = Path(__file__).parents[2] / "golden"
FIELD = GOLDEN / "field"

KINDS = {
    FIELD / "trace-pipe-on-linux6.12.txt": FileKind.TRACE,
    FIELD / "perf-stat-on-linux6.12.txt": FileKind.COUNTS,
    FIELD / "console-on-linux6.1.txt": FileKind.LOG,
    FIELD / "nobody-cared.txt": FileKind.LOG,
    FIELD / "kvm_stat-t.csv": FileKind.KVM_STAT,
    FIELD / "kvm_stat-d.csv": FileKind.KVM_STAT,
    FIELD / "slew.xml": FileKind.XML,
    FIELD / "perf-kvm-stat-on-linux6.12.txt": FileKind.EXITS,
    FIELD / "trace-cmd-on-qemu10.0.txt": FileKind.TRACE,
    FIELD / "perf-script-on-qemu10.0.txt": FileKind.TRACE,
    FIELD / "hmp-on-qemu10.0.txt": FileKind.MONITOR,
    FIELD / "qmp-on-qemu10.0.txt": FileKind.STATISTICS,
    FIELD / "cmdline-on-qemu10.0.txt": FileKind.COMMAND_LINE,
    GOLDEN / "collect/ftrace-split-linux6.1.txt": FileKind.TRACE,
    GOLDEN / "collect/interrupts-linux6.12.txt": FileKind.INTERRUPTS,
    GOLDEN / "monitor/info-pic-7.2.txt": FileKind.INFO_PIC,
}


@pytest.mark.parametrize("path", KINDS, ids=lambda path: path.name)
def test_kind_of_a_golden_file_is_found_by_its_content(path):
    assert kind_of_file(path) is KINDS[path]


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("qemu-system-x86_64 -M q35 -smp 2\n", FileKind.COMMAND_LINE),
        ("/usr/bin/qemu-system-x86_64\0-M\0q35\0", FileKind.COMMAND_LINE),
        ('[{"provider": "kvm", "stats": [{"name": "exits", "value": 1}]}]', FileKind.STATISTICS),
        ("IRQ statistics for kvm-ioapic:\n 4: 17\n", FileKind.INFO_IRQ),
        ("QEMU emulator version 10.0.2 (Debian 1:10.0.2)\n", FileKind.VERSIONS),
        ("00:03.0 Ethernet controller: Red Hat, Inc. Virtio network device\n", FileKind.LSPCI),
        ("TGID TID KVM_EXIT_REASON COUNT\n1 2 EXIT_REASON_HLT 4\n", FileKind.EXITS),
        ("Dear list, my guest is slow.\n", None),
        ("", None),
    ],
)
def test_kind_of_a_text_is_found_or_not_known(text, kind):
    assert kind_of(text) is kind


def test_file_of_no_known_kind_is_refused_with_the_kinds(tmp_path):
    letter = tmp_path / "letter"
    letter.write_text("Dear list\n")

    with pytest.raises(CollectError, match=r"--as KIND:FILE"):
        read_file(letter)


def test_packed_file_is_read(tmp_path):
    packed = tmp_path / "dmesg.gz"
    packed.write_bytes(gzip.compress((FIELD / "nobody-cared.txt").read_bytes()))

    (found,) = read_file(packed)

    assert isinstance(found.content, KernelLog)


def test_packed_file_that_is_cut_off_is_refused(tmp_path):
    packed = tmp_path / "dmesg.gz"
    packed.write_bytes(gzip.compress((FIELD / "nobody-cared.txt").read_bytes() * 50)[:-20])

    with pytest.raises(CollectError, match="unpacked"):
        read_file(packed, FileKind.LOG)


# --- /proc/interrupts -------------------------------------------------------------------------


def snapshot(count: int) -> str:
    return f"           CPU0\n  8:  {count}  IO-APIC   8-edge      rtc0\nLOC: {count} Local timer\n"


def test_snapshots_with_dates_between_have_times():
    text = f"12:00:01.5\n{snapshot(1)}\n12:00:03.5\n{snapshot(9)}"

    content = interrupts.read("x", text.splitlines(keepends=True)).content

    assert isinstance(content, Snapshots)
    first, last = content.snapshots
    assert last.time_s - first.time_s == 2.0


def test_snapshots_whose_times_go_back_have_none():
    text = f"12:00:03\n{snapshot(1)}12:00:01\n{snapshot(9)}"

    content = interrupts.read("x", text.splitlines(keepends=True)).content

    assert [each.time_s for each in content.snapshots] == [None, None]


def test_line_of_a_snapshot_that_is_cut_is_said_and_the_rest_read():
    text = snapshot(5) + "  9:  \n 10: 7 IO-APIC 10-edge x\n"

    found = interrupts.read("x", text.splitlines(keepends=True))

    assert [line.irq for line in found.content.snapshots[0].lines] == ["8", "LOC", "10"]
    assert any("not understood" in note for note in found.notes)


# --- Tables -------------------------------------------------------------------------------------

PERF_KVM_STAT = """
Analyze events for all VMs, all VCPUs:

             VM-EXIT    Samples  Samples%     Time%    Min Time    Max Time         Avg time

           interrupt       1830    90.10%     1.20%      0.55us     36.94us      1.11us ( +- 0.35% )
                 hlt        150     7.39%    98.70%      3.10us   3994.01us   2100.00us ( +- 9.01% )
                  io         51     2.51%     0.10%      5.10us     44.01us     11.00us ( +- 4.01% )

Total Samples:2031, Total events handled time:318000.12us.
"""


def test_table_of_exits_has_one_name_for_each_reason():
    (found,) = tables.read_exits("x", PERF_KVM_STAT.splitlines(), 2.0)

    assert found.content == ExitTable(
        "exit",
        {"host-interrupt": 1830, "halt": 150, "io": 51},
        2.0,
        318000.12,
    )


def test_reasons_of_intel_and_amd_are_the_same_words():
    pairs = [("EXTERNAL_INTERRUPT", "interrupt"), ("IO_INSTRUCTION", "io"), ("HLT", "hlt")]

    assert all(exits.canonical(intel) == exits.canonical(amd) for intel, amd in pairs)


def test_perf_stat_of_a_lab_has_its_events_and_duration():
    (found,) = read_file(FIELD / "perf-stat-on-linux6.12.txt")

    assert isinstance(found.content, EventCounts)
    assert found.content.counts["kvm_pic_set_irq"] == 1469
    assert found.content.duration_s == pytest.approx(3.419477021)


def test_kvm_stat_has_exits_by_reason_and_the_rows_time():
    (found,) = read_file(FIELD / "kvm_stat-t.csv")

    assert found.content.counts["kvm_userspace_exit(IO)"] == 356
    assert found.content.duration_s == 14


# --- Traces -------------------------------------------------------------------------------------

FTRACE = (
    "  CPU 0/KVM-183   [000] ...1.   195.474000: kvm_exit: vcpu 0 reason hlt rip 0xff\n"
    "       qemu-180   [001] .....   195.474100: kvm_set_irq: gsi 0 level 0 source 0\n"
    "       qemu-180   [001] .....   195.475100: kvm_set_irq: gsi 0 level 0 source 0\n"
)
TRACE_CMD = (
    "cpus=2\n"
    "       CPU 0/KVM-183   [000]   195.474000: kvm_exit:             vcpu 0 reason hlt rip 0xff\n"
    "            qemu-180   [001]   195.474100: kvm_set_irq:          gsi 0 level 0 source 0\n"
    "            qemu-180   [001]   195.475100: kvm_set_irq:          gsi 0 level 0 source 0\n"
)
PERF_SCRIPT = (
    "       CPU 0/KVM   183 [000]   195.474000:         kvm:kvm_exit: vcpu 0 reason hlt rip 0xff\n"
    "            qemu   180 [001]   195.474100:      kvm:kvm_set_irq: gsi 0 level 0 source 0\n"
    "            qemu   180 [001]   195.475100:      kvm:kvm_set_irq: gsi 0 level 0 source 0\n"
)


@pytest.mark.parametrize("text", [FTRACE, TRACE_CMD, PERF_SCRIPT], ids=["ftrace", "cmd", "perf"])
def test_trace_of_each_tool_gives_the_same_sums(text, tmp_path):
    trace = tmp_path / "trace"
    trace.write_text(text)

    (found,) = read_file(trace)

    tally = found.content
    assert isinstance(tally, TraceTally)
    assert tally.lines == {(0, 0): 2}
    assert tally.exits == {"halt": 1}
    assert tally.cpus == {0: 1}
    assert tally.duration_s == pytest.approx(0.0011)
    assert found.notes == ()


def test_trace_with_an_event_that_is_not_understood_says_which(tmp_path):
    trace = tmp_path / "trace"
    trace.write_text(FTRACE + " qemu-1 [000] ..... 195.5: nonsense\n" + FTRACE)

    (found,) = read_file(trace)

    assert "nonsense" in found.notes[0]
    assert found.content.events["kvm_set_irq"] == 4


def test_trace_with_other_fields_in_an_event_of_the_books_says_so(tmp_path):
    trace = tmp_path / "trace"
    new = FTRACE.replace("level 0 source 0", "line 0 up") + FTRACE
    trace.write_text(new)

    (found,) = read_file(trace, facts=ReadingFacts(irqchip=Irqchip.ON))

    assert any("gsi 0 line 0 up" in note for note in found.notes)
    assert all(law.status != "broken" for law in found.content.ledger.laws)


def test_trace_with_lost_events_says_so_and_its_laws_are_not_checked(tmp_path):
    trace = tmp_path / "trace"
    trace.write_text(FTRACE + "CPU:0 [LOST 12 EVENTS]\n" + FTRACE)

    (found,) = read_file(trace, facts=ReadingFacts(irqchip=Irqchip.ON))

    assert found.content.lost == 12
    assert {law.status for law in found.content.ledger.laws} <= {"not checkable", "not observable"}


@pytest.mark.parametrize("stamp", ["195.15.15.474100", "1_95.474100", "nan", "9" * 99])
def test_trace_with_a_time_that_is_none_says_so(stamp, tmp_path):
    trace = tmp_path / "trace"
    trace.write_text(FTRACE + FTRACE.splitlines(True)[1].replace("195.474100", stamp) + FTRACE)

    (found,) = read_file(trace)

    assert found.content.events["kvm_set_irq"] == 4
    assert "not understood" in found.notes[0]


def test_trace_of_two_guests_has_no_account(tmp_path):
    trace = tmp_path / "trace"
    trace.write_text(FTRACE + FTRACE.replace("KVM-183", "KVM-999"))

    (found,) = read_file(trace, facts=ReadingFacts(irqchip=Irqchip.ON))

    assert found.content.guests == 2
    assert found.content.ledger is None


def test_trace_of_a_lab_keeps_the_laws(tmp_path):
    path = FIELD / "trace-pipe-on-linux6.12.txt"

    (found,) = read_file(path, facts=ReadingFacts(irqchip=Irqchip.ON))

    assert found.notes == ()
    assert not found.content.ledger.findings


# --- Which VM -----------------------------------------------------------------------------------


def described(text: str) -> VmMachine:
    return machine.read_command_line("x", text).content


def test_command_line_of_libvirt_is_read():
    vm = described(
        "/usr/bin/qemu-system-x86_64 -name guest=a,debug-threads=on -machine "
        "pc-q35-6.2,usb=off,kernel_irqchip=split -accel kvm -cpu host,-x2apic -m size=4194304k "
        "-smp 4,sockets=1 -rtc base=utc,driftfix=slew -global kvm-pit.lost_tick_policy=delay "
        '-no-hpet -device {"driver":"virtio-net-pci","id":"net0","bus":"pci.1","addr":"0x0"}'
    )

    assert (vm.family, vm.version, vm.irqchip, vm.accel) == ("q35", (6, 2), "split", "kvm")
    assert (vm.smp, vm.memory_mib, vm.hpet, vm.driftfix) == (4, 4096, False, "slew")
    assert vm.pit_policy == "delay"
    assert [each.model for each in vm.devices] == ["virtio-net-pci"]


@pytest.mark.parametrize(
    ("line", "irqchip"),
    [
        ("qemu-system-x86_64 -M q35 -enable-kvm", "on"),
        ("qemu-system-x86_64 -M pc-q35-4.0,accel=kvm", "split"),
        ("qemu-system-x86_64 -M microvm -accel kvm", "split"),
        ("qemu-system-x86_64 -accel tcg -M q35", "tcg"),
        ("qemu-system-x86_64 -M q35", None),
        ("qemu-system-x86_64 -enable-kvm -M q35,kernel-irqchip=off", "off"),
    ],
)
def test_mode_of_a_command_line_is_what_it_says_or_its_default(line, irqchip):
    assert described(line).irqchip == irqchip


def test_xml_of_libvirt_is_read():
    (found,) = read_file(FIELD / "slew.xml")

    vm = found.content
    assert (vm.irqchip, vm.driftfix, vm.hpet, vm.smp) == ("split", "slew", False, 2)
    assert [each.model for each in vm.devices] == ["virtio-blk-pci", "virtio-net-pci"]


def test_xml_with_entities_is_refused(tmp_path):
    bomb = tmp_path / "bomb.xml"
    bomb.write_text('<!DOCTYPE x [<!ENTITY a "b">]><domain type="kvm">&a;</domain>')

    with pytest.raises(CollectError, match="document type"):
        read_file(bomb)


def test_log_of_a_stuck_line_has_the_line_and_its_handlers():
    (found,) = read_file(FIELD / "nobody-cared.txt")

    assert [(each.sign, each.subject) for each in found.content.signs] == [
        ("nobody-cared", "20"),
        ("irq-disabled", "20"),
    ]
    assert found.content.handlers == ("vp_interrupt [virtio_pci]",)


def test_log_of_an_ordinary_boot_has_facts_and_no_sign():
    (found,) = read_file(FIELD / "console-on-linux6.1.txt")

    assert found.content.signs == ()
    assert "Q35" in found.content.facts["machine"]


def test_session_of_the_monitor_has_each_command():
    found = read_file(FIELD / "hmp-on-qemu10.0.txt")

    kinds = {FileKind.INFO_IRQ, FileKind.INFO_PIC, FileKind.INFO_LAPIC, FileKind.VERSIONS}
    assert kinds <= {each.kind for each in found}
    (lapics,) = [each.content for each in found if each.kind is FileKind.INFO_LAPIC][:1]
    assert lapics.lint0_masked == (0,)


def test_session_of_qmp_has_its_statistics():
    (found,) = read_file(FIELD / "qmp-on-qemu10.0.txt")

    assert found.content.vcpus[0]["exits"] == 94989


def test_table_of_perf_kvm_stat_has_exits_and_ports():
    found = read_file(FIELD / "perf-kvm-stat-on-linux6.12.txt")

    assert [each.content.unit for each in found] == ["exit", "port"]
    assert found[0].content.counts == {
        "io": 194,
        "msr": 19,
        "interrupt-window": 18,
        "host-interrupt": 11,
    }


@pytest.mark.parametrize("tool", ["trace-cmd", "perf-script"])
def test_trace_of_a_real_tool_has_the_ghost_ticks(tool):
    (found,) = read_file(FIELD / f"{tool}-on-qemu10.0.txt")

    assert found.content.lines[0, 0] > 10
    assert found.notes == ()


def test_tables_of_a_real_perf_kvm_stat_live_are_added_up():
    (found,) = read_file(FIELD / "perf-kvm-stat-live-on-linux6.12.txt")

    assert found.kind is FileKind.EXITS
    assert found.content.duration_s == pytest.approx(9.42, abs=0.01)  # 4 times 2 s, and its last
    assert found.content.counts["msr"] == 62 + 60 + 73 + 62 + 31
    assert found.notes == ()


@pytest.mark.parametrize("cleared", ["", "\x1b[H\x1b[2J"], ids=["file", "terminal"])
def test_tables_of_perf_kvm_stat_live_say_over_how_long_they_count(cleared):
    table = (FIELD / "perf-kvm-stat-on-linux6.12.txt").read_text().partition("IO Port")[0]
    head = "Analyze events for pid(s) 29157, all VCPUs:\n"
    lines = "".join(f"{cleared}00:25:{37 + n}.924536\n\n{head}{table}\n" for n in range(3))

    (once,) = tables.read_exits("a", table.splitlines())
    (live,) = tables.read_exits("a", lines.splitlines())

    assert (once.content.duration_s, live.content.duration_s) == (None, 3.0)
    assert live.content.counts == {key: 3 * count for key, count in once.content.counts.items()}
    (said,) = tables.read_exits("a", lines.splitlines(), 10.0)
    assert said.content.duration_s == 10.0
