"""A scenario as it was written, made a program; what is impossible is an error with its line.

What only shows when it is executed (a timer left running, a CPU that nothing wakes) is for
``predict``.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, assert_never

from harness.base.yamlfile import Location
from harness.scenario import language
from harness.scenario.access import Accesses
from harness.scenario.baseline import prologue
from harness.scenario.expect import Expectation
from harness.scenario.language import Action, Do, HandlerText, Parallel, Read, ScenarioText, Write
from harness.scenario.program import (
    ANY_VECTOR,
    DEFAULT_LIMIT,
    NMI_ENTRY,
    Detail,
    Feature,
    Handler,
    Op,
    Opcode,
    OpFlag,
    Program,
    Scenario,
)
from harness.scenario.registers import (
    LEVEL,
    LINES,
    LINES2,
    REGISTERS,
    TRIGGER,
    ApicMode,
    Field,
    Target,
)
from harness.scenario.requests import Request
from harness.scenario.vocabulary import (
    ANY,
    Ask,
    Await,
    Delay,
    Eoi,
    ExpectModel,
    Ipi,
    Line,
    Msi,
    Offline,
    PicInit,
    PitChannel,
    PvIpi,
    Wait,
    Word,
)
from userspace_chip import msi
from userspace_chip.architecture import (
    APIC_WINDOW,
    IOAPIC_PINS,
    MASTER_COMMAND,
    PIT_CONTROL,
    PIT_COUNTER_0,
    SLAVE_COMMAND,
)

MAX_OPS: Final = 10_000
"""Operations of a program."""
_WORDS: Final[Mapping[str, Opcode]] = {
    "sti": Opcode.STI,
    "cli": Opcode.CLI,
    "hlt": Opcode.HLT,
    "eoi": Opcode.EOI,
}


def load(path: Path) -> tuple[Scenario, ...]:
    """The scenarios of the file ``path``; :class:`ConfigError` for the first wrong thing."""
    return tuple(compile_text(text) for text in language.load(path))


def compile_text(text: ScenarioText) -> Scenario:
    """One scenario as a program; :class:`ConfigError` where it is impossible."""
    compiler = _Compiler(text, Accesses.of(text))
    program = compiler.program()
    if (size := sum(len(block) for block in program.blocks)) > MAX_OPS:
        raise text.error(("scenarios", text.name), f"{size} operations", f"at most {MAX_OPS}")
    labels = _labels(text)
    return Scenario(
        program,
        text.model.about,
        text.file.path,
        steps=tuple(step.text for step in text.steps),
        lines=tuple(text.file.line(step.action.at) for step in text.steps),
        machines=frozenset(text.model.machines),
        no_model=None if text.model.model is True else text.model.model,
        expect=tuple(
            _expectation(text, labels, number, model)
            for number, model in enumerate(text.model.expect)
        ),
    )


@dataclass(frozen=True, slots=True)
class _Place:
    """Where an action stands: on which CPU, or in a handler (None), or in a parallel block."""

    cpu: int | None
    parallel: bool = False


@dataclass(slots=True)
class _Compiler:
    """The state of compiling one scenario.

    ``blocks``: prologue and main block, which come last, and all others.  ``away``: CPUs that sleep
    or are offline, and where they were sent there.  ``awaited``: those that were awaited, perhaps
    in vain, and may be again.
    """

    text: ScenarioText
    accesses: Accesses
    blocks: list[tuple[Op, ...]] = field(default_factory=lambda: [(), ()])
    away: dict[int, Location] = field(default_factory=dict)
    awaited: set[int] = field(default_factory=set)
    requests: list[Request] = field(default_factory=list)

    def program(self) -> Program:
        """The program."""
        model = self.text.model
        for feature in model.needs:
            self.accesses.needs |= feature
        main = tuple(op for number in range(len(self.text.steps)) for op in self._step(number))
        for at in self.away.values():
            fix = "a later step has to await it"
            raise self.text.error(
                at, "a CPU goes to sleep or offline and is never awaited", None, fix
            )
        handlers = tuple(self._handler(handler) for handler in self.text.handlers)
        if not any(handler.vector == ANY_VECTOR for handler in handlers):
            eoi = Op(Opcode.EOI, flags=OpFlag.IN_SERVICE)
            handlers += (Handler(ANY_VECTOR, self._block((eoi,))),)
        needs, mode = self.accesses.needs, ApicMode(model.mode)
        self.blocks[:2] = [
            prologue(model.cpus, mode, interrupts=model.interrupts == "on", needs=needs),
            main,
        ]
        self._check_machines()
        requests = tuple(self.requests)
        return Program(self.text.name, model.cpus, tuple(self.blocks), handlers, needs, requests)

    def _check_machines(self) -> None:
        machines, at = set(self.text.model.machines), ("scenarios", self.text.name, "machines")
        if not machines:
            return
        if Feature.IOAPIC2 in self.accesses.needs and machines != {"microvm"}:
            raise self.text.error(at, "only microvm has a second IOAPIC", None, "[microvm]")
        if Feature.MSI in self.accesses.needs and "microvm" in machines:
            raise self.text.error(at, "microvm has no PCI device to send an MSI")

    # --- steps

    def _step(self, number: int) -> list[Op]:
        step = self.text.steps[number]
        ops = [
            dataclasses.replace(op, step=number) for op in self._ops(step.action, _Place(0), number)
        ]
        if not ops:
            raise self.text.error(step.action.at, "does nothing")
        ops[-1] = dataclasses.replace(ops[-1], flags=ops[-1].flags | OpFlag.SETTLE)
        return ops

    def _block(self, ops: Iterable[Op]) -> int:
        self.blocks.append(tuple(ops))
        return len(self.blocks) - 1

    def _ops(self, action: Action, place: _Place, step: int) -> list[Op]:
        """The operations of an action."""
        place = self._placed(action, place)
        verb = action.verb
        if isinstance(verb, Do):
            ops: list[Op] = []
            for _ in range(verb.times):
                for part in verb.actions:
                    ops += self._ops(part, place, step)
                if len(ops) > MAX_OPS:
                    raise self.text.error(action.at, "is too long", f"at most {MAX_OPS} operations")
            return ops
        if isinstance(verb, Parallel):
            return [self._parallel(verb, action.at, place, step)]
        cpu = place.cpu
        if cpu is not None and cpu in self.away:
            since = self.text.file.line(self.away[cpu])
            raise self.text.error(
                action.at,
                f"CPU {cpu} is away",
                f"it sleeps or is offline since line {since}",
                f"write await: cpu{cpu} before",
            )
        ops = self._plain(action, place)
        return [dataclasses.replace(op, cpu=cpu or 0) for op in ops]

    def _placed(self, action: Action, place: _Place) -> _Place:
        if action.cpu is None:
            return place
        if place.cpu is None:
            raise self.text.error(action.at, "a handler runs on the CPU that took the interrupt")
        if place.parallel and action.cpu != place.cpu:
            raise self.text.error(action.at, f"this is part of what CPU {place.cpu} does")
        self.text.check_cpu(action.cpu, (*action.at, "cpu"))
        return _Place(action.cpu, place.parallel)

    def _parallel(self, verb: Parallel, at: Location, place: _Place, step: int) -> Op:
        self._conducts(place, at, "parallel")
        bodies: list[list[Op]] = []
        for cpu, actions in verb.blocks:
            self.text.check_cpu(cpu, at)
            if cpu in self.away:
                raise self.text.error(at, f"CPU {cpu} is away", None, f"await: cpu{cpu} before")
            body = [op for part in actions for op in self._ops(part, _Place(cpu, True), step)]
            bodies.append([dataclasses.replace(op, step=step) for op in body])
        first = len(self.blocks)
        self.blocks += [tuple(body) for body in bodies]
        return Op(Opcode.PARALLEL, sum(1 << cpu for cpu, _ in verb.blocks), first)

    def _conducts(self, place: _Place, at: Location, what: str) -> None:
        """Something that only a step itself can do."""
        if place.cpu is None:
            raise self.text.error(at, f"{what} is not possible in a handler")
        if place.parallel:
            raise self.text.error(at, f"{what} is not possible inside parallel")

    def _plain(self, action: Action, place: _Place) -> list[Op]:
        """The operations of an action that is no group; their CPU is filled in by the caller."""
        verb, at = action.verb, action.at
        match verb:
            case Write():
                return self.accesses.write(verb, place.cpu, (*at, verb.name))
            case Read():
                return self._read(verb, place, at)
            case Word():
                return self._word(verb, place, at)
            case Line():
                return self._line(verb, (*at, "line"))
            case Ipi():
                return self._ipi(verb, place, (*at, "ipi"))
            case Msi():
                return self._msi(verb, (*at, "msi"))
            case PvIpi():
                return self._pv_ipi(verb)
            case Wait():
                return self._wait(verb, place, (*at, "wait"))
            case Await():
                return self._await(verb, place, (*at, "await"))
            case Offline():
                return self._offline(verb, place, (*at, "offline"))
            case Delay():
                return [Op(Opcode.DELAY, verb.root)]
            case Ask():
                return self._monitor(verb, place, (*at, "monitor"))
            case PicInit():
                return self._pic_init(verb)
            case PitChannel():
                return self._pit_channel(verb)
            case Do() | Parallel():
                raise AssertionError("a group")
        assert_never(verb)

    def _read(self, verb: Read, place: _Place, at: Location) -> list[Op]:
        at = (*at, "read" if verb.logged else "discard")
        flags = OpFlag.NONE if verb.logged else OpFlag.UNLOGGED
        return [
            dataclasses.replace(op, flags=op.flags | flags)
            for target, size in verb.targets
            for op in self.accesses.read(target, size, place.cpu, at)
        ]

    # --- CPUs

    def _word(self, verb: Word, place: _Place, at: Location) -> list[Op]:
        if verb.word == "hlt":
            self._conducts(place, at, "hlt")
            if place.cpu:
                self.away[place.cpu] = at
        return [Op(_WORDS[verb.word])]

    def _wait(self, verb: Wait, place: _Place, at: Location) -> list[Op]:
        if place.cpu is None:
            raise self.text.error(at, "wait is not possible in a handler")
        cpu = place.cpu if verb.cpu is None else verb.cpu
        self.text.check_cpu(cpu, at)
        vector = ANY_VECTOR if verb.vector == ANY else verb.vector
        assert isinstance(vector, int)
        return [Op(Opcode.WAIT, vector, verb.count, verb.timeout_us, target=cpu)]

    def _await(self, verb: Await, place: _Place, at: Location) -> list[Op]:
        self._conducts(place, at, "await")
        if verb.cpu not in self.away and verb.cpu not in self.awaited:
            why = "it neither sleeps nor is offline"
            raise self.text.error(at, f"nothing to await of CPU {verb.cpu}", why)
        self.away.pop(verb.cpu, None)
        self.awaited.add(verb.cpu)
        return [Op(Opcode.AWAIT, verb.timeout_us, target=verb.cpu)]

    def _offline(self, verb: Offline, place: _Place, at: Location) -> list[Op]:
        self._conducts(place, at, "offline")
        for cpu in verb.root:
            self.text.check_cpu(cpu, at)
            if cpu == place.cpu:
                raise self.text.error(at, f"CPU {cpu} cannot be offline: it executes this")
            self.away[cpu] = at
        return [Op(Opcode.OFFLINE, sum(1 << cpu for cpu in set(verb.root)))]

    def _monitor(self, verb: Ask, place: _Place, at: Location) -> list[Op]:
        self._conducts(place, at, "monitor")
        if place.cpu:
            raise self.text.error(at, f"CPU {place.cpu} cannot ask for it", None, "CPU 0 does")
        self.accesses.needs |= Feature.MONITOR
        self.requests.append(verb.request)
        return [Op(Opcode.MONITOR, len(self.requests) - 1)]

    # --- stimuli

    def _line(self, verb: Line, at: Location) -> list[Op]:
        ops: list[Op] = []
        for gsi, level in verb.root.items():
            if gsi in LINES:
                self.accesses.needs |= Feature.LINES
            elif gsi in LINES2:
                self.accesses.needs |= Feature.LINES2 | Feature.IOAPIC2
            else:
                why = (
                    f"the lines that can be driven are 0 to {LINES[-1]}, "
                    f"and on microvm {LINES2[0]} to {LINES2[-1]}"
                )
                raise self.text.error(at, f"there is no line {gsi}", why)
            levels = {"high": (1,), "low": (0,), "pulse": (1, 0)}[level]
            ops += [Op(Opcode.LINE, gsi, value) for value in levels]
        return ops

    def _ipi(self, verb: Ipi, place: _Place, at: Location) -> list[Op]:
        fields: dict[str, object] = {
            "vector": verb.vector if verb.page is None else verb.page,
            "mode": verb.mode,
            "dest_mode": verb.dest_mode,
            "level": verb.level,
            "trigger": verb.trigger,
            "shorthand": verb.shorthand,
        }
        if verb.dest is not None:
            fields["dest"] = verb.dest
        icr = Target(REGISTERS["lapic.icr"])
        value = self.accesses.pack(icr, fields, place.cpu, at)
        return [Op(Opcode.LAPIC_WRITE, icr.address, value & 0xFFFFFFFF, value >> 32)]

    def _pv_ipi(self, verb: PvIpi) -> list[Op]:
        self.accesses.needs |= Feature.KVM_APIC
        fields = ("vector", "mode", "level", "trigger", "shorthand")
        icr = self.accesses.pack(
            *(Target(REGISTERS["lapic.icr"]), {name: getattr(verb, name) for name in fields}),
            *(None, ()),
        )
        bitmap = sum(1 << cpu for cpu in set(verb.cpus))
        return [Op(Opcode.PV_IPI, bitmap, icr & 0xFFFFFFFF, verb.first)]

    def _msi(self, verb: Msi, at: Location) -> list[Op]:
        self.accesses.needs |= Feature.MSI
        if verb.address is not None and verb.data is not None:
            address, data = verb.address, verb.data
        else:
            field_ = Field("dest", 19, 12, cpus=True)
            dest = self.accesses.dest("msi", field_, verb.dest, bool(verb.dest_mode), at)
            address = msi.ADDRESS.pack(
                dest_mode=verb.dest_mode,
                redirection_hint=verb.redirection_hint,
                dest=dest,
                base=APIC_WINDOW >> 20,
            )
            data = msi.DATA.pack(
                vector=verb.vector,
                delivery_mode=verb.mode,
                level=verb.level if verb.trigger == TRIGGER["level"] else LEVEL["deassert"],
                trigger=verb.trigger,
            )
        return [Op(Opcode.MSI, address & 0xFFFFFFFF, data, address >> 32)]

    def _pic_init(self, verb: PicInit) -> list[Op]:
        self.accesses.needs |= Feature.PIC
        icw1 = 0x10 | verb.level << 3 | verb.single << 1 | int(verb.icw4)
        icw4 = 0x01 | verb.special_fully_nested << 4 | verb.auto_eoi << 1
        ops: list[Op] = []
        for name, port, base, cascade in (
            ("master", MASTER_COMMAND, verb.master_base, 4),
            ("slave", SLAVE_COMMAND, verb.slave_base, 2),
        ):
            if verb.chip not in (name, "both"):
                continue
            words = [base, *([] if verb.single else [cascade]), *([icw4] if verb.icw4 else [])]
            ops.append(Op(Opcode.PIO_WRITE, port, icw1, size=1))
            ops += [Op(Opcode.PIO_WRITE, port + 1, word, size=1) for word in words]
        return ops

    def _pit_channel(self, verb: PitChannel) -> list[Op]:
        self.accesses.needs |= Feature.PIT
        control = verb.channel << 6 | 0x30 | verb.mode << 1
        port = PIT_COUNTER_0 + verb.channel
        writes = ((PIT_CONTROL, control), (port, verb.count & 0xFF), (port, verb.count >> 8))
        return [Op(Opcode.PIO_WRITE, where, value, size=1) for where, value in writes]

    # --- handlers

    def _handler(self, text: HandlerText) -> Handler:
        if text.vector == NMI_ENTRY:
            return self._nmi_handler(text)
        model, place = text.model, _Place(None)
        for pin in model.pins:
            if not 0 <= pin < IOAPIC_PINS:
                raise self.text.error((*text.at, "pins"), f"there is no pin {pin}", "0 to 23")
        body = self._body(text.body, model.eoi, place)
        if model.limit is None and not any(_is_eoi(op) for op in body):
            raise self.text.error(
                text.at,
                "a handler without an EOI",
                "its interrupt stays in service, or is raised again without end",
                "set a limit on the number of its entries",
            )
        first = None
        if model.first is not None:
            first = self._block(self._body(text.first, model.first.eoi or model.eoi, place))
        return Handler(
            text.vector,
            self._block(body),
            Detail[model.log.upper()],
            sum(1 << pin for pin in set(model.pins)),
            DEFAULT_LIMIT if model.limit is None else model.limit,
            0 if model.first is None else model.first.times,
            first,
        )

    def _nmi_handler(self, text: HandlerText) -> Handler:
        """It ends with IRET alone; it may come between two accesses of an IOAPIC's register."""
        model = text.model
        for key in model.model_fields_set - {"do", "first", "limit"}:
            raise self.text.error(
                (*text.at, key), f"{key} is for interrupts only", "this handles NMIs"
            )
        first = None if model.first is None else self._body(text.first, "never", _Place(None))
        body = self._body(text.body, "never", _Place(None))
        if any(op.opcode in _OF_IOAPIC for op in (*body, *(first or ()))):
            why = "an NMI may come between the two accesses of another one"
            raise self.text.error(text.at, "a handler of NMIs cannot access the IOAPIC", why)
        return Handler(
            NMI_ENTRY,
            self._block(body),
            limit=DEFAULT_LIMIT if model.limit is None else model.limit,
            first_times=0 if model.first is None else model.first.times,
            first_block=None if first is None else self._block(first),
        )

    def _body(self, actions: Iterable[Action], eoi: Eoi, place: _Place) -> list[Op]:
        body = [op for action in actions for op in self._ops(action, place, 0)]
        plain = Op(Opcode.EOI)
        match eoi:
            case "never":
                return body
            case "before":
                return [plain, *body]
            case "after":
                return [*body, plain]
            case "twice":
                return [*body, plain, plain]
            case "if_in_service":
                return [*body, Op(Opcode.EOI, flags=OpFlag.IN_SERVICE)]
        assert_never(eoi)


