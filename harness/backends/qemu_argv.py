"""From a case to the command line of its QEMU: pure functions, one visible list.

What the arguments mean was tried with QEMU 7.2 and 10.0; ``-accel``'s ``kernel-irqchip`` is
described in qemu-system-x86_64(1), the exit device in QEMU's ``hw/misc/debugexit.c``.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from harness.base import limits
from harness.guests import flat, linux, probe
from harness.guests.linux import WORKLOADS, Workload
from harness.model.case import (
    Accel,
    Case,
    FlatGuest,
    Guest,
    Irqchip,
    LinuxGuest,
    Machine,
    Output,
    ProbeGuest,
)

QEMU_TRACE_EVENTS: dict[Irqchip, tuple[str, ...]] = {
    Irqchip.ON: (),
    Irqchip.SPLIT: ("ioapic_*", "pic_*", "kvm_irqchip_*"),
    Irqchip.OFF: ("apic_*", "ioapic_*", "pic_*"),
    Irqchip.TCG: ("apic_*", "ioapic_*", "pic_*", "cpu_set_apic_base"),
}
"""QEMU's own trace events: those of the chips that are QEMU's in the mode.

Under KVM ``cpu_set_apic_base`` would come with every exit."""

LINUX_COMMAND_LINE = ("console=ttyS0", "quiet", "panic=-1")


@dataclass(frozen=True)
class GuestFiles:
    """A case's files, by their paths on the host where QEMU runs."""

    qemu: tuple[str, ...]
    """QEMU, started by its own dynamic loader where it needs one."""
    data_dirs: tuple[str, ...]
    kernel: str
    """The Linux kernel, or the flat image."""
    initrd: str | None = None
    cpuinfo: str = ""
    """``/proc/cpuinfo`` there; a guest without a good clock gets its speed."""


@dataclass(frozen=True)
class Channels:
    """How QEMU is talked to: chardev backends (``stdio``, ``socket,fd=3,server=on`` ...)."""

    console: str
    monitor: str | None = None
    trace_log: str | None = None
    """The file that QEMU's own trace events go to."""
    paused: bool = False
    """Wait for the monitor's ``cont`` before the first instruction."""
    incoming: bool = False
    """Wait for the monitor's ``migrate-incoming`` for a guest that was running elsewhere."""


def qemu_argv(case: Case, files: GuestFiles, channels: Channels) -> tuple[str, ...]:
    """The command line of ``case``; the same input gives the same list."""
    return (
        *files.qemu,
        *("-name", "irqmatrix,debug-threads=on"),
        *("-nodefaults", "-no-user-config", "-no-reboot"),
        *("-display", "none"),
        *_options("-L", files.data_dirs),
        *_machine(case),
        *("-cpu", case.cpu),
        *("-smp", str(case.smp)),
        *("-m", f"{case.memory_mib}M"),
        *_console(case, channels.console),
        *_monitor(channels.monitor),
        *_guest(case, files),
        *_options("-device", case.devices),
        *(word for option in case.options for word in option.split()),
        *(_DETERMINISM if case.deterministic else ()),
        *_trace(case, channels.trace_log),
        *(("-S",) if channels.paused else ()),
        *(("-incoming", "defer") if channels.incoming else ()),
    )


ICOUNT_TSC_KHZ: Final = 1_000_000
"""With -icount the time-stamp counter counts nanoseconds (QEMU ``softmmu/cpu-timers.c``,
``cpu_get_ticks``)."""

_FILE_OPTIONS: Final = re.compile(
    r"-(drive|blockdev|[hfs]d[a-d]?|pflash|mtdblock|object|chardev)\b"
)
"""Options that may name a file, or memory that is one, of any size."""


def max_file_bytes(case: Case) -> int | None:
    """How long a file of its QEMU may get: its trace, or a state that is saved in it.

    None where the case has disks of its own.
    """
    if any(_FILE_OPTIONS.match(option) for option in case.options):
        return None
    trace = limits.current().trace_mib * limits.MIB
    moves = isinstance(case.guest, LinuxGuest) and case.guest.migrate
    return max(trace, 2 * case.memory_mib * limits.MIB) if moves else trace


_DETERMINISM: Final = (
    *("-icount", "shift=1,sleep=off"),
    *("-rtc", "base=2026-01-01,clock=vm"),
    *("-seed", "1"),
)
"""Every instruction takes 2 ns of every clock that the guest can read; where it sleeps, time jumps
to the next timer.  See docs/determinism.md."""


def command_text(argv: Sequence[str]) -> str:
    """``argv`` as a shell command, an option and its value on a line."""
    lines = [shlex.quote(argv[0])]
    for argument in argv[1:]:
        if argument.startswith("-") and not lines[-1].endswith("\\\n"):
            lines.append(shlex.quote(argument))
        else:
            lines[-1] += f" {shlex.quote(argument)}"
    return " \\\n  ".join(lines) + "\n"


def workloads_of(guest: LinuxGuest) -> tuple[Workload, ...]:
    """The guest's workloads, from the table."""
    return tuple(WORKLOADS[name] for name in guest.workloads)


def _options(option: str, values: Iterable[str]) -> list[str]:
    return [argument for value in values for argument in (option, value)]


def _machine(case: Case) -> tuple[str, ...]:
    """The machine and who runs its CPUs.

    The probe's CPUs wait for each other in loops.  In threads of their own under TCG they would
    burn each other's time; in turns PAUSE gives the next one its turn.
    """
    machine, accel = case.machine.value, case.backend.accel.value
    if case.backend.accel is Accel.KVM:
        irqchip = case.backend.irqchip.value
        return ("-machine", f"{machine},accel={accel},kernel-irqchip={irqchip}")
    if isinstance(case.guest, ProbeGuest) and case.smp > 1:
        return ("-machine", machine, "-accel", f"{accel},thread=single")
    return ("-machine", f"{machine},accel={accel}")


