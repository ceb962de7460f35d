"""Cases of the live chips as command lines of their VMM."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from harness.backends.live_argv import by_hand, live_argv
from harness.backends.qemu_argv import Channels
from harness.guests.plan import GuestFiles
from harness.model.case import LinuxGuest, Machine, Output, ProbeGuest, Vmm
from support import cases
from userspace_chip.kvm.__main__ import parse

FILES = GuestFiles((), (), "/the probe", "/program")
IN_LAB = Channels(
    console="file,path=/run/guest/console",
    monitor="serial,path=/dev/vport0p3",
    trace_log="/run/guest/trace",
    paused=True,
)
LIVE_SPLIT, LIVE_OFF = (replace(one, vmm=Vmm.PYCHIP) for one in (cases.SPLIT, cases.OFF))


def options_of(case, channels=IN_LAB, qemu=(7, 2, 22)):
    words = live_argv(("python3",), case, FILES, qemu, channels)
    assert words[:3] == ("python3", "-m", "userspace_chip.kvm")
    return parse(list(words[3:]))


def test_probe_gets_its_program_and_its_consoles():
    case = cases.case(ProbeGuest((), first=3, far_return=True), LIVE_OFF, smp=4, memory_mib=64)

    found = options_of(replace(case, machine=Machine.PC))

    assert (found.image, found.modules) == (Path("/the probe"), (Path("/program"),))
    assert (found.irqchip, found.board, found.smp, found.memory_mib) == ("off", "pc", 4, 64)
    assert (found.append, found.debug_ports, found.serial) == ("from=3 lret", (0x2100,), False)
    assert (found.raw_status, found.virtio_serial) == (True, True)


def test_channels_are_places():
    found = options_of(cases.case(cases.FLAT, LIVE_SPLIT))

    assert (found.console, found.monitor) == ("/run/guest/console", "/dev/vport0p3")
    assert (found.trace, found.trace_log, found.paused) == (True, "/run/guest/trace", True)
    here = options_of(
        cases.case(cases.FLAT, LIVE_SPLIT), Channels("socket,fd=7", "socket,fd=8,server=on")
    )
    assert (here.console, here.monitor, here.trace) == ("fd:7", "fd:8", False)


@pytest.mark.parametrize(
    ("output", "ports", "serial"), [(Output.COM1, (), True), (Output.DEBUGCON, (0xE9,), False)]
)
def test_flat_image_has_the_console_that_it_prints_to_and_no_other(output, ports, serial):
    guest = replace(cases.FLAT, output=output, append="a b")

    found = options_of(cases.case(guest, LIVE_SPLIT))

    assert (found.debug_ports, found.serial, found.append) == (ports, serial, "a b")


def test_linux_has_its_ram_disk_its_workloads_arguments_and_a_serial_port():
    guest = LinuxGuest(("idle", "rtc"), append="nokaslr")

    found = options_of(cases.case(guest, LIVE_SPLIT))

    assert (found.image, found.modules) == (Path("/the probe"), (Path("/program"),))
    assert found.append == "console=ttyS0 quiet panic=-1 hpet=disable nosoftlockup nokaslr"
    assert (found.debug_ports, found.serial) == ((), True)


@pytest.mark.parametrize(
    ("version", "chips"), [((7, 0), "7.2"), ((7, 2, 22), "7.2"), ((9, 1), "7.2"), ((10, 0), "10.0")]
)
def test_chips_are_those_of_the_latest_modelled_qemu_that_is_not_later(version, chips):
    assert options_of(cases.case(cases.FLAT, LIVE_SPLIT), qemu=version).qemu == chips


def test_tsc_deadline_is_shown_where_the_cpu_says_so():
    case = cases.case(cases.FLAT, LIVE_SPLIT, cpu="qemu64,+x2apic,+tsc-deadline")

    assert options_of(case).tsc_deadline
    assert not options_of(cases.case(cases.FLAT, LIVE_SPLIT)).tsc_deadline


def test_command_by_hand_is_one_of_irqmatrix():
    case = cases.case(ProbeGuest(()), LIVE_SPLIT, smp=2)

    words = by_hand(case, FILES, (10, 0, 1), ("--host", "lab", "--kernel", "6.12"))

    text = " ".join(words)
    assert text.startswith("irqmatrix vmm /the probe --irqchip split --host lab --kernel 6.12")
    assert text.endswith("--qemu 10.0 --module /program --debug-port 0x2100")
