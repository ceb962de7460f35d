"""One guest from its files to an exit status: what ``irqmatrix vmm`` and the lab call.

Only the standard library is needed: ``python -m userspace_chip.kvm`` runs wherever a Python is.
"""

from __future__ import annotations

import contextlib
import os
import stat
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final, TextIO

from userspace_chip.events import Event
from userspace_chip.kvm.boot import Module
from userspace_chip.kvm.errors import BootError
from userspace_chip.kvm.fds import VmFd
from userspace_chip.kvm.listener import Listener
from userspace_chip.kvm.live import Kick, LiveIrqchip, Maker
from userspace_chip.kvm.local_msrs import leave_local_msrs, off_profile
from userspace_chip.kvm.monitor import Monitor
from userspace_chip.kvm.off import OffIrqchip
from userspace_chip.kvm.on import OnIrqchip
from userspace_chip.kvm.options import Options
from userspace_chip.kvm.split import SplitIrqchip
from userspace_chip.kvm.vmm import End, Guest, Outcome, Vmm
from userspace_chip.profile import profile

EXIT_PASS: Final = 0
EXIT_FAIL: Final = 1
EXIT_SKIP: Final = 77
EXIT_TIMEOUT: Final = 124
EXIT_FAULT: Final = 70
"""``EX_SOFTWARE`` of sysexits.h."""

_SHUTDOWN_REASONS: Final = {
    End.RESET: "guest-reset",
    End.TRIPLE_FAULT: "guest-reset",
    End.POWER_OFF: "guest-shutdown",
    End.QUIT: "host-qmp-quit",
}
"""QAPI ``run-state.json``: ShutdownCause."""


def run(options: Options, *, stdout: int = 1, stderr: TextIO | None = None) -> int:
    """Boot the guest, its text to the descriptor ``stdout``: the exit status.

    Raises what :class:`Vmm` raises; a guest that ends by a fault is described on ``stderr``.
    """
    errors = sys.stderr if stderr is None else stderr
    guest = Guest(
        image=_content(options.image),
        command_line=options.append,
        modules=[Module(_content(path), str(path)) for path in options.modules],
        cpus=options.smp,
        memory_mib=options.memory_mib,
        debug_ports=options.debug_ports,
        has_edu=options.edu,
        has_serial=options.serial,
        has_virtio_serial=options.virtio_serial,
        has_x2apic=options.x2apic or options.irqchip != "off",
        has_tsc_deadline=options.tsc_deadline,
    )
    with contextlib.ExitStack() as stack:
        trace = stack.enter_context(Trace(options.trace_log, errors)) if options.trace else None
        console = stdout if options.console is None else opened_console(options.console)
        output = writer(console)
        vmm = stack.enter_context(
            Vmm(
                guest,
                _maker(options),
                output,
                events=trace,
                kernel_lapic=options.irqchip != "off",
                path=options.kvm,
            )
        )
        if trace is not None:
            trace.threads = vmm.threads
        monitor = None
        if options.monitor is not None:
            place = opened(options.monitor, os.O_RDWR | os.O_NOCTTY)
            monitor = stack.enter_context(Monitor(vmm, place))
        keys = None
        if options.serial and options.console is not None and is_two_way(console):
            keys = stack.enter_context(Listener(console, vmm.type, "console"))

        def begin() -> None:
            for one in (monitor, keys):
                if one is not None:
                    one.begin()

        outcome = vmm.run(options.timeout_s, paused=options.paused, started=begin)
        if monitor is not None:
            monitor.tell_end(_SHUTDOWN_REASONS.get(outcome.end))
        status = _report(outcome, options, errors)
        if outcome.stuck:
            # A thread inside KVM_RUN cannot be ended any other way.
            errors.flush()
            if trace is not None:
                trace.flush()
            os._exit(status)
    return status


def opened(place: str, flags: int) -> int:
    """A descriptor for ``fd:N`` or a path."""
    kind, _, number = place.partition(":")
    if kind == "fd" and number.isdecimal():
        return int(number)
    try:
        return os.open(place, flags)
    except OSError as error:
        raise BootError(f"cannot open {place}", error.strerror, "name another place") from None


def opened_console(place: str) -> int:
    """A descriptor for the guest's text, and for what is typed where the place is two-way."""
    is_device = Path(place).is_char_device()
    return opened(place, os.O_RDWR | os.O_NOCTTY if is_device else os.O_WRONLY)


def is_two_way(descriptor: int) -> bool:
    """Whether what it is connected to may send something: a socket or a device, no file or FIFO."""
    mode = os.fstat(descriptor).st_mode
    return stat.S_ISSOCK(mode) or stat.S_ISCHR(mode)


