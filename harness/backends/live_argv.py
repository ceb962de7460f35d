"""From a case of the live chips to the command line of their VMM: beside :mod:`qemu_argv`."""

from __future__ import annotations

from pathlib import Path
from typing import Final, cast

from harness.backends.qemu_argv import Channels
from harness.base.versions import Version
from harness.guests.kinds.table import kind_of
from harness.guests.plan import GuestFiles
from harness.model.case import Case, board_of
from userspace_chip.kvm.options import LiveMode, Options, arguments
from userspace_chip.profile import qemu_at

LIVE_MODULE: Final = ("-m", "userspace_chip.kvm")
"""What a Python is asked to run."""


def live_options(case: Case, files: GuestFiles, qemu: Version, channels: Channels) -> Options:
    """What is asked of the VMM for ``case``; ``qemu`` is the version whose chips are mirrored."""
    guest = kind_of(case.guest).live
    board = board_of(case.machine)
    assert board != "microvm", "feasibility lets no such machine pass"
    port = guest.console_port
    irqchip = cast(LiveMode, case.backend.irqchip.value)
    return Options(
        image=Path(files.kernel),
        irqchip=irqchip,
        modules=() if files.initrd is None else (Path(files.initrd),),
        smp=case.smp,
        append=guest.append,
        memory_mib=case.memory_mib,
        trace=channels.trace_log is not None,
        raw_status=True,
        debug_ports=() if port is None else (port,),
        qemu=qemu_at(qemu),
        board=board,
        serial=port is None,
        virtio_serial=guest.has_virtio,
        # As with QEMU, ``off`` has none.
        tsc_deadline=irqchip != "off" and "+tsc-deadline" in case.cpu.split(","),
        console=_place(channels.console),
        monitor=None if channels.monitor is None else _place(channels.monitor),
        trace_log=channels.trace_log,
        paused=channels.paused,
    )


def live_argv(
    python: tuple[str, ...], case: Case, files: GuestFiles, qemu: Version, channels: Channels
) -> tuple[str, ...]:
    """The command line of ``case`` on a Python that ``python`` starts."""
    options = live_options(case, files, qemu, channels)
    modules = map(str, options.modules)
    return (*python, *LIVE_MODULE, *arguments(options, str(options.image), modules))


def _place(chardev: str) -> str | None:
    """A chardev's file or descriptor as the VMM takes it."""
    kind, _, rest = chardev.partition(",")
    if kind == "stdio":
        return None
    name, _, value = rest.partition(",")[0].partition("=")
    return f"fd:{value}" if name == "fd" else value


def by_hand(
    case: Case, files: GuestFiles, qemu: Version, where: tuple[str, ...]
) -> tuple[str, ...]:
    """The same as a command of irqmatrix's, the guest's console on the terminal."""
    options = live_options(case, files, qemu, Channels(console="stdio"))
    words = ["irqmatrix", "vmm", str(options.image), "--irqchip", options.irqchip, *where]
    words += ["--smp", str(options.smp), "--memory", str(options.memory_mib)]
    words += ["--qemu", options.qemu]
    words += ["--append", options.append] if options.append else []
    words += ["--tsc-deadline"] * options.tsc_deadline
    for module in options.modules:
        words += ["--module", str(module)]
    for port in options.debug_ports:
        words += ["--debug-port", hex(port)]
    return tuple(words)
