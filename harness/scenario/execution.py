"""The probe guest on the Python chips: a program, executed on a ``Machine``.

What the probe is in C (``images/probe``), this is for the model: the CPUs' guest state (IF, HLT,
handlers under way) on one side of :meth:`Machine.enter`, the chips on the other.  Nothing here
knows what an interrupt controller does.

Each CPU has a stack of activities, generators that do one operation a step: at the bottom the
operation that CPU 0 asked for, above it the handlers that interrupted it, the innermost on top.
A *slice* lets one CPU enter its guest, which may push a handler, or else advances its top activity.
An activity yields whether it did something; where no CPU can, and only then, time passes: up to the
next deadline of a chip or of a wait.

The order between CPUs is the model's own choice (:class:`Order`): what a log says must not
depend on it.  Source of all semantics: ``program.py``.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from enum import Enum
from functools import lru_cache
from random import Random
from typing import Final, TypeAlias

from harness.base.errors import PredictionError
from harness.scenario.log import Log, LogEvent
from harness.scenario.program import (
    ANY_VECTOR,
    NMI_ENTRY,
    Detail,
    Handler,
    Op,
    Opcode,
    OpFlag,
    Program,
)
from harness.scenario.requests import Command
from userspace_chip.architecture import (
    APIC_WINDOW,
    APIC_WINDOW_BYTES,
    IOAPIC_BASES,
    IOREDTBL,
    IOREGSEL,
    IOWIN,
    MSR_X2APIC,
    PIT_CONTROL,
    PIT_COUNTER_0,
    RTC_DATA,
    RTC_INDEX,
    Board,
)
from userspace_chip.errors import AccessError, ChipError
from userspace_chip.irqchip import Machine, MachineState
from userspace_chip.kvm.layout import move
from userspace_chip.lapic_registers import ICR, ICR2, LDR, SPIV
from userspace_chip.profile import Profile
from userspace_chip.rtc import REGISTER_A, REGISTER_D, TIME
from userspace_chip.vcpu import IntrType, MpState

Activity: TypeAlias = Generator[bool, None, None]
"""Yields True after something was done, False where it has to wait."""

PROLOGUE: Final = 0
MAIN: Final = 1
LOOK_AHEAD_NS: Final = 100_000_000
UNEVEN_SLICES: Final = (2, 12)
"""A turn of a CPU has fewer slices than this, of :attr:`Order.UNEVEN`, as its seed says: where CPUs
go in step what they do at once is found, else what one does while another one does little."""
NMIS_HELD: Final = 2
"""By a CPU: one that it handles or takes next, and one after it (Linux ``process_nmi``)."""
_WITHOUT_EXIT: Final = frozenset({Opcode.STI, Opcode.CLI})
WATCHDOG_NS: Final = 1_000_000_000
"""After this time of sleep CPU 0 is woken: the probe's watchdog."""

_NS_PER_US: Final = 1000
_SVR: Final = 0x1FF
_QUIET_PIT: Final = ((PIT_CONTROL, 0x38), (PIT_COUNTER_0, 1), (PIT_COUNTER_0, 0))
"""Counter 0 in mode 4 with a count of 1: see ``images/probe/pit.c``."""
_PIT_RUNS_OUT_NS: Final = 10_000
_RTC_DIVIDER_RESET: Final = ((RTC_INDEX, REGISTER_A), (RTC_DATA, 0x66), (RTC_INDEX, 0))
"""See ``images/probe/rtc.c``."""
_MIDNIGHT_S: Final = 1767225600
"""Thursday, 1 January 2026, 0:00."""
_NMI_TYPE: Final = IntrType.NMI << 8
_EXCEPTION_TYPE: Final = IntrType.HARDWARE_EXCEPTION << 8
_TYPE_MASK: Final = 0x700
_DEFAULT_HANDLER: Final = Handler(ANY_VECTOR, -1)
_DEFAULT_OPS: Final = (Op(Opcode.EOI, flags=OpFlag.IN_SERVICE),)


class Order(Enum):
    """When a CPU takes what another CPU's operation made pending."""

    EAGER = "before the next operation, all CPUs in step"
    LAZY = "where the step settles or a CPU waits, one CPU after the other, the last one first"
    UNEVEN = (
        "at any time: each CPU does some operations, the next one some, by a seeded random sequence"
    )
    STARVED = "one of them, the seed says which, only where no other can do anything"


