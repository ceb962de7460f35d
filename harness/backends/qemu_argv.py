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
from harness.base.versions import Version
from harness.guests.kinds.table import kind_of
from harness.guests.plan import GuestFiles
from harness.model.case import Accel, Case, Irqchip

QEMU_TRACE_EVENTS: dict[Irqchip, tuple[str, ...]] = {
    Irqchip.ON: (),
    Irqchip.SPLIT: ("ioapic_*", "pic_*", "kvm_irqchip_*"),
    Irqchip.OFF: ("apic_*", "ioapic_*", "pic_*"),
    Irqchip.TCG: ("apic_*", "ioapic_*", "pic_*", "cpu_set_apic_base"),
}
"""QEMU's own trace events: those of the chips that are QEMU's in the mode.

Under KVM ``cpu_set_apic_base`` would come with every exit."""


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
        *("-chardev", chardev(channels.console, "console")),
        *kind_of(case.guest).console(case.machine),
        *_monitor(channels.monitor),
        *kind_of(case.guest).arguments(case, files),
        *_options("-device", case.devices),
        *(word for option in case.options for word in option.split()),
        *(_DETERMINISM if case.deterministic else ()),
        *_trace(case, channels.trace_log),
        *(("-S",) if channels.paused else ()),
        *(("-incoming", "defer") if channels.incoming else ()),
    )


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
    is_moved = kind_of(case.guest).is_moved
    return max(trace, 2 * case.memory_mib * limits.MIB) if is_moved else trace


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


def _options(option: str, values: Iterable[str]) -> list[str]:
    return [argument for value in values for argument in (option, value)]


def _machine(case: Case) -> tuple[str, ...]:
    """The machine and who runs its CPUs.

    CPUs that wait for each other in loops, in threads of their own under TCG, would burn each
    other's time; in turns PAUSE gives the next one its turn.
    """
    machine, accel = case.machine.value, case.backend.accel.value
    if case.backend.accel is Accel.KVM:
        irqchip = case.backend.irqchip.value
        return ("-machine", f"{machine},accel={accel},kernel-irqchip={irqchip}")
    if kind_of(case.guest).spins and case.smp > 1:
        return ("-machine", machine, "-accel", f"{accel},thread=single")
    return ("-machine", f"{machine},accel={accel}")


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


_NAMES_NO_THREAD: Final = (10, 1)
"""From here on a line of the log does not say which thread it is of (seen: 11.1, not 10.0)."""
THREAD: Final = "%d"


def trace_path(directory: str, qemu: Version) -> str:
    """The file for QEMU's trace, of which each thread has its own where a line does not tell."""
    return f"{directory}/trace" + (f".{THREAD}" if qemu >= _NAMES_NO_THREAD else "")


def _trace(case: Case, log: str | None) -> list[str]:
    events = QEMU_TRACE_EVENTS[case.backend.irqchip]
    if log is None or not events:
        return []
    also = [*(("tid",) if THREAD in log else ()), *(("int",) if _is_taken_logged(case) else ())]
    logged = ("-d", ",".join(also)) if also else ()
    return [*_options("-trace", events), *logged, "-D", log, "-msg", "timestamp=on"]


def _is_taken_logged(case: Case) -> bool:
    """Whether QEMU is to log the interrupts that a CPU takes: no trace event of TCG's tells.

    That also logs every exception with the CPU's registers, 1.3 kB each.  A Linux boot has 1400 of
    them; an image that tests exceptions may have millions.
    """
    return case.backend.accel is Accel.TCG and kind_of(case.guest).has_few_exceptions