_OF_IOAPIC: Final = frozenset({Opcode.IOAPIC_READ, Opcode.IOAPIC_WRITE})


def _is_eoi(op: Op) -> bool:
    written = op.opcode is Opcode.LAPIC_WRITE and op.a == REGISTERS["lapic.eoi"].address
    return written or op.opcode is Opcode.EOI


def _labels(text: ScenarioText) -> dict[str, int]:
    labels: dict[str, int] = {}
    for number, step in enumerate(text.steps):
        if step.label is None:
            continue
        if step.label in labels:
            raise text.error(step.action.at, f"duplicate label {step.label!r}")
        labels[step.label] = number
    return labels


def _expectation(
    text: ScenarioText, labels: Mapping[str, int], number: int, model: ExpectModel
) -> Expectation:
    at = ("scenarios", text.name, "expect", number)
    step = labels.get(model.step) if isinstance(model.step, str) else model.step
    if model.step is not None and (step is None or not 0 <= step < len(text.steps)):
        fix = f"labels: {', '.join(labels) or 'none'}; steps: 0 to {len(text.steps) - 1}"
        raise text.error(at, f"no step {model.step!r}", None, fix)
    if model.cpu is not None and model.cpu >= text.model.cpus:
        raise text.error(at, f"there is no CPU {model.cpu}", f"the scenario has {text.model.cpus}")
    return Expectation(
        step,
        model.cpu,
        model.event,
        model.vector,
        None if model.read is None else tuple(model.read),
        None if model.vectors is None else tuple(model.vectors),
        model.count,
        frozenset(model.irqchip),
    )
