"""Guests on the local /dev/kvm whose interrupt controllers are the Python chips.

A local KVM that emulates its guests ends interrupts itself, and looks for them only when a vCPU is
entered; the scenarios here are those that say the same on every KVM.
"""

from __future__ import annotations

import io
import os
import re
import struct
import subprocess
import sys
import threading

import pytest

from harness.guests.probe import is_done, parse_logs
from harness.images.cache import ImageCache
from harness.ledger.bookkeeper import Bookkeeper
from harness.model.case import Irqchip
from harness.record.collectors.qemu_log import QemuLogReader
from harness.scenario import choice
from harness.scenario.predict import predict
from harness.scenario.program import encode
from support import flat_image, multiboot
from support import probe_programs as programs
from support.kvm import local_kvm, skip_without_irqchip
from userspace_chip.kvm import command
from userspace_chip.kvm.errors import KvmUnavailableError
from userspace_chip.kvm.local_msrs import off_profile
from userspace_chip.kvm.probe import EMULATING_MODULE
from userspace_chip.kvm.vmm import Vmm
from userspace_chip.profile import profile

pytestmark = pytest.mark.kvm

MODES = ["on", "split", "off"]


@pytest.fixture(params=MODES)
def mode(request):
    skip_without_irqchip("split")
    return request.param


class Ran:
    """What a guest said, and how it ended."""

    def __init__(self, options):
        errors = io.StringIO()
        reader, writer = os.pipe()
        text = []

        def drain():
            with os.fdopen(reader, "rb") as stream:
                text.append(stream.read())

        thread = threading.Thread(target=drain)
        thread.start()
        try:
            self.status = command.run(options, stdout=writer, stderr=errors)
        finally:
            os.close(writer)
            thread.join()
        self.text, self.errors = text[0].decode(), errors.getvalue()


def flat(tmp_path, mode, end, *, text="PASS: one\n", **options):
    image = flat_image.build(tmp_path, "image", text, end)
    return Ran(command.Options(image, irqchip=mode, **{"timeout_s": 20.0, **options}))


@pytest.mark.parametrize(("end", "status", "raw"), [(0, 0, 1), (1, 1, 3), (77, 77, 155)])
def test_flat_image_says_its_text_and_ends_with_the_status_of_its_checks(
    tmp_path, mode, end, status, raw
):
    found = flat(tmp_path, mode, end)

    assert (found.status, found.text, found.errors) == (status, "PASS: one\n", "")
    assert flat(tmp_path, mode, end, raw_status=True).status == raw


def test_flat_image_that_hangs_ends_at_its_timeout_and_leaves_no_thread(tmp_path, mode):
    before = threading.active_count()

    found = flat(tmp_path, mode, flat_image.HANG, timeout_s=0.3)

    assert found.status == 124
    assert "did not end within 0.3 s" in found.errors
    assert threading.active_count() == before


def test_flat_image_that_powers_off_ends_by_itself(tmp_path, mode):
    assert flat(tmp_path, mode, flat_image.POWER_OFF).status == 0


def test_triple_fault_shows_registers_code_and_the_last_exits(tmp_path, mode):
    found = flat(tmp_path, mode, flat_image.RESET)

    assert found.status == 1
    # A KVM that emulates its guests gives up before there is a triple fault.
    assert re.search(r"KVM_EXIT_(SHUTDOWN|INTERNAL_ERROR).*, on CPU 0", found.errors)
    assert "rip=0x4" in found.errors
    assert "code at rip: " in found.errors
    assert "OUT   0x3f8 size 1 value 0xa" in found.errors
    assert "Traceback" not in found.errors


def from_code(tmp_path, code):
    """A file with addresses of its own whose code is ``code``."""
    base, flags = 0x200000, multiboot.HAS_ADDRESSES
    addresses = struct.pack("<5I", base, base, 0, 0, base + 32)
    image = tmp_path / "code"
    image.write_bytes(multiboot.header(flags=flags) + addresses + bytes.fromhex(code))
    return image


def test_load_from_where_nothing_is_shows_the_address_and_the_code(tmp_path, mode):
    image = from_code(tmp_path, "a1 00 00 00 90 f4")  # mov eax, [0x90000000]

    found = Ran(command.Options(image, irqchip=mode, timeout_s=20.0))

    assert found.status == 1
    assert "load of 4 bytes at 0x90000000: no device is there, on CPU 0" in found.errors
    assert "code at rip: a1 00 00 00 90" in found.errors