class _Cpu:
    """The guest's side of one CPU."""

    __slots__ = (
        *("asleep", "awaits_sipi", "entries", "events", "faulted", "handled"),
        *("interruptible", "nmi_blocked", "number", "offline", "pinned", "rested"),
        *("stack", "stays"),
    )

    def __init__(self, number: int) -> None:
        self.number = number
        self.interruptible = False
        """IF."""
        self.nmi_blocked = False
        """From an NMI to the next IRET."""
        self.asleep = False
        """In HLT."""
        self.offline = False
        self.awaits_sipi = False
        self.faulted = False
        self.rested = False
        """Nothing was pending to it at the end of its last turn, of :attr:`Order.UNEVEN`."""
        self.pinned: int | None = None
        """The step that sent it to sleep, until an AWAIT."""
        self.stack: list[Activity] = []
        self.stays = False
        """Since KVM_INTERRUPT the guest has not left (:meth:`Execution._stays`)."""
        self.handled: list[int] = []
        """The vectors whose handlers are under way, the innermost last."""
        self.entries: dict[int, int] = {}
        self.events: list[LogEvent] = []


class Execution:
    """One program on one machine; :meth:`run` once.

    ``seed``: of :attr:`Order.UNEVEN`, the CPU of :attr:`Order.STARVED`.
    ``operation_ns``: the guest time that an operation takes, and a handler's entry with its look
    at the chips.
    ``late_ns``: how late timers expire, so that several do before a CPU goes on.
    ``look_ahead``: at the end of each step see whether a timer is still running that would
    interrupt (in ``problems``).  ``machine``: one of this profile, board and number of CPUs that
    is not needed any more, whatever it was used for; making one takes as long as a small program.
    """

    def __init__(
        self,
        program: Program,
        profile: Profile,
        *,
        board: Board = "pc",
        cpus: int,
        order: Order = Order.EAGER,
        seed: int = 0,
        operation_ns: int = 0,
        late_ns: int = 0,
        look_ahead: bool = False,
        machine: Machine | None = None,
    ) -> None:
        self.program = program
        self.machine = machine or machine_for(profile, board, cpus)
        self._board = board
        self.problems: list[tuple[int, str]] = []
        """(step, what its author should look at)."""
        self.races: list[tuple[int, str]] = []
        """(step, what depends on the order between CPUs in a way that no order here shows)."""
        self._nmi_senders: list[list[int]] = [[] for _ in range(cpus)]
        """By CPU, who sent it each NMI since everything last came to rest."""
        self._cpus = [_Cpu(number) for number in range(cpus)]
        self._handlers = {handler.vector: handler for handler in program.handlers}
        self._of_nmis = self._handlers.get(NMI_ENTRY)
        self._default = self._handlers.get(ANY_VECTOR, _DEFAULT_HANDLER)
        self._order = order
        self._everyone = self._cpus[::-1] if order is Order.LAZY else self._cpus
        self._starved = self._cpus[seed % cpus] if order is Order.STARVED else None
        after = [self._cpus[n + 1 :] + self._cpus[: n + 1] for n in range(cpus)]
        self._after = [[cpu for cpu in all_ if cpu is not self._starved] for all_ in after]
        self._random = Random(seed)
        self._uneven = UNEVEN_SLICES[seed % len(UNEVEN_SLICES)]
        self._operation_ns = operation_ns
        self._late_ns = late_ns
        self.waited = False
        """Whether time passed."""
        self._look_ahead = look_ahead
        self._step = 0
        self._alarms: list[int] = []
        """When waits end, ns."""

    def run(self) -> Log:
        """The program's log; :class:`PredictionError` where there is nothing to predict."""
        state, interruptible = after_prologue(
            self.machine.profile, self._board, len(self._cpus), self.program.blocks[PROLOGUE]
        )
        self.machine.load(state)
        if self.machine.hpet is not None:
            self.machine.hpet.slip_ns = self._late_ns
        for cpu, flag in zip(self._cpus, interruptible, strict=True):
            cpu.interruptible = flag
        self._conduct(self.program.blocks[MAIN])
        for cpu in self._cpus:
            self._log_counts(cpu)
            if cpu.pinned is not None:
                self.problems.append((cpu.pinned, f"no AWAIT for CPU {cpu.number} follows"))
        return Log(tuple(event for cpu in self._cpus for event in cpu.events))

    def prepare(self) -> tuple[MachineState, tuple[bool, ...]]:
        """The prologue alone: the chips after it, and each CPU's IF.

        :class:`PredictionError` where it does what the model cannot.
        """
        self._reset()
        self._conduct(self.program.blocks[PROLOGUE])
        self._quieten(self._everyone)
        return self.machine.save(), tuple([cpu.interruptible for cpu in self._cpus])

    def _reset(self) -> None:
        """What the probe's start-up and its reset leave."""
        machine = self.machine
        machine.reset()
        machine.run_vapic_rom()
        for vcpu in machine.vcpus:
            vcpu.state.mp_state = MpState.RUNNABLE
            vcpu.lapic.write_mmio(SPIV, 4, _SVR, 0)
            # Also of CPUs that take no part in the program: they are on the APIC bus.
            vcpu.lapic.write_mmio(LDR, 4, 1 << vcpu.vcpu_id << 24, 0)
        for port, value in _QUIET_PIT + _RTC_DIVIDER_RESET:
            machine.pio_write(0, port, value)
        machine.advance(_PIT_RUNS_OUT_NS)

    # ------------------------------------------------------------------ who does what when

    def _conduct(self, ops: Sequence[Op]) -> None:
        """One operation after the other, each on its CPU."""
        for op in ops:
            self._step = op.step
            try:
                self._one(op)
                if op.flags & OpFlag.SETTLE:
                    self._settle()
            except ChipError as error:
                raise PredictionError(
                    f"{self.program.name}, step {op.step}: {op.opcode.name}",
                    str(error),
                    "the model has interrupt controllers only",
                ) from error

    def _one(self, op: Op) -> None:
        cpu = self._cpus[op.cpu]
        if cpu.faulted:
            return
        if cpu.offline or (cpu.asleep and cpu.pinned is not None):
            self.problems.append((op.step, f"CPU {op.cpu} sleeps or is offline: AWAIT it first"))
            self._log(self._cpus[0], "asleep")
            return
        if op.opcode in _SIMPLE and not cpu.stack:
            self._at_once(cpu, op)
            members = [cpu]
        elif op.opcode is Opcode.PARALLEL:
            members = [self._cpus[n] for n in range(len(self._cpus)) if op.a >> n & 1]
            for index, member in enumerate(members):
                member.stack.append(self._operations(member, self.program.blocks[op.b + index]))
        else:
            members = [cpu]
            cpu.stack.append(self._operations(cpu, (op,)))
        away = op.opcode is Opcode.HLT and op.cpu != 0
        if away:
            cpu.pinned = op.step
        self._pump(members, away)
        if self._order is not Order.LAZY:
            self._quieten(self._after[op.cpu])

    def _at_once(self, cpu: _Cpu, op: Op) -> None:
        """What does not wait; where others are in no hurry, this CPU takes what there is."""
        is_late = self._order is Order.LAZY or cpu is self._starved
        if is_late:
            self._quieten((cpu,))
        cpu.stays &= op.opcode in _WITHOUT_EXIT
        self._simple(cpu, op)
        if is_late:
            self._quieten((cpu,))

    def _simple(self, cpu: _Cpu, op: Op) -> None:
        before = self._nmis() if len(self._cpus) > 1 else ()
        _SIMPLE[op.opcode](self, cpu, op)
        if before:
            self._note_nmis(cpu, before)
        self._take_time()

    def _nmis(self) -> list[int]:
        """By CPU, the NMIs that it has not taken."""
        states = [vcpu.state for vcpu in self.machine.vcpus]
        return [state.nmi_queued + state.nmi_pending for state in states]

    def _note_nmis(self, sender: _Cpu, before: Sequence[int]) -> None:
        """More than a CPU holds are one less if they come while it does something else."""
        for number, (old, new) in enumerate(zip(before, self._nmis(), strict=True)):
            if new <= old:
                continue
            senders = self._nmi_senders[number]
            senders.append(sender.number)
            if len(senders) > NMIS_HELD and set(senders) != {number}:
                text = f"CPU {number} gets {len(senders)} NMIs and may hold only {NMIS_HELD}"
                self.races.append((self._step, text))

    def _take_time(self) -> None:
        if self._operation_ns:
            self.machine.advance(self.machine.now_ns + self._operation_ns)

    def _pump(self, members: Sequence[_Cpu], away: bool) -> None:
        """Until the stacks of ``members`` are empty, or where they go ``away`` are asleep."""
        while True:
            busy = [m for m in members if m.stack and not m.faulted and not (away and m.asleep)]
            if not busy:
                return
            first = busy if self._order is Order.LAZY else self._everyone
            if self._round(first) or self._round(self._everyone) or self._pass_time():
                continue
            for cpu in busy:  # nothing will ever happen to them
                self.problems.append((self._step, f"CPU {cpu.number} waits for ever"))
                cpu.faulted = True

    def _settle(self) -> None:
        """Everything comes to rest, also what the last operation's exit leaves (off: INTR)."""
        for cpu in self._everyone:
            cpu.stays = False  # the probe leaves its guest once more
        self._quieten(self._everyone)
        self._forget_senders()
        if self._look_ahead and self.machine.deadlines:
            self._see_what_timers_do()

    def _forget_senders(self) -> None:
        for senders in self._nmi_senders:
            senders.clear()

    def _see_what_timers_do(self) -> None:
        """Let time pass, and take it back."""
        machine = self.machine
        before, requests = machine.save(), self._timer_requests()
        machine.advance(machine.now_ns + LOOK_AHEAD_NS)
        after = self._timer_requests()
        machine.load(before)
        for cpu, (old, new) in enumerate(zip(requests, after, strict=True)):
            if old != new:
                text = f"a timer is left running that will interrupt CPU {cpu}: wait in this step"
                self.problems.append((self._step, text))

    def _timer_requests(self) -> list[tuple[int, bool, int, bool]]:
        """Of each CPU: IRR, its own timer's request, NMIs, and whether it is to take INTR."""
        intr = self.machine.pic.output
        return [
            (lapic.state.irr, lapic.state.timer.pending, nmis, intr and lapic.accepts_pic_intr())
            for lapic, nmis in zip(self.machine.lapics, self._nmis(), strict=True)
        ]

    def _quieten(self, cpus: Sequence[_Cpu]) -> None:
        """Until nothing more happens to them without time passing."""
        while self._round(cpus):
            pass

    def _round(self, cpus: Sequence[_Cpu]) -> bool:
        """A turn of each CPU; whether anything happened."""
        machine = self.machine
        happened = False
        if self._order is Order.UNEVEN and len(cpus) > 1:
            cpus = self._random.sample(cpus, len(cpus))
        for cpu in cpus:
            if cpu is not self._starved and self._turn(cpu):
                happened = True
        if not happened and self._starved is not None and self._starved in cpus:
            happened = self._slice(self._starved)
        if machine.deadlines and min(machine.deadlines.values()) <= machine.now_ns:
            machine.advance(machine.now_ns)
            happened = True
        return happened

    def _turn(self, cpu: _Cpu) -> bool:
        """Slices of one CPU; whether there was any."""
        most = self._slices()
        done = 0
        while done != most and self._slice(cpu):
            done += 1
        if self._order is Order.UNEVEN:
            cpu.rested = self.machine.vcpus[cpu.number].rests()
        return done > 0

    def _slices(self) -> int | None:
        """How many a CPU has at most before it is another one's turn; None: no limit."""
        if self._order is Order.EAGER:
            return 1
        return self._random.randrange(1, self._uneven) if self._order is Order.UNEVEN else None

    def _pass_time(self) -> bool:
        """To the next deadline; False where there is none."""
        deadlines = [*self.machine.deadlines.values(), *self._alarms]
        if not deadlines:
            return False
        self.machine.advance(min(deadlines) + self._late_ns)
        self.waited = True
        self._forget_senders()
        return True

    def _exits_before(self, cpu: _Cpu) -> bool:
        """Whether the CPU's next operation has left the guest before what others sent came.

        Both happen at once: an operation of each CPU can reach the other before either enters its
        guest again, and two IPIs of one vector are one then, on both.
        """
        rested, cpu.rested = cpu.rested, False
        return rested and self._random.random() < 0.5

    def _slice(self, cpu: _Cpu) -> bool:
        if cpu.faulted:
            return False
        if self._exits_before(cpu) and self._act(cpu):
            return True
        if not self._stays(cpu) and self._enter(cpu):
            return True
        return self._act(cpu)

    def _act(self, cpu: _Cpu) -> bool:
        """What the guest does next; whether that was anything."""
        if not cpu.stack:
            return False
        try:
            return next(cpu.stack[-1])
        except StopIteration:
            cpu.stack.pop()
            return True

    # ------------------------------------------------------------------ the CPU and its guest

    def _stays(self, cpu: _Cpu) -> bool:
        """Whether the guest has not left since KVM_INTERRUPT, so that QEMU has no say.

        off: an NMI that QEMU holds waits for that; a window for the next interrupt is an exit.
        split: KVM opens no window at the entry that injects QEMU's interrupt, as one is pending
        there (Linux 6.12 ``x86.c:vcpu_enter_guest``, ``kvm_cpu_accept_dm_intr``), but for its own.
        """
        state = self.machine.vcpus[cpu.number].state
        window = state.irq_window if self.machine.profile.kvm_lapic else state.hard
        if (
            state.requests
            or state.nmi_pending
            or state.smi_pending
            or (window and cpu.interruptible)
            or self.machine.lapics[cpu.number].state.timer.pending
        ):
            cpu.stays = False
        return cpu.stays

    def _enter(self, cpu: _Cpu) -> bool:
        """The CPU enters its guest; whether that brought something."""
        vcpu = self.machine.vcpus[cpu.number]
        if vcpu.is_quiet() and not (cpu.asleep or cpu.awaits_sipi):
            return False
        init = vcpu.state.init_pending
        entry = self.machine.enter(cpu.number, cpu.interruptible, not cpu.nmi_blocked)
        if init and not vcpu.state.init_pending:
            self._initialised(cpu)
        if cpu.awaits_sipi:
            return self._maybe_up(cpu)
        if entry.halted:
            return False
        woke, cpu.asleep = cpu.asleep, False
        if entry.vector is None:
            return (
                woke
                or (entry.nmi_window and not cpu.nmi_blocked)
                or (entry.irq_window and cpu.interruptible)
            )  # what this entry, which went into SMM, could not bring
        kind = 0 if entry.info is None else entry.info & _TYPE_MASK
        if kind == _NMI_TYPE:
            self._nmi(cpu)
        elif kind == _EXCEPTION_TYPE:
            self._fault(cpu, entry.vector, entry.error_code or 0)
        else:
            cpu.interruptible = False
            cpu.stack.append(self._handle(cpu, entry.vector))
            cpu.stays = entry.by_user and not self._looks(cpu, entry.vector)
        return True

    def _looks(self, cpu: _Cpu, vector: int) -> bool:
        """Whether the handler of that interrupt begins with a look at the chips."""
        handler = self._handlers.get(vector, self._default)
        if handler.detail is not Detail.FULL or cpu.entries.get(vector, 0) >= handler.limit:
            return False
        return bool(handler.pins) or self.machine.lapics[cpu.number].hw_enabled

    def _fault(self, cpu: _Cpu, vector: int, error_code: int) -> None:
        """An exception; where it struck is the probe's to know."""
        self._log_words(cpu, "fault", (f"{vector:x}", f"{error_code:x}"))
        cpu.stack.clear()
        cpu.handled.clear()
        cpu.faulted = True

    def _initialised(self, cpu: _Cpu) -> None:
        """INIT: what the guest was doing is gone."""
        if not cpu.offline:
            self.problems.append((self._step, f"CPU {cpu.number} got an INIT: OFFLINE it before"))
        cpu.stack.clear()
        cpu.handled.clear()
        cpu.interruptible = cpu.asleep = cpu.nmi_blocked = False
        if cpu.number == 0:
            cpu.faulted = True
        else:
            cpu.awaits_sipi = True

    def _maybe_up(self, cpu: _Cpu) -> bool:
        """After a SIPI: the probe's start-up code says so, and waits for operations."""
        if self.machine.vcpus[cpu.number].state.mp_state is not MpState.RUNNABLE:
            return False
        cpu.awaits_sipi = cpu.offline = False
        self._log(cpu, "up", self.machine.lapics[cpu.number].state.sipi_vector)
        return True

    def _handle(self, cpu: _Cpu, vector: int) -> Activity:
        """A handler, from its first instruction, before which an NMI may come, to its IRET."""
        handler = self._handlers.get(vector, self._default)
        count = cpu.entries[vector] = cpu.entries.get(vector, 0) + 1
        if self._operation_ns:  # what comes meanwhile is there when the handler looks
            self._take_time()
            yield True
        if count > handler.limit:
            if count == handler.limit + 1:
                self._log(cpu, "cut", vector, count)
            yield True
            return
        if handler.detail is Detail.FULL:
            self._log_entry(cpu, vector, handler.pins)
        elif handler.detail is Detail.SHORT:
            self._log(cpu, "irq", vector)
        cpu.handled.append(vector)
        yield True
        yield from self._operations(cpu, self._block(handler, count))
        cpu.handled.pop()
        self._iret(cpu, interruptible=True)

    def _iret(self, cpu: _Cpu, *, interruptible: bool) -> None:
        cpu.interruptible = interruptible
        if cpu.nmi_blocked:
            cpu.nmi_blocked = False
            self.machine.vcpus[cpu.number].nmi_unblocked()

    def _nmi(self, cpu: _Cpu) -> None:
        """An NMI, with its handler if the program has one."""
        self._log(cpu, "nmi")
        if self._of_nmis is not None:
            cpu.stack.append(self._handle_nmi(cpu, self._of_nmis, cpu.interruptible))
            cpu.interruptible = False
            cpu.nmi_blocked = True

    def _handle_nmi(self, cpu: _Cpu, handler: Handler, interruptible: bool) -> Activity:
        """To its IRET.  An interrupt's IRET in between already lets NMIs in again."""
        count = cpu.entries[NMI_ENTRY] = cpu.entries.get(NMI_ENTRY, 0) + 1
        yield True
        if count <= handler.limit:
            yield from self._operations(cpu, self._block(handler, count))
        self._iret(cpu, interruptible=interruptible)

    def _block(self, handler: Handler, count: int) -> Sequence[Op]:
        if handler is _DEFAULT_HANDLER:
            return _DEFAULT_OPS
        if handler.first_block is not None and count <= handler.first_times:
            return self.program.blocks[handler.first_block]
        return self.program.blocks[handler.block]

    # ------------------------------------------------------------------ operations

    def _operations(self, cpu: _Cpu, ops: Sequence[Op]) -> Activity:
        for op in ops:
            cpu.stays &= op.opcode in _WITHOUT_EXIT
            if op.opcode in _SIMPLE:
                self._simple(cpu, op)
            elif op.opcode in _READS:
                value = _READS[op.opcode](self, cpu, op)
                yield True  # what the access itself brings is taken before its value is logged
                self._log_value(cpu, op, value)
                self._take_time()
            else:
                yield from _WAITING[op.opcode](self, cpu, op)
                self._take_time()
            yield True

    def _mmio_write(self, cpu: _Cpu, op: Op) -> None:
        value = (op.b | op.c << 32) & (1 << 8 * op.size) - 1
        self.machine.mmio_write(cpu.number, op.a, op.size, value)

    def _mmio_read(self, cpu: _Cpu, op: Op) -> int | None:
        return self.machine.mmio_read(cpu.number, op.a, op.size)

    def _pio_write(self, cpu: _Cpu, op: Op) -> None:
        value = op.b & (1 << 8 * op.size) - 1
        self.machine.pio_write(cpu.number, op.a, value, op.size)

    def _pio_read(self, cpu: _Cpu, op: Op) -> int | None:
        index = self.machine.rtc.state.index
        if op.a == RTC_DATA and index > REGISTER_D and index not in TIME:
            raise AccessError(f"CMOS byte {index:#x}", "what is in it is the firmware's")
        return self.machine.pio_read(cpu.number, op.a, op.size)

    def _msr_write(self, cpu: _Cpu, op: Op) -> None:
        self._wrmsr(cpu, op.a, op.b | op.c << 32)

    def _msr_read(self, cpu: _Cpu, op: Op) -> int | None:
        return self.machine.msr_read(cpu.number, op.a)

    def _wrmsr(self, cpu: _Cpu, msr: int, value: int) -> None:
        if not self.machine.msr_write(cpu.number, msr, value):
            self._log(cpu, "gp")

    def _log_value(self, cpu: _Cpu, op: Op, value: int | None) -> None:
        """What was read; None is #GP."""
        if value is None:
            self._log(cpu, "gp")
        elif not op.flags & OpFlag.UNLOGGED:
            self._log(cpu, "read", value)

    def _lapic_write(self, cpu: _Cpu, op: Op) -> None:
        machine, lapic = self.machine, self.machine.lapics[cpu.number]
        if lapic.x2apic_mode:
            high = op.c << 32 if op.a == ICR else 0
            self._wrmsr(cpu, MSR_X2APIC + (op.a >> 4), op.b | high)
            return
        if op.a == ICR:
            machine.mmio_write(cpu.number, lapic.base_address + ICR2, 4, op.c)
        machine.mmio_write(cpu.number, lapic.base_address + op.a, 4, op.b)

    def _cr8_write(self, cpu: _Cpu, op: Op) -> None:
        self.machine.lapics[cpu.number].set_cr8(op.b)

    def _lapic_read(self, cpu: _Cpu, op: Op) -> int | None:
        lapic = self.machine.lapics[cpu.number]
        if lapic.x2apic_mode:
            return self.machine.msr_read(cpu.number, MSR_X2APIC + (op.a >> 4))
        return self.machine.mmio_read(cpu.number, lapic.base_address + op.a, 4)

    def _ioapic_write(self, cpu: _Cpu, op: Op) -> None:
        base = IOAPIC_BASES[op.c]
        self.machine.mmio_write(cpu.number, base + IOREGSEL, 4, op.a)
        self.machine.mmio_write(cpu.number, base + IOWIN, 4, op.b)

    def _ioapic_read(self, cpu: _Cpu, op: Op) -> int | None:
        return self._ioapic_register(cpu, op.a, op.c)

    def _ioapic_register(self, cpu: _Cpu, register: int, ioapic: int = 0) -> int:
        base = IOAPIC_BASES[ioapic]
        self.machine.mmio_write(cpu.number, base + IOREGSEL, 4, register)
        return self.machine.mmio_read(cpu.number, base + IOWIN, 4)

    def _line(self, cpu: _Cpu, op: Op) -> None:
        self.machine.set_gsi(op.a, op.b, cpu=cpu.number)

    def _pv_ipi(self, cpu: _Cpu, op: Op) -> int | None:
        return self.machine.pv_ipi(cpu.number, op.a, op.c, op.b) & 0xFFFFFFFF

    def _msi(self, cpu: _Cpu, op: Op) -> None:
        """A store outside the APICs' window is no interrupt."""
        address = op.a | op.c << 32
        if APIC_WINDOW <= address < APIC_WINDOW + APIC_WINDOW_BYTES:
            self.machine.signal_msi(address, op.b, cpu=cpu.number)

    def _sti(self, cpu: _Cpu, op: Op) -> None:
        cpu.interruptible = True

    def _cli(self, cpu: _Cpu, op: Op) -> None:
        cpu.interruptible = False

    def _eoi(self, cpu: _Cpu, op: Op) -> None:
        if op.flags & OpFlag.IN_SERVICE:
            isr = self.machine.lapics[cpu.number].state.isr
            if not (cpu.handled and isr >> cpu.handled[-1] & 1):
                return
        self.machine.eoi(cpu.number)

    def _offline(self, cpu: _Cpu, op: Op) -> None:
        for other in self._cpus[1:]:
            if op.a >> other.number & 1:
                other.offline = True
                other.pinned = self._step

    # ------------------------------------------------------------------ operations that wait

    def _until(self, done: Callable[[], bool], time_us: int) -> Generator[bool, None, bool]:
        """Wait; False where the time passed first."""
        deadline = self.machine.now_ns + time_us * _NS_PER_US
        self._alarms.append(deadline)
        while not done() and self.machine.now_ns < deadline:
            yield False
        self._alarms.remove(deadline)
        return done()

    def _wait(self, cpu: _Cpu, op: Op) -> Activity:
        entries = self._cpus[op.target].entries

        def count() -> int:
            if op.a != ANY_VECTOR:
                return entries.get(op.a, 0)
            return sum(entries.values()) - entries.get(NMI_ENTRY, 0)

        if not (yield from self._until(lambda: count() >= op.b, op.c)):
            self._log(cpu, "timeout", count())

    def _delay(self, cpu: _Cpu, op: Op) -> Activity:
        yield from self._until(lambda: False, op.a)

    def _await(self, cpu: _Cpu, op: Op) -> Activity:
        target = self._cpus[op.target]
        if (yield from self._until(lambda: not (target.offline or target.stack), op.a)):
            target.pinned = None
        else:
            self._log(cpu, "asleep")

    def _halt(self, cpu: _Cpu, op: Op) -> Activity:
        self.machine.halt(cpu.number)
        cpu.asleep = True
        yield True
        if cpu.pinned is not None:  # CPU 0 goes on meanwhile
            while cpu.asleep:
                yield False
        elif not (yield from self._until(lambda: not cpu.asleep, WATCHDOG_NS // _NS_PER_US)):
            self._wake(cpu)
            return
        self._log(cpu, "woke")

    def _wake(self, cpu: _Cpu) -> None:
        """The watchdog's NMI."""
        self.machine.vcpus[cpu.number].state.mp_state = MpState.RUNNABLE
        cpu.asleep = False
        self._log(cpu, "asleep")

    def _monitor(self, cpu: _Cpu, op: Op) -> Activity:
        """What is asked for happens; a clock that stands still, and a pause, are no event."""
        stopped, copied = False, None
        for act in self.program.requests[op.a]:
            match act.command:
                case Command.STOP | Command.CONT:
                    stopped, copied = act.command is Command.STOP, None
                case Command.INJECT_NMI:
                    if stopped and copied is None:
                        copied = [vcpu.save() for vcpu in self.machine.vcpus]
                    for number in range(len(self._cpus)):
                        self.machine.inject_nmi(number)
                case Command.MOVE:
                    move(self.machine, copied)
                    stopped = False
            if not stopped:
                yield True

    # ------------------------------------------------------------------ the log

    def _log(self, cpu: _Cpu, kind: str, *numbers: int) -> None:
        self._log_words(cpu, kind, tuple([f"{number:x}" for number in numbers]))

    def _log_words(self, cpu: _Cpu, kind: str, words: tuple[str, ...]) -> None:
        step = self._step if cpu.pinned is None else cpu.pinned
        cpu.events.append(LogEvent(step, cpu.number, kind, words))

    def _log_entry(self, cpu: _Cpu, vector: int, pins: int) -> None:
        lapic = self.machine.lapics[cpu.number]
        state = lapic.state
        if lapic.hw_enabled:
            maps = [_vectors(bitmap) for bitmap in (state.irr, state.isr, state.tmr)]
        else:
            maps = ["?"] * 3
        entries = [
            f"{pin:x}={self._redirection(cpu, pin):x}"
            for pin in range(pins.bit_length())
            if pins >> pin & 1
        ]
        self._log_words(cpu, "irq", (f"{vector:x}", *maps, *entries))

    def _redirection(self, cpu: _Cpu, pin: int) -> int:
        low = self._ioapic_register(cpu, IOREDTBL + 2 * pin)
        return low | self._ioapic_register(cpu, IOREDTBL + 2 * pin + 1) << 32

    def _log_counts(self, cpu: _Cpu) -> None:
        for vector, count in sorted(cpu.entries.items()):
            if self._handlers.get(vector, self._default).detail is Detail.COUNT:
                self._log(cpu, "count", vector, count)


def machine_for(profile: Profile, board: Board, cpus: int) -> Machine:
    """A machine as executions use it."""
    return Machine(profile, cpus, board=board, log=False, reset=False, time_of_day_s=_MIDNIGHT_S)


@lru_cache(maxsize=256)
def after_prologue(
    profile: Profile, board: Board, cpus: int, prologue: tuple[Op, ...]
) -> tuple[MachineState, tuple[bool, ...]]:
    """Most programs begin with one of a few prologues.  The state is not to be changed."""
    program = Program("prologue", cpus, (prologue, ()))
    return Execution(program, profile, board=board, cpus=cpus).prepare()


def _vectors(bitmap: int) -> str:
    """The vectors set in IRR, ISR or TMR, the highest first."""
    found = []
    while bitmap:
        vector = bitmap.bit_length() - 1
        found.append(f"{vector:x}")
        bitmap ^= 1 << vector
    return ",".join(found) or "-"


_SIMPLE: Final[dict[Opcode, Callable[[Execution, _Cpu, Op], None]]] = {
    Opcode.MMIO_WRITE: Execution._mmio_write,
    Opcode.PIO_WRITE: Execution._pio_write,
    Opcode.MSR_WRITE: Execution._msr_write,
    Opcode.LAPIC_WRITE: Execution._lapic_write,
    Opcode.IOAPIC_WRITE: Execution._ioapic_write,
    Opcode.LINE: Execution._line,
    Opcode.MSI: Execution._msi,
    Opcode.CR8_WRITE: Execution._cr8_write,
    Opcode.STI: Execution._sti,
    Opcode.CLI: Execution._cli,
    Opcode.EOI: Execution._eoi,
    Opcode.OFFLINE: Execution._offline,
}
_READS: Final[dict[Opcode, Callable[[Execution, _Cpu, Op], int | None]]] = {
    Opcode.MMIO_READ: Execution._mmio_read,
    Opcode.PIO_READ: Execution._pio_read,
    Opcode.MSR_READ: Execution._msr_read,
    Opcode.LAPIC_READ: Execution._lapic_read,
    Opcode.IOAPIC_READ: Execution._ioapic_read,
    Opcode.PV_IPI: Execution._pv_ipi,
}
_WAITING: Final[dict[Opcode, Callable[[Execution, _Cpu, Op], Activity]]] = {
    Opcode.WAIT: Execution._wait,
    Opcode.DELAY: Execution._delay,
    Opcode.AWAIT: Execution._await,
    Opcode.HLT: Execution._halt,
    Opcode.MONITOR: Execution._monitor,
}
