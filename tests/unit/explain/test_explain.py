"""Evidence -> answer: what is named, with which reasons, and what is not claimed."""

import json
from pathlib import Path

import pytest

from harness.commands.explain import ExplainOptions, run
from harness.explain.answer import Standing
from harness.model.case import Irqchip
from harness.record.collectors.foreign import archive
from harness.report.text.explain_report import explain_json, explain_report

GOLDEN = Path(__file__).parents[2] / "golden"
FIELD = GOLDEN / "field"

Q35 = "qemu-system-x86_64 -M q35 -accel kvm,kernel-irqchip={} -cpu host -smp 2\n"


def explained(tmp_path, *texts, said=(), seconds=None):
    files = []
    for number, text in enumerate(texts):
        if isinstance(text, Path):
            files.append(text)
            continue
        files.append(tmp_path / f"file{number}")
        files[-1].write_text(text)
    return run(ExplainOptions(tuple(files), said, seconds, None))


def trace(gsi: int, level: int, per_second: int, seconds: int = 4) -> str:
    """Calls of KVM_IRQ_LINE at an even rate, as tracefs prints them."""
    return "".join(
        f" qemu-180 [001] ..... {100 + number / per_second:.6f}: "
        f"kvm_set_irq: gsi {gsi} level {level} source 0\n"
        for number in range(per_second * seconds + 1)
    )


def snapshots(rates: dict[str, int], seconds: int = 10) -> str:
    """Two snapshots, with the lines' counts apart by their rates."""
    parts = []
    for time_s in (0, seconds):
        rows = "".join(f"{name.format(1000 + rate * time_s)}\n" for name, rate in rates.items())
        parts.append(f"12:00:{time_s:02}\n           CPU0\n{rows}")
    return "\n".join(parts)


RTC = "  8: {} IO-APIC   8-edge      rtc0"
TIMER = "  0: {} IO-APIC   2-edge      timer"
LOC = "LOC: {} Local timer interrupts"
DISK = " 25: {} PCI-MSIX-0000:00:02.0   1-edge      virtio0-req.0"


def test_ghost_ticks_in_a_trace_name_the_hpet_first(tmp_path):
    answer = explained(tmp_path, trace(0, 0, 500), Q35.format("on"))

    assert answer.verdict.startswith("it looks like hpet-ghost-ticks")
    best = answer.fitting[0]
    assert best.entry == "hpet-ghost-ticks"
    assert any("500 a second" in text for text in best.seen)
    assert any("QEMU >=9.1" in text for text in best.unknown)


@pytest.mark.parametrize(("mode", "fits"), [("on", True), ("split", True), ("off", False)])
def test_exits_for_tpr_in_a_trace_are_named_where_kvm_has_the_local_apic(mode, fits, tmp_path):
    event = " CPU 0/KVM-9 [001] ..... {:.6f}: kvm_userspace_exit: reason KVM_EXIT_TPR_ACCESS (12)\n"
    text = "".join(event.format(100 + number / 200) for number in range(801))

    answer = explained(tmp_path, text, Q35.format(mode))

    assert ("tpr-access-exits" in [each.entry for each in answer.fitting]) is fits


@pytest.mark.parametrize("tool", ["trace-cmd", "perf-script"])
def test_ghost_ticks_of_a_lab_are_named_first(tool, tmp_path):
    files = [FIELD / f"{tool}-on-qemu10.0.txt", FIELD / "cmdline-on-qemu10.0.txt"]

    answer = explained(tmp_path, *files, FIELD / "hmp-on-qemu10.0.txt")

    assert answer.fitting[0].entry == "hpet-ghost-ticks"
    assert answer.vm.qemu == (10, 0, 13)
    assert answer.laws[0].broken == ()


KICKS = """
             VM-EXIT    Samples  Samples%     Time%    Min Time    Max Time         Avg time

  EXTERNAL_INTERRUPT      18304    93.14%     6.20%      0.55us     36.94us      1.11us ( +- 0.1% )
                 HLT        800     4.07%    93.70%      3.10us   3994.01us   2100.00us ( +- 9.0% )
      IO_INSTRUCTION        548     2.79%     0.10%      5.10us     44.01us     11.00us ( +- 4.0% )

Total Samples:19652, Total events handled time:1792963.20us.
"""


