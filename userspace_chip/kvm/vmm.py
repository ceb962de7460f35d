"""A small virtual machine on /dev/kvm whose interrupt controllers are the chips of this package.

A thread for each vCPU runs ``KVM_RUN`` and answers its exits; the caller's thread waits for the end
and lets the chips' timers expire.  One lock guards chips and devices; it is never held across
``KVM_RUN``.  A vCPU that has to look at its interrupts is kicked: ``immediate_exit`` and a signal,
so that a kick is never lost between the look and the entry.

Not modelled: snapshots, migration, disks, network, graphics.
"""

from __future__ import annotations

import contextlib
import signal
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path
from types import FrameType
from typing import Final, Protocol, TypeVar

from userspace_chip.architecture import MASTER_COMMAND
from userspace_chip.errors import IrqmatrixError
from userspace_chip.events import Event
from userspace_chip.kvm import abi, boot, firmware, linux
from userspace_chip.kvm.boot import Module
from userspace_chip.kvm.cpuid import guest_cpuid
from userspace_chip.kvm.devices import (
    batch,
    pci,
    pci_testdev,
    platform,
    testing,
    turns,
    uart,
    virtio,
)
from userspace_chip.kvm.devices.bus import Ports, Windows
from userspace_chip.kvm.entry import Entry, enter
from userspace_chip.kvm.fds import KvmFd, VcpuFd, VmFd
from userspace_chip.kvm.last_words import Exit, describe
from userspace_chip.kvm.live import LiveIrqchip, Maker
from userspace_chip.kvm.memory import GuestMemory
from userspace_chip.kvm.ticks import Ticks

TSS_ADDRESS: Final = 0x7FFD_0000
KICK_SIGNAL: Final = signal.SIGUSR1
RECENT: Final = 20
"""How many exits and events a fault shows."""
JOIN_S: Final = 3.0
"""How long a vCPU may take to leave its guest: a KVM that emulates may never."""
EXPIRING_NS: Final = 4_000_000
"""For how long timers may expire before the CPUs have their turn."""
EXPIRING: Final = 4
"""How many do in any case: what is due at an access has happened, also on a busy host."""
ERRAND_S: Final = 5.0
"""How long a vCPU may take to do something out of its guest."""
TURN_S: Final = 0.1
"""For how long a CPU that gave its turn stays out of its guest, where it gets no other."""
LOOKS: Final = 8
"""How often a CPU that waits for another should look first: that costs as much as the exit."""
_TEXT_DELAY_NS: Final = 20_000_000
_LONG_NS: Final = 1_000_000_000
# Looked up once: of an enum that takes a noticeable part of an exit.
_IO, _MMIO, _INTR = abi.ExitReason.IO, abi.ExitReason.MMIO, abi.ExitReason.INTR


_T = TypeVar("_T")
_T_co = TypeVar("_T_co", covariant=True)


class Errand(Protocol[_T_co]):
    """What is to be done with a vCPU in its own thread; the lock is held."""

    def __call__(self, irqchip: LiveIrqchip, vcpu: VcpuFd) -> _T_co:
        """Do it."""


class End(Enum):
    """How a guest ended."""

    EXIT = "exit"
    """It wrote to the exit device."""
    RESET = "reset"
    POWER_OFF = "power off"
    TIMEOUT = "timeout"
    TRIPLE_FAULT = "triple fault"
    QUIT = "quit"
    """The monitor's command."""
    FAULT = "fault"
    """It did something that no guest can go on after; the outcome's detail says what."""


@dataclass(frozen=True)
class Outcome:
    """The end of a guest: ``value`` is what it wrote to the exit device."""

    end: End
    value: int = 0
    detail: str | None = None
    stuck: tuple[int, ...] = ()
    """CPUs that did not leave their guest when asked."""


@dataclass(frozen=True)
class Guest:
    """What is booted; the modules of a Linux kernel are its initial RAM disk."""

    image: bytes
    command_line: str = ""
    modules: Sequence[Module] = ()
    cpus: int = 1
    memory_mib: int = 256
    debug_ports: tuple[int, ...] = (0xE9,)
    """Where a byte written is text, beside COM1."""
    has_edu: bool = True
    has_serial: bool = True
    has_virtio_serial: bool = False
    """Whether there is a PCI device that takes a whole text with one access."""
    has_x2apic: bool = True
    has_tsc_deadline: bool = False