def test_loads_from_the_chipsets_memory_may_have_any_size_and_read_0(tmp_path, mode):
    # mov eax, [0xfed00ffd]: a piece of 3 bytes and one of 1; then out 0xf4, al
    found = Ran(command.Options(from_code(tmp_path, "a1 fd 0f d0 fe e6 f4 f4"), irqchip=mode))

    assert (found.status, found.errors) == (0, "")


def test_timer_faster_than_the_chips_leaves_the_guest_its_turns(tmp_path, mode):
    # The PIT's mode 2, a tick each 1.7 us; then 200 times IN from it, and out 0xf4, al.
    fast = "b0 34 e6 43 b0 02 e6 40 b0 00 e6 40"
    code = f"{fast} b9 c8 00 00 00 e4 40 e2 fc b0 00 e6 f4 f4"

    found = Ran(command.Options(from_code(tmp_path, code), irqchip=mode, timeout_s=60.0))

    assert (found.status, found.errors) == (0, "")


def test_debug_port_chosen_is_text(tmp_path, mode):
    image = flat_image.build(tmp_path, "image", "hello\n", 0, port=flat_image.DEBUGCON)

    found = Ran(command.Options(image, irqchip=mode, timeout_s=20.0))

    assert found.text == "hello\n"


def test_64_bit_image_is_entered_in_32_bit_mode(tmp_path, mode):
    image = flat_image.build(tmp_path, "image", "hello\n", 0, bits=64)

    assert Ran(command.Options(image, irqchip=mode, timeout_s=20.0)).text == "hello\n"


def test_trace_shows_what_the_chips_did(tmp_path, mode):
    found = flat(tmp_path, mode, 0, trace=True)

    assert ":kvm_run_exit cpu_index 0, reason 2\n" in found.errors


def test_kvm_that_is_not_there_is_said_with_what_to_do(tmp_path):
    image = flat_image.build(tmp_path, "image", "", 0)

    with pytest.raises(KvmUnavailableError, match=r"ENOENT.*load kvm_intel or kvm_amd"):
        command.run(command.Options(image, kvm=str(tmp_path / "none")))


def test_command_without_a_kvm_has_status_3_and_one_message(tmp_path):
    image = flat_image.build(tmp_path, "image", "", 0)
    words = [str(image), "--irqchip", "split", "--device", str(tmp_path / "none")]

    for program in (["-m", "harness", "vmm"], ["-m", "userspace_chip.kvm"]):
        done = subprocess.run([sys.executable, *program, *words], capture_output=True, text=True)
        assert done.returncode == 3
        assert "ENOENT" in done.stderr
        assert "Traceback" not in done.stderr


def boot_probe(module, mode, **options):
    return Ran(
        command.Options(
            ImageCache(offline=True).probe(),
            irqchip=mode,
            modules=(module,),
            append="lret" if local_kvm().module == EMULATING_MODULE else "",
            timeout_s=100.0,
            **{"debug_ports": (0x2100,), **options},
        )
    )


def boot_scenarios(tmp_path, scenarios, mode, **options):
    """The logs of scenarios under the chips."""
    module = tmp_path / "programs"
    module.write_bytes(encode([scenario.program for scenario in scenarios]))
    return parse_logs(boot_probe(module, mode, **options).text)


def probe(tmp_path, mode, names, *, smp=1, **options):
    """The logs of hand-made programs under the chips."""
    chosen = [programs.without_slow_prologue(getattr(programs, name)()) for name in names]
    module = tmp_path / "programs"
    module.write_bytes(encode(chosen))
    found = boot_probe(module, mode, smp=smp, **options)
    assert (found.status, is_done(found.text)) == (0, True), found.text + found.errors
    logs = parse_logs(found.text)
    return [[str(event) for event in logs[index].events] for index in range(len(names))]