def _console(case: Case, backend: str) -> tuple[str, ...]:
    """The guest's way to talk: a serial line, or a port that raises no interrupt."""
    made = ("-chardev", chardev(backend, "console"))
    port = _debug_port(case.guest)
    if port is None:
        return (*made, "-serial", "chardev:console")
    return (*made, "-device", f"isa-debugcon,iobase={port:#x},chardev=console")


def _debug_port(guest: Guest) -> int | None:
    """The port of the guest's debug console; None for one on a serial line."""
    if isinstance(guest, ProbeGuest):
        return probe.CONSOLE_PORT
    is_asked = isinstance(guest, FlatGuest) and guest.output is Output.DEBUGCON
    return flat.DEBUGCON_PORT if is_asked else None


def _monitor(backend: str | None) -> tuple[str, ...]:
    if backend is None:
        return ()
    return ("-chardev", chardev(backend, "monitor"), "-mon", "chardev=monitor,mode=control")


def escaped(path: Path) -> str:
    """``path`` as a value among an option's others, which commas separate."""
    return str(path).replace(",", ",,")


def chardev(backend: str, name: str) -> str:
    """``backend`` with the id ``name``: what a ``-chardev`` takes."""
    kind, comma, options = backend.partition(",")
    return f"{kind},id={name}{comma}{options}"


def _guest(case: Case, files: GuestFiles) -> list[str]:
    guest = case.guest
    if isinstance(guest, ProbeGuest):
        return [*_probe_devices(case), *_probe_files(guest, files)]
    if isinstance(guest, FlatGuest):
        return [*_flat_devices(case, guest), "-kernel", files.kernel, *_append(guest.append)]
    workloads = workloads_of(guest)
    extras = dict.fromkeys(word for workload in workloads for word in workload.kernel_args)
    words = [*LINUX_COMMAND_LINE, *extras, *_clock(case, files), guest.append]
    if case.deterministic:
        words += linux.boot_words(guest, case.machine.value, case.smp)
    command_line = " ".join(filter(None, words))
    initrd = ("-initrd", files.initrd) if files.initrd is not None else ()
    # Two workloads may need the same device: it is there once.
    devices = dict.fromkeys(
        arguments for workload in workloads for arguments in workload.qemu_args(case.machine.value)
    )
    return [
        *("-kernel", files.kernel, *initrd, "-append", command_line),
        *(argument for pair in devices for argument in pair),
    ]


def _clock(case: Case, files: GuestFiles) -> tuple[str, ...]:
    """What Linux learns of its time-stamp counter, which is the machine's own under TCG."""
    if case.backend.accel is not Accel.TCG:
        return ()
    tsc_khz = ICOUNT_TSC_KHZ if case.deterministic else linux.tsc_khz(files.cpuinfo)
    return linux.clock_args(case.machine.value, tsc_khz)


def _probe_devices(case: Case) -> list[str]:
    """What drives lines and sends messages for the probe, and its way out."""
    edu = ["-device", "edu"] if case.machine is not Machine.MICROVM else []
    return [*_TEST_DEVICES, *edu]


def _probe_files(guest: ProbeGuest, files: GuestFiles) -> list[str]:
    """The probe, and its program as a multiboot module."""
    assert files.initrd is not None
    words = [f"from={guest.first}"] if guest.first else []
    words += ["lret"] if guest.far_return else []
    return ["-kernel", files.kernel, "-initrd", files.initrd, *_append(" ".join(words))]


def _append(text: str) -> tuple[str, ...]:
    return ("-append", text) if text else ()


_EXIT_DEVICE: Final = ("-device", f"isa-debug-exit,iobase={probe.EXIT_PORT:#x},iosize=4")
"""A way out with a status."""
_TEST_DEVICES: Final = (*_EXIT_DEVICE, *("-device", "pc-testdev"))
"""And a port that drives any line."""


def _flat_devices(case: Case, guest: FlatGuest) -> list[str]:
    """The devices that kvm-unit-tests' images expect (its ``x86/run``).

    pc-testdev takes the debug console's port, and answers nothing there (tried with QEMU 7.2).
    """
    test_devices = _TEST_DEVICES if guest.output is Output.COM1 else _EXIT_DEVICE
    pci = ["-device", "pci-testdev"] if case.machine is not Machine.MICROVM else []
    in_kernel_pit = case.backend.accel is Accel.KVM and case.backend.irqchip is Irqchip.ON
    return [
        *test_devices,
        *pci,
        *(("-global", "kvm-pit.lost_tick_policy=discard") if in_kernel_pit else ()),
    ]


def _trace(case: Case, log: str | None) -> list[str]:
    events = QEMU_TRACE_EVENTS[case.backend.irqchip]
    if log is None or not events:
        return []
    return [*_options("-trace", events), *_taken(case), "-D", log, "-msg", "timestamp=on"]


def _taken(case: Case) -> tuple[str, ...]:
    """What makes QEMU log the interrupts that a CPU takes: no trace event of TCG's tells.

    That also logs every exception with the CPU's registers, 1.3 kB each.  A Linux boot has 1400 of
    them; an image that tests exceptions may have millions.
    """
    is_linux = isinstance(case.guest, LinuxGuest)
    return ("-d", "int") if case.backend.accel is Accel.TCG and is_linux else ()