@dataclass
class _Cpu:
    """A vCPU and its thread."""

    vcpu: VcpuFd
    wake: threading.Condition
    thread: threading.Thread = field(init=False)
    running: bool = False
    kicked: bool = False
    entered_ns: int = 0
    """When it last entered its guest, or began to sleep; guest time."""
    inside_ns: int = 0
    """For how long it has been there before."""
    errands: deque[Callable[[], None]] = field(default_factory=deque)
    """What is to be done in its thread, out of its guest."""


class Vmm:
    """A guest on a VM that ``make`` gives its chips.  Use it in a ``with``, once.

    ``output`` takes what the guest says (COM1, the debug ports, virtio-serial), from any thread,
    one call at a time.  ``events`` takes the chips' events, where they are wanted.  Raises
    :class:`~userspace_chip.kvm.errors.KvmError` where KVM lacks something, and
    :class:`~userspace_chip.kvm.errors.BootError` for an image that cannot be booted.
    """

    def __init__(
        self,
        guest: Guest,
        make: Maker,
        output: Callable[[bytes], None],
        *,
        events: Callable[[list[Event]], None] | None = None,
        kernel_lapic: bool = True,
        path: str = "/dev/kvm",
    ) -> None:
        self._guest = guest
        self._make = make
        self._output = output
        self._events = events
        self._kernel_lapic = kernel_lapic
        self._path = path
        self._lock = threading.Lock()
        self._changed = threading.Condition(self._lock)
        self._outcome: Outcome | None = None
        self._failure: BaseException | None = None
        self._stopping = False
        self._wakes_at_ns = 0
        self._is_late = False
        """Whether something that was due has not expired yet."""
        self._text = bytearray()
        self._text_due_ns: int | None = None
        self._paused = False
        self._recent: deque[tuple[int, str] | tuple[int, str, int, int, bytes]] = deque(
            maxlen=RECENT
        )
        """What the last exits were, as of :class:`Exit`; an object for each would take longer."""
        self._cpus: list[_Cpu] = []
        self._serial: uart.Uart | None = None
        self._ticks = Ticks()
        self._ports, self._windows = Ports(), Windows()
        self._start_ns = 0
        self._owned = ExitStack()

    def __enter__(self) -> Vmm:
        with ExitStack() as stack:
            kvm = stack.enter_context(KvmFd(self._path))
            vm = stack.enter_context(kvm.create_vm())
            self._build(kvm, vm)
            self._owned = stack.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._owned.close()

    # ------------------------------------------------------------------ building

    def _build(self, kvm: KvmFd, vm: VmFd) -> None:
        guest = self._guest
        vm.set_tss_addr(TSS_ADDRESS)
        self._memory = GuestMemory(vm, guest.memory_mib)
        firmware.install(self._memory, guest.cpus)
        entry = self._load()
        self._irqchip = self._make(vm, guest.cpus, self._kick)
        self._chips = self._irqchip.chips
        supported = kvm.supported_cpuid()
        for index in range(guest.cpus):
            vcpu = vm.create_vcpu(index)
            leaves = guest_cpuid(
                supported,
                index,
                guest.cpus,
                kernel_lapic=self._kernel_lapic,
                x2apic=guest.has_x2apic,
                tsc_deadline=guest.has_tsc_deadline,
            )
            vcpu.set_cpuid(leaves)
            firmware.prepare_cpu(vcpu)
            self._irqchip.add_cpu(vcpu)
            self._cpus.append(_Cpu(vcpu, threading.Condition(self._lock)))
        enter(self._cpus[0].vcpu, entry)
        self._add_devices()
        self._irqchip.connect(self._ports, self._windows)
        if not self._chips.on:  # else they are the kernel's
            self._ports.add([batch.PORT], batch.Batch(self._memory, self._ports, self._windows))
        self._chips.log.enable(self._events is not None)

    def _load(self) -> Entry:
        """The image in memory: what it is, it says itself."""
        guest = self._guest
        if linux.is_kernel(guest.image):
            ram_disks = [module.content for module in guest.modules]
            return linux.load(self._memory, guest.image, guest.command_line, ram_disks)
        return boot.load(self._memory, guest.image, guest.command_line, guest.modules)

    def _add_devices(self) -> None:
        guest, ports, windows = self._guest, self._ports, self._windows
        if guest.has_serial:
            self._serial = uart.Uart(
                self._say, lambda level, cpu: self._set_gsi(uart.COM1_GSI, level, cpu)
            )
            ports.add(uart.COM1, self._serial)
        ports.add(testing.DEBUG_EXIT, testing.DebugExit(self._exit))
        ports.add(testing.TEST_SCRATCH, scratch := testing.TestScratch())
        ports.add(testing.TEST_SCRATCH_BYTES, scratch)
        ports.add([testing.TEST_FLUSH], testing.TestFlush(self._memory.unmap_page))
        ports.add(testing.TEST_LINES, testing.TestLines(self._set_gsi))
        windows.add(testing.TEST_MEMORY, testing.TEST_MEMORY_BYTES, testing.TestMemory())
        for port in guest.debug_ports:
            ports.add([port], testing.Debugcon(self._say))
            ports.add_text(port, self._say)
        # Without its local APICs KVM does not know for whom its hypercall is.
        looks = LOOKS if self._kernel_lapic else 1
        self._turns = turns.Turns(
            guest.cpus, looks, lambda cpu: self._cpus[cpu].wake.notify(), lambda: self._is_late
        )
        ports.add([turns.PORT, turns.LATE_PORT], self._turns)
        memory_bytes = self._memory.bytes
        ports.add(platform.FW_CFG, platform.FwCfg(cpus=guest.cpus, memory_bytes=memory_bytes))
        ports.add(platform.KEYBOARD, platform.Keyboard(self._reset))
        ports.add(platform.RESET_CONTROL, platform.ResetControl(self._reset))
        power = platform.AcpiPm(lambda: self._chips.now_ns, lambda: self._end(End.POWER_OFF))
        for registers in (platform.PM_EVENT, platform.PM_CONTROL, platform.PM_TIMER):
            ports.add(registers, power)
        testdev = pci_testdev.PciTestdev()
        functions: dict[int, pci.PciFunction] = {pci_testdev.SLOT: testdev}
        windows.add(pci_testdev.MEMORY, pci_testdev.MEMORY_BYTES, testdev)
        ports.add(pci_testdev.PORTS, testdev)
        if guest.has_edu:
            edu = pci.Edu(self._irqchip.signal_msi)
            functions[pci.EDU_SLOT] = edu
            windows.add(pci.EDU_BAR, pci.EDU_BAR_BYTES, edu)
        if guest.has_virtio_serial:
            serial = virtio.VirtioSerial(self._memory, self._say)
            functions[virtio.SLOT] = serial
            ports.add(virtio.PORTS, serial)
        config = pci.PciConfig(functions)
        ports.add([port for port in pci.CONFIG if port != platform.RESET_CONTROL.start], config)

    def _set_gsi(self, gsi: int, level: int, cpu: int | None) -> None:
        self._chips.set_gsi(gsi, level, cpu=cpu)

    # ------------------------------------------------------------------ from outside

    @property
    def cpus(self) -> int:
        """How many vCPUs there are."""
        return len(self._cpus)

    @property
    def paused(self) -> bool:
        """Whether the guest waits for :meth:`resume`."""
        return self._paused

    def resume(self) -> None:
        """Let a guest run that was started paused."""
        with self._lock:
            self._paused = False
            for cpu in self._cpus:
                cpu.wake.notify()

    def type(self, data: bytes) -> None:
        """Send ``data`` to the guest's COM1; without one it is lost."""
        with self._lock:
            if self._serial is not None:
                self._advance()
                self._serial.receive(data)
                self._irqchip.settle()
                self._changed.notify_all()

    def quit(self) -> None:
        """End the guest."""
        with self._lock:
            self._end(End.QUIT)

    def threads(self) -> list[int]:
        """The ids of the vCPUs' threads, which :meth:`run` starts."""
        return [cpu.thread.native_id or 0 for cpu in self._cpus]

    def on_cpu(self, index: int, errand: Errand[_T]) -> _T | None:
        """What ``errand`` gives, called in the thread of a CPU that is out of its guest.

        None where the CPU does not leave it within :data:`ERRAND_S`.
        """
        cpu = self._cpus[index]
        found: list[_T] = []
        with self._changed:

            def work() -> None:
                found.append(errand(self._irqchip, cpu.vcpu))
                self._irqchip.settle()
                self._changed.notify_all()

            cpu.errands.append(work)
            self._kick(index)
            self._changed.wait_for(lambda: found or self._outcome is not None, ERRAND_S)
        return found[0] if found else None

    # ------------------------------------------------------------------ running

    def run(
        self,
        timeout_s: float | None = None,
        *,
        paused: bool = False,
        started: Callable[[], object] = lambda: None,
    ) -> Outcome:
        """Run the guest to its end, or for ``timeout_s``; ``paused``: after :meth:`resume`.

        ``started`` is called once there are threads for it to ask about.
        Call it from the main thread: it owns the process's handler of SIGUSR1 meanwhile.  A bug
        that a vCPU's thread ran into is raised here.
        """
        self._paused = paused
        self._start_ns = time.monotonic_ns()
        deadline_ns = None if timeout_s is None else int(timeout_s * 1e9)
        with _kicks_handled(), self._threads() as stuck:
            started()
            self._keep_time(deadline_ns)
        if self._failure is not None:
            raise self._failure
        assert self._outcome is not None
        outcome = self._outcome
        return Outcome(outcome.end, outcome.value, outcome.detail, tuple(stuck))

    @contextlib.contextmanager
    def _threads(self) -> Iterator[list[int]]:
        """The vCPUs' threads; which did not come back is in the list afterwards."""
        stuck: list[int] = []
        for cpu in self._cpus:
            name = f"vcpu{cpu.vcpu.index}"
            cpu.thread = threading.Thread(target=self._guarded, args=(cpu,), name=name, daemon=True)
        try:
            for cpu in self._cpus:
                cpu.thread.start()
            yield stuck
        finally:
            with self._lock:
                self._stopping = True
                for cpu in self._cpus:
                    self._kick(cpu.vcpu.index)
            end_s = time.monotonic() + JOIN_S
            for cpu in self._cpus:
                if cpu.thread.ident is not None:
                    cpu.thread.join(max(end_s - time.monotonic(), 0.01))
                    if cpu.thread.is_alive():
                        stuck.append(cpu.vcpu.index)

    def _keep_time(self, deadline_ns: int | None) -> None:
        """Let timers expire, and text out, until the guest has ended."""
        while True:
            with self._changed:
                now_ns = self._let_time_pass()
                if deadline_ns is not None and now_ns >= deadline_ns:
                    self._end(End.TIMEOUT)
                ended = self._outcome is not None or self._failure is not None
                text = self._take_text(now_ns, all_of_it=ended)
                if not ended and not text:
                    due = (deadline_ns, self._next_due_ns(), now_ns + _LONG_NS)
                    self._wakes_at_ns = min(at_ns for at_ns in due if at_ns is not None)
                    # Where timers take all of the time that there is, half of it is the CPUs'.
                    after_ns = self._now_ns()
                    pause_ns = max(self._wakes_at_ns - after_ns, after_ns - now_ns)
                    self._changed.wait(pause_ns / 1e9)
            if text:
                self._output(text)
            if ended:
                return

    def _next_due_ns(self) -> int | None:
        text_ns, due_ns = self._text_due_ns, min(self._chips.deadlines.values(), default=None)
        if text_ns is None or due_ns is None:
            return text_ns if due_ns is None else due_ns
        return min(text_ns, due_ns)

    def _advance(self) -> int:
        """Guest time is now, and what was due has expired.

        What takes longer than the time that it makes up for would have no end.  So what is left
        after a while stays, and guest time is late; but the PIT loses its ticks.
        """
        now_ns, chips = self._now_ns(), self._chips
        is_late, expired, self._is_late = False, 0, False
        while (due_ns := min(chips.deadlines.values(), default=now_ns)) < now_ns:
            if not self._loses_tick(due_ns, now_ns, is_late=is_late):
                if is_late:
                    self._is_late = True
                    return now_ns
                chips.advance(due_ns)
                expired += 1
                is_late = expired >= EXPIRING and self._now_ns() - now_ns > EXPIRING_NS
        chips.advance(now_ns)
        return now_ns

    def _loses_tick(self, due_ns: int, now_ns: int, *, is_late: bool) -> bool:
        """Whether a tick of the PIT was due for which there is no time."""
        chips, cpu = self._chips, self._cpus[0]
        if chips.deadlines.get("pit") != due_ns or not chips.pit.rises_next:
            return False
        inside_ns = cpu.inside_ns + (now_ns - cpu.entered_ns if cpu.running else 0)
        if not is_late and not self._ticks.is_too_soon(now_ns, inside_ns):
            return False
        chips.pit.lose_ticks(now_ns)
        return True

    def _now_ns(self) -> int:
        return time.monotonic_ns() - self._start_ns

    def _let_time_pass(self) -> int:
        """The same, from the thread that keeps the time: whoever is concerned is kicked."""
        now_ns = self._advance()
        self._irqchip.settle()
        if self._events is not None:
            self._events(self._chips.log.take())
        return now_ns

    def _guarded(self, cpu: _Cpu) -> None:
        try:
            self._run_cpu(cpu)
        except BaseException as error:
            with self._lock:
                if self._failure is None:
                    self._failure = error
                self._changed.notify_all()

    def _run_cpu(self, cpu: _Cpu) -> None:
        """One vCPU, until the guest ends."""
        vcpu, index, irqchip = cpu.vcpu, cpu.vcpu.index, self._irqchip
        _name_thread(f"CPU {index}/KVM")
        lock = self._lock
        with lock:
            while not self._stopping and self._outcome is None:
                if cpu.kicked:
                    cpu.kicked = False
                    vcpu.kvm_run.immediate_exit = 0
                while cpu.errands:
                    cpu.errands.popleft()()
                if self._turns.waits(index):
                    cpu.wake.wait(TURN_S)
                    self._turns.end_wait(index)
                    continue
                cpu.entered_ns = self._now_ns()
                if self._paused or not irqchip.before_run(index):
                    cpu.wake.wait(1.0)
                    cpu.inside_ns += self._now_ns() - cpu.entered_ns
                    continue
                cpu.running = True
                lock.release()
                try:
                    reason = vcpu.run()
                    left_ns = self._now_ns()
                finally:
                    lock.acquire()
                    cpu.running = False
                cpu.inside_ns += left_ns - cpu.entered_ns
                self._handle(cpu, reason)

    def _kick(self, index: int) -> None:
        """Make a CPU look at its interrupts."""
        cpu = self._cpus[index]
        if cpu.running and not cpu.kicked:
            cpu.kicked = True
            cpu.vcpu.kvm_run.immediate_exit = 1
            if cpu.thread is not threading.current_thread():
                signal.pthread_kill(cpu.thread.ident or 0, KICK_SIGNAL)
        self._turns.take(index)

    # ------------------------------------------------------------------ exits

    def _handle(self, cpu: _Cpu, reason: abi.ExitReason) -> None:
        """Answer one exit; the lock is held."""
        index = cpu.vcpu.index
        log = self._chips.log
        if log.enabled:
            log.vcpu = index
            log("kvm_run_exit", index, int(reason))
        self._irqchip.after_run(index)
        if reason is not _INTR:
            # An access, an EOI or an MSR may start a timer: from now, not from the exit before.
            self._advance()
        if reason is _IO:
            self._handle_io(cpu)
        elif reason is _MMIO:
            self._handle_mmio(cpu)
        elif reason is not _INTR:
            self._recent.append((index, reason.name))
            if reason is abi.ExitReason.SHUTDOWN:
                self._fault(cpu, "a triple fault (KVM_EXIT_SHUTDOWN)", End.TRIPLE_FAULT)
            elif not self._irqchip.handle(index, reason):
                self._fault(cpu, f"the guest stopped with KVM_EXIT_{_named(cpu.vcpu, reason)}")
        self._irqchip.settle()
        if log.enabled and log.events and self._events is not None:
            self._events(log.take())
        due_ns = self._next_due_ns()
        if due_ns is not None and due_ns < self._wakes_at_ns:
            self._wakes_at_ns = due_ns
            self._changed.notify_all()

    def _handle_io(self, cpu: _Cpu) -> None:
        vcpu, index = cpu.vcpu, cpu.vcpu.index
        out, size, port, count, at = vcpu.io_exit()
        mapping = vcpu.mapping
        if out:
            data = mapping[at : at + size * count]
            if port == MASTER_COMMAND:
                self._ticks.handled = True
            self._recent.append((index, "OUT", port, size, data[:size]))
            if count == 1:
                self._ports.write(index, port, size, int.from_bytes(data, "little"))
            else:
                self._ports.write_string(index, port, size, data)
            return
        for place in range(at, at + size * count, size):
            value = self._ports.read(index, port, size)
            mapping[place : place + size] = value.to_bytes(size, "little")
        self._recent.append((index, "IN", port, size, mapping[at : at + size]))

    def _handle_mmio(self, cpu: _Cpu) -> None:
        vcpu, index = cpu.vcpu, cpu.vcpu.index
        address, data, size, is_write = vcpu.mmio_exit()
        device = self._windows.at(address)
        access = "STORE" if is_write else "LOAD"
        if device is None:
            self._recent.append((index, access, address, size, data[:size]))
            self._fault(
                cpu, f"{access.lower()} of {size} bytes at {address:#x}: no device is there"
            )
        elif is_write:
            self._recent.append((index, access, address, size, data[:size]))
            for at, piece in _pieces(size):
                value = int.from_bytes(data[at : at + piece], "little")
                device.write(index, address + at, piece, value)
        else:
            read = b"".join(
                device.read(index, address + at, piece).to_bytes(piece, "little")
                for at, piece in _pieces(size)
            )
            vcpu.answer_mmio(read)
            self._recent.append((index, access, address, size, read))

    # ------------------------------------------------------------------ text

    def _say(self, text: bytes) -> None:
        if not self._text:
            self._text_due_ns = self._chips.now_ns + _TEXT_DELAY_NS
        self._text += text

    def _take_text(self, now_ns: int, *, all_of_it: bool) -> bytes:
        """What was said, once there is enough of it to be worth a write."""
        if not all_of_it and (self._text_due_ns is None or now_ns < self._text_due_ns):
            return b""
        text, self._text, self._text_due_ns = bytes(self._text), bytearray(), None
        return text

    # ------------------------------------------------------------------ the end

    def _exit(self, value: int) -> None:
        self._end(End.EXIT, value)

    def _reset(self) -> None:
        self._end(End.RESET)

    def _fault(self, cpu: _Cpu, what: str, end: End = End.FAULT) -> None:
        self._end(
            end, detail=describe(what, cpu.vcpu, self._memory, [Exit(*one) for one in self._recent])
        )

    def _end(self, end: End, value: int = 0, detail: str | None = None) -> None:
        if self._outcome is None:
            self._outcome = Outcome(end, value, detail)
        self._changed.notify_all()