def test_kicks_of_the_pit_with_the_command_line_are_named_first(tmp_path):
    answer = explained(tmp_path, KICKS, Q35.format("split"), seconds=10)

    assert answer.fitting[0].entry == "split-pit-kicks-lint0-masked"


def test_table_of_exits_alone_gives_candidates_and_the_command_that_decides(tmp_path):
    answer = explained(tmp_path, KICKS)

    assert answer.fitting == ()
    assert "split-pit-kicks-lint0-masked" in answer.verdict
    assert answer.verdict.startswith("not enough to say")
    assert any("cmdline" in each.command for each in answer.decide)


def test_ghost_ticks_without_an_hpet_are_not_the_hpets(tmp_path):
    line = Q35.format("on").replace("q35", "q35,hpet=off")

    answer = explained(tmp_path, trace(0, 0, 500), line)

    (ghost,) = [each for each in answer.candidates if each.entry == "hpet-ghost-ticks"]
    assert ghost.standing is Standing.EXCLUDED
    assert [each.quantity.name for each in answer.unusual] == ["gsi/0/low"]


def test_quiet_trace_speaks_against_ghost_ticks(tmp_path):
    answer = explained(tmp_path, trace(4, 1, 20), Q35.format("on"))

    (ghost,) = [each for each in answer.candidates if each.entry == "hpet-ghost-ticks"]
    assert ghost.standing is Standing.AGAINST
    assert answer.verdict == "nothing unusual"


def test_slew_in_an_xml_alone_is_named_but_not_claimed(tmp_path):
    answer = explained(tmp_path, FIELD / "slew.xml")

    assert answer.candidates[0].entry == "rtc-slew-storm"
    assert answer.candidates[0].standing is Standing.POSSIBLE
    assert answer.verdict.startswith("nothing was measured")
    assert answer.decide


def test_slew_with_a_storm_of_the_clock_fits(tmp_path):
    answer = explained(tmp_path, FIELD / "slew.xml", snapshots({RTC: 470, LOC: 90}))

    assert answer.fitting[0].entry == "rtc-slew-storm"
    assert any(each.device == "rtc0" for each in answer.sources)


def test_stuck_line_in_a_log_alone_is_named_with_who_listens(tmp_path):
    answer = explained(tmp_path, FIELD / "nobody-cared.txt")

    assert answer.fitting[0].entry == "stuck-line-storms"
    assert ("IRQ 20", "vp_interrupt [virtio_pci]") in [
        (each.line, each.device) for each in answer.sources
    ]


@pytest.mark.parametrize("mode", ["on", "split"])
@pytest.mark.parametrize(
    "rates",
    [{TIMER: 0, RTC: 0, LOC: 30}, {TIMER: 0, LOC: 250, DISK: 5000}],
    ids=["idle", "block"],
)
def test_quiet_guest_idle_or_loaded_is_nothing_unusual(mode, rates, tmp_path):
    answer = explained(tmp_path, snapshots(rates), Q35.format(mode))

    assert answer.verdict == "nothing unusual"
    assert answer.is_quiet


def test_recorded_collection_of_the_script_has_ghost_ticks(tmp_path):
    answer = explained(tmp_path, FIELD / "collect-script-on-qemu10.0.tar.gz")

    assert answer.verdict.startswith("it looks like hpet-ghost-ticks")
    assert (answer.vm.apicv, answer.refused) == (False, ())
    assert {"exit/halt", "exit/total", "thread/main", "thread/vcpu"} <= set(rates(answer))


QUIET = sorted((FIELD / "quiet").glob("*.tar.gz"))


@pytest.mark.parametrize("mode", ["on", "split", "off"])
def test_recorded_guests_without_a_problem_are_idle_and_loaded_in_each_mode(mode):
    names = [path.name.partition(".")[0].split("-") for path in QUIET]
    loads = {load for of, load, *_ in names if of == mode}

    # The newest QEMU that has off, 7.2.22, has one CPU there.
    assert loads >= {"idle", "block", "net"} | ({"ipi"} if mode != "off" else set())