def _maker(options: Options) -> Maker:
    """What makes the chips of the mode."""
    board, now_s = options.board, int(time.time())

    def make(vm: VmFd, cpus: int, kick: Kick) -> LiveIrqchip:
        if options.irqchip == "off":
            # QEMU 10 has no ``off`` under KVM: there is one profile of it.
            chips = off_profile(x2apic=options.x2apic, tsc_deadline=options.tsc_deadline)
            leave_local_msrs(vm, chips)
            return OffIrqchip(chips, cpus, kick, board=board, time_of_day_s=now_s)
        chips = profile(options.irqchip, qemu=options.qemu)
        if options.irqchip == "on":
            return OnIrqchip(vm, chips, board=board, time_of_day_s=now_s)
        delivery = options.delivery
        return SplitIrqchip(vm, chips, kick, delivery, board=board, time_of_day_s=now_s)

    return make


def _content(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise BootError(
            f"cannot read {path}", error.strerror, "name a file that is there"
        ) from None


def writer(descriptor: int) -> Callable[[bytes], None]:
    """All of a text to ``descriptor``; a reader that has left does not end the guest.

    No guest controls a terminal: there, what is no text is shown as ``?``.
    """
    shown = _AS_TEXT if os.isatty(descriptor) else None

    def write(text: bytes) -> None:
        text = text.translate(shown)
        try:
            while text:
                text = text[os.write(descriptor, text) :]
        except BrokenPipeError:
            pass

    return write


_AS_TEXT: Final = bytes(
    code if code in b"\t\n\r" or 0x20 <= code < 0x7F else ord("?") for code in range(256)
)


class Trace:
    """Prints events as QEMU logs them with ``-msg timestamp=on``: thread, wall clock, name, text.

    So what reads QEMU's log reads this.  What a CPU does comes from its thread, of ``threads``, and
    all else from the main thread, as with QEMU's timers: whoever prints it, and also where it was
    an access that let them expire.
    """

    def __init__(self, path: str | None, errors: TextIO) -> None:
        self._path = path
        self._stream = errors
        self.threads: Callable[[], list[int]] = list

    def __enter__(self) -> Trace:
        if self._path is not None:
            try:
                path = Path(self._path)
                self._stream = path.open("w", encoding="ascii", buffering=1 << 16)
            except OSError as error:
                fix = "name another place"
                raise BootError(f"cannot write {self._path}", error.strerror, fix) from None
        return self

    def __exit__(self, *_: object) -> None:
        if self._path is not None:
            self._stream.close()

    def flush(self) -> None:
        """Write out what there is."""
        self._stream.flush()

    def __call__(self, events: list[Event]) -> None:
        """Print them."""
        main, threads = threading.main_thread().native_id, self.threads()
        lines = []
        for event in events:
            thread = main if event.vcpu is None else threads[event.vcpu]
            seconds, rest_ns = divmod(event.time_ns, 1_000_000_000)
            stamp = f"{thread}@{seconds}.{rest_ns // 1000:06d}"
            lines.append(f"{stamp}:{event.name} {event.text}\n")
        self._stream.write("".join(lines))
        if threading.current_thread() is threading.main_thread():
            self._stream.flush()  # it has time; who is killed has lost little


def _report(outcome: Outcome, options: Options, errors: TextIO) -> int:
    if outcome.detail is not None:
        print(outcome.detail, file=errors)
    if outcome.detail is not None and options.raw_status:
        # Who reads QEMU's standard error reads its end.
        print(f"irqmatrix vmm: {outcome.detail.splitlines()[0]}", file=errors)
    if outcome.end is End.TIMEOUT:
        print(f"the guest did not end within {options.timeout_s:g} s", file=errors)
    for cpu in outcome.stuck:
        print(f"CPU {cpu} did not leave its guest; it ends with the process", file=errors)
    return raw_status(outcome) if options.raw_status else status(outcome)


def status(outcome: Outcome) -> int:
    """0 passed or ended by itself, 1 a check failed or a fault, 77 skipped, 124 out of time."""
    if outcome.end is End.TIMEOUT:
        return EXIT_TIMEOUT
    if outcome.end is End.EXIT:
        return {0: EXIT_PASS, EXIT_SKIP: EXIT_SKIP}.get(outcome.value, EXIT_FAIL)
    return EXIT_FAIL if outcome.end in (End.FAULT, End.TRIPLE_FAULT) else EXIT_PASS


def raw_status(outcome: Outcome) -> int:
    """As QEMU's isa-debug-exit: ``(value << 1) | 1``; 0 for a reset, a shutdown, a triple fault.

    :data:`EXIT_FAULT`, which no guest can give, for what it cannot go on after.
    """
    if outcome.end is End.TIMEOUT:
        return EXIT_TIMEOUT
    if outcome.end is End.FAULT:
        return EXIT_FAULT
    return (outcome.value << 1 | 1) & 0xFF if outcome.end is End.EXIT else 0