def _name_thread(name: str) -> None:
    """Name this thread as QEMU names a vCPU's, so that who reads KVM's trace knows it."""
    with contextlib.suppress(OSError):
        Path(f"/proc/self/task/{threading.get_native_id()}/comm").write_text(name)


def _pieces(size: int) -> Sequence[tuple[int, int]]:
    """Offset and size of the accesses that one of ``size`` bytes is: by bytes where it is odd.

    What crosses a page comes as two, of any size from 1 to 7.
    """
    return ((0, size),) if size in (1, 2, 4, 8) else [(at, 1) for at in range(size)]


def _named(vcpu: VcpuFd, reason: abi.ExitReason) -> str:
    """An exit with what KVM says of it."""
    exit_ = vcpu.kvm_run.exit
    if reason is abi.ExitReason.INTERNAL_ERROR:
        return f"{reason.name} (suberror {exit_.internal.suberror})"
    if reason is abi.ExitReason.FAIL_ENTRY:
        return f"{reason.name} (reason {exit_.fail_entry.hardware_entry_failure_reason:#x})"
    return reason.name


@contextlib.contextmanager
def _kicks_handled() -> Iterator[None]:
    """A handler for the kicks, which does nothing: a signal with one ends KVM_RUN."""

    def ignore(number: int, frame: FrameType | None) -> None:
        pass

    try:
        before = signal.signal(KICK_SIGNAL, ignore)
    except ValueError:
        raise IrqmatrixError(
            "the guest cannot be run in this thread",
            "only the main thread may own a signal's handler",
            "call Vmm.run from the main thread",
        ) from None
    try:
        yield
    finally:
        signal.signal(KICK_SIGNAL, before)