@pytest.mark.parametrize("path", QUIET, ids=lambda path: path.name.partition(".")[0])
def test_recorded_guest_without_a_problem_is_nothing_unusual(path, tmp_path):
    answer = explained(tmp_path, path)

    assert answer.verdict == "nothing unusual"
    assert answer.is_quiet
    assert answer.refused == ()
    assert answer.vm.irqchip == path.name.partition("-")[0]
    assert sum(each.band is not None for each in answer.measured) >= 5


@pytest.mark.parametrize("path", QUIET, ids=lambda path: path.name.partition(".")[0])
def test_recorded_guest_of_an_unknown_vm_is_nothing_unusual(path, tmp_path):
    texts = {name: text for name, text in archive.members(path) if name != "cmdline.txt"}
    (tmp_path / "a.tar.gz").write_bytes(archive.packed(texts))

    answer = explained(tmp_path, tmp_path / "a.tar.gz")

    assert answer.verdict == "nothing unusual"
    assert answer.vm.irqchip in (None, path.name.partition("-")[0])


def test_snapshot_of_an_unknown_mode_invents_none(tmp_path):
    answer = explained(tmp_path, snapshots({LOC: 30}))

    assert answer.vm.irqchip is None
    assert any("irqchip mode" in text for text in answer.not_observable)


def test_mode_is_taken_from_events_that_only_one_has(tmp_path):
    answer = explained(tmp_path, FIELD / "trace-pipe-on-linux6.12.txt")

    assert answer.vm.irqchip is Irqchip.ON
    assert answer.laws[0].checked
    assert answer.laws[0].broken == ()


def test_snapshots_without_times_say_that_seconds_are_missing(tmp_path):
    text = snapshots({LOC: 30}).replace("12:00:00", "").replace("12:00:10", "")

    assert any("--seconds" in each for each in explained(tmp_path, text).not_observable)
    rates = {each.quantity.name for each in explained(tmp_path, text, seconds=10).measured}
    assert rates == {"irq/LOC"}


def test_version_of_the_machine_type_excludes_what_newer_qemu_does_not_have(tmp_path):
    line = Q35.format("split").replace("q35", "pc-q35-10.0")

    answer = explained(tmp_path, line)

    (stale,) = [each for each in answer.candidates if each.entry == "split-stale-route"]
    assert stale.standing is Standing.EXCLUDED


def test_file_that_cannot_be_read_is_said_and_the_rest_explained(tmp_path):
    answer = explained(tmp_path, "Dear list\n", Q35.format("on"))

    assert "not known what this is" in answer.refused[0]
    assert answer.vm.irqchip is Irqchip.ON


def test_report_and_json_say_the_verdict_first(tmp_path):
    answer = explained(tmp_path, trace(0, 0, 500), Q35.format("on"))

    assert next(explain_report(answer)).text == answer.verdict
    assert answer.verdict in explain_json(answer)


# --- What a collection has ------------------------------------------------------------------------

THREADS = "percent of a CPU: user  system  thread\n"


def packed(tmp_path, **texts):
    """An archive whose members are called so, but for ``-`` and the suffix."""
    names = {
        "irq_before": "info-irq-before.txt",
        "irq": "info-irq.txt",
        "stats_before": "query-stats-before.json",
        "stats": "query-stats.json",
        "cmdline": "cmdline.txt",
        "threads": "threads.txt",
        "parameters": "module-parameters.txt",
        "trace": "trace.txt",
    }
    path = tmp_path / "a.tar.gz"
    path.write_bytes(archive.packed({names[name]: text for name, text in texts.items()}))
    return run(ExplainOptions((path,), (), None, None))


def stats(time_s, **values):
    listed = [{"name": name, "value": value} for name, value in values.items()]
    vcpu = {"provider": "kvm", "qom-path": "/machine/unattached/device[0]", "stats": listed}
    stamp = {"seconds": time_s, "microseconds": 0}
    return json.dumps({"return": [vcpu], "timestamp": stamp})


def rates(answer):
    return {each.quantity.name: each.quantity.value for each in answer.measured}


def test_statistics_at_two_times_are_rates_of_exits(tmp_path):
    answer = packed(
        tmp_path,
        stats_before=stats(100, exits=1000, halt_exits=10, irq_injections=5),
        stats=stats(110, exits=51000, halt_exits=30, irq_injections=5),
    )

    found = rates(answer)
    assert (found["exit/total"], found["exit/halt"], found["event/kvm_inj_virq"]) == (5000, 2, 0)
    assert not any("exits: nothing" in text for text in answer.not_observable)