ON_ANY_KVM = {
    "extint": ["2 0 irq 26 - - -", "4 0 read 0"],
    "lost_in_wait": ["0 0 timeout 0", "1 0 read 1000000"],
}
WITH_OUR_LAPIC = {
    "edge": ["1 0 irq 77 - 77 -", "2 0 irq 77 - 77 -", "3 0 read 77"],
    "level": ["1 0 irq 51 - 51 51 6=c051", "2 0 read 8051"],
    "timer_wakes": ["0 0 irq 31 - 31 -", "0 0 woke"],
    "x2apic": ["0 0 skip x2apic"],
}


@pytest.mark.parametrize("delivery", ["route", "msi"])
def test_probe_in_split_takes_the_pics_interrupts(tmp_path, delivery):
    skip_without_irqchip("split")

    logs = probe(tmp_path, "split", ON_ANY_KVM, delivery=delivery)

    assert dict(zip(ON_ANY_KVM, logs, strict=True)) == ON_ANY_KVM


def test_probe_in_off_takes_what_our_local_apic_delivers(tmp_path):
    skip_without_irqchip("split")
    expected = ON_ANY_KVM | WITH_OUR_LAPIC

    logs = probe(tmp_path, "off", expected)

    assert dict(zip(expected, logs, strict=True)) == expected


# Not those that stop a count before it expires: a busy host may be late.
MORE_THAN_QEMU = re.compile(r"x2apic-.*|tsc-deadline-(?!mode-change).*")


def test_probe_in_off_has_x2apic_and_the_deadline_timer_where_they_are_asked_for(tmp_path):
    skip_without_irqchip("split")
    paths = ["configs/scenarios/x2apic.yaml", "configs/scenarios/lapic-timer.yaml"]
    every = choice.load([found for path in paths for found in choice.find(path, tmp_path)])
    asked = [one for one in every if one.program.cpus == 1 and MORE_THAN_QEMU.fullmatch(one.name)]

    logs = boot_scenarios(tmp_path, asked, "off", x2apic=True, tsc_deadline=True)

    chips = off_profile(x2apic=True, tsc_deadline=True)
    expected = [predict(scenario.program, chips, board="q35") for scenario in asked]
    assert len(expected) > 10
    assert not any(" skip " in str(event) for log in expected for event in log.events)
    assert [logs[index] for index in range(len(asked))] == expected


def test_probe_talks_by_virtio_serial_where_it_is(tmp_path, mode):
    names = ["lost_in_wait", "lost_in_wait"]

    logs = probe(tmp_path, mode, names, virtio_serial=True, debug_ports=())

    assert logs == [["0 0 timeout 0", "1 0 read 1000000"]] * 2


def test_what_was_due_in_a_delay_has_happened_at_its_end_on_a_busy_host(tmp_path, monkeypatch):
    skip_without_irqchip("split")
    # The thread that keeps the time gets none.
    monkeypatch.setattr(Vmm, "_let_time_pass", Vmm._now_ns)
    files = choice.find("configs/scenarios/pit.yaml", tmp_path)
    (scenario,) = choice.selected(choice.load(files), ["pit-mode-1"])

    logs = boot_scenarios(tmp_path, [scenario], "off")

    assert logs[0] == predict(scenario.program, profile("off"), board="q35")


@pytest.mark.parametrize("smp", [2, 4])
def test_probe_starts_other_cpus_by_init_and_sipi(tmp_path, mode, smp):
    assert probe(tmp_path, mode, ["init_sipi"], smp=smp) == [["0 1 up 33", "4 1 read ff"]]


def test_trace_of_a_live_run_is_read_as_qemus_log_and_has_a_ledger(tmp_path):
    skip_without_irqchip("split")
    module = tmp_path / "programs"
    module.write_bytes(encode([programs.without_slow_prologue(programs.level())]))

    found = boot_probe(module, "off", trace=True)
    reader = QemuLogReader()
    books = Bookkeeper(Irqchip.OFF)
    for event in reader.events(found.errors.splitlines(keepends=True)):
        books.add(event)
    ledger = books.close()

    assert found.status == 0
    assert (reader.report.complete, reader.report.unknown) == (True, {})
    assert reader.report.lines == reader.report.events == ledger.events
    raised = {row.name: row.counts for row in ledger.rows}["ioapic pin 6"]
    assert raised["raised"] == 1
    assert ledger.findings == ()
    assert ledger.warnings == ("events are incomplete: no events of kvm",)