def test_statistics_that_went_back_are_of_another_guest_and_no_rate(tmp_path):
    answer = packed(tmp_path, stats_before=stats(100, exits=1000), stats=stats(110, exits=9))
    assert "exit/total" not in rates(answer)


IRQ = "{}.000000\nIRQ statistics for {}:\n 0: {}\n 8: {}\n"


@pytest.mark.parametrize(("provider", "has_pit"), [("kvm-ioapic", False), ("ioapic", True)])
def test_lines_at_two_times_are_rates_but_kvms_own_pit_is_not_counted(provider, has_pit, tmp_path):
    answer = packed(
        tmp_path,
        irq_before=IRQ.format(100, provider, 5, 1000),
        irq=IRQ.format(110, provider, 5, 5700),
        cmdline=Q35.format("on") + " -rtc driftfix=slew",
    )

    assert rates(answer)["gsi/8/high"] == 470
    assert ("gsi/0/high" in rates(answer)) is has_pit


def test_main_loop_that_never_sleeps_is_unusual_and_a_busy_vcpu_is_not(tmp_path):
    spinning = f"{THREADS}                  60.0    39.0  qemu-system-x86\n"
    busy = f"{THREADS}                   2.0     1.0  qemu-system-x86\n"
    vcpu = "                  97.0     2.0  CPU 0/KVM\n"

    answer = packed(tmp_path, threads=spinning + vcpu)
    assert [each.quantity.name for each in answer.unusual] == ["thread/main"]
    assert packed(tmp_path, threads=busy + vcpu).is_quiet


@pytest.mark.parametrize(
    ("text", "apicv"),
    [("kvm_amd.avic=N\n", False), ("kvm_intel.enable_apicv=Y\n", True), ("kvm.nx=Y\n", None)],
)
def test_module_parameters_say_what_a_trace_cannot_show(text, apicv, tmp_path):
    answer = packed(tmp_path, parameters=text, trace=trace(0, 0, 5), cmdline=Q35.format("on"))

    assert answer.vm.apicv is apicv
    assert any("AVIC" in each for each in answer.not_observable) is (apicv is True)


def test_event_that_was_traced_and_did_not_happen_speaks_against_an_entry(tmp_path):
    event = " CPU 0/KVM-9 [001] ..... {}.000001: kvm_eoi: apicid 0 vector 236\n"
    text = event.format(100) + event.format(104)
    listed = "# irqmatrix: traced kvm_eoi kvm_set_irq\n"

    answers = [
        packed(tmp_path, trace=each, cmdline=Q35.format("on")) for each in (text, listed + text)
    ]

    ghosts = [next(c for c in a.candidates if c.entry == "hpet-ghost-ticks") for a in answers]
    assert [each.standing for each in ghosts] == [Standing.POSSIBLE, Standing.AGAINST]


def test_trace_of_a_guest_that_stands_still_is_no_file_that_cannot_be_read(tmp_path):
    text = "# irqmatrix: traced kvm_eoi kvm_set_irq\n# tracer: nop\n#\n"
    answer = packed(tmp_path, trace=text, cmdline=Q35.format("on"))
    assert answer.refused == ()
    assert answer.verdict.startswith("nothing was measured")


def test_trace_of_several_cpus_whose_beginning_was_overwritten_has_lost_events(tmp_path):
    kept = "# tracer: nop\n# entries-in-buffer/entries-written: 10/25   #P:{}\n"
    for cpus, lost in ((1, 0), (2, 15)):
        answer = packed(tmp_path, trace=kept.format(cpus) + trace(4, 1, 5))
        assert answer.evidence[0].content.lost == lost


def test_tracepoints_of_kvm_are_not_asked_of_a_vm_under_tcg(tmp_path):
    storm = snapshots({RTC: 470, LOC: 90})
    answers = [explained(tmp_path, storm, f"qemu-system-x86_64 -M pc -accel {accel}\n")
               for accel in ("tcg", "kvm")]  # fmt: skip
    asked = [any("kvm:" in each.command for each in answer.decide) for answer in answers]
    assert asked == [False, True]
    assert not any("kvm:" in text or text.startswith("exits") for text in answers[0].not_observable)
