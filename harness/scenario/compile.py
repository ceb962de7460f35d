"""A scenario as it was written, made a program; what is impossible is said with its place.

What only shows when it is executed (a timer left running, a CPU that nothing wakes) is for
``predict``.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, assert_never

from harness.errors import ConfigError
from harness.scenario import language
from harness.scenario.baseline import APIC_BASE, X2APIC, prologue
from harness.scenario.expect import Expectation
from harness.scenario.language import (
    Action,
    Await,
    Delay,
    Do,
    ExpectModel,
    HandlerText,
    Ipi,
    Line,
    Msi,
    Offline,
    Parallel,
    PicInit,
    PitChannel,
    Read,
    ScenarioText,
    Wait,
    Word,
    Write,
)
from harness.scenario.program import (
    ANY_VECTOR,
    DEFAULT_LIMIT,
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
    IOAPIC_PINS,
    LEVEL,
    LINES,
    REGISTERS,
    TRIGGER,
    X2APIC_DEST,
    Access,
    ApicMode,
    Field,
    Register,
    Space,
    Target,
    field_value,
)
from harness.yamlfile import Location
from userspace_chip import msi

MAX_OPS: Final = 10_000
"""Operations of a program."""
_MAIN: Final = 1
_APIC_BASE_MSR: Final = 0x1B
_APIC_ENABLED: Final = 1 << 11
_LIMITS: Final[Mapping[str, int]] = {"lapic": 0x1000, "io": 0x10000}
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
    compiler = _Compiler(text)
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

    ``modes``: what each CPU's local APIC is, None where that cannot be said.  ``away``: CPUs that
    sleep or are offline, and where they were sent there.
    """

    text: ScenarioText
    blocks: list[tuple[Op, ...]] = field(default_factory=list)
    needs: Feature = Feature.NONE
    modes: list[ApicMode | None] = field(default_factory=list)
    away: dict[int, Location] = field(default_factory=dict)

    @property
    def cpus(self) -> int:
        return self.text.model.cpus

    def program(self) -> Program:
        model = self.text.model
        mode = ApicMode(model.mode)
        self.modes = [None if self._handler_moves_base() else mode] * self.cpus
        self.needs = Feature.X2APIC if mode is ApicMode.X2APIC else Feature.NONE
        for feature in model.needs:
            self.needs |= feature
        self.blocks = [(), ()]
        main = tuple(op for number in range(len(self.text.steps)) for op in self._step(number))
        for at in self.away.values():
            fix = "a later step has to say await"
            raise self.text.error(at, "a CPU goes away and is never awaited", None, fix)
        # A handler runs in any mode that its CPU may have been in.
        changed = any(now is not mode for now in self.modes)
        self.modes = [None if changed else mode] * self.cpus
        handlers = tuple(self._handler(handler) for handler in self.text.handlers)
        if not any(handler.vector == ANY_VECTOR for handler in handlers):
            eoi = Op(Opcode.EOI, flags=OpFlag.IN_SERVICE)
            handlers += (Handler(ANY_VECTOR, self._block((eoi,))),)
        interrupts = model.interrupts == "on"
        self.blocks[0] = prologue(self.cpus, mode, interrupts=interrupts, needs=self.needs)
        self.blocks[_MAIN] = main
        self._check_machines()
        return Program(self.text.name, self.cpus, tuple(self.blocks), handlers, self.needs)

    def _handler_moves_base(self) -> bool:
        bodies = (handler.body + handler.first for handler in self.text.handlers)
        return any(_moves_base(action) for body in bodies for action in body)

    def _check_machines(self) -> None:
        machines, at = set(self.text.model.machines), ("scenarios", self.text.name, "machines")
        if not machines:
            return
        if Feature.IOAPIC2 in self.needs and machines != {"microvm"}:
            raise self.text.error(at, "only microvm has a second IOAPIC", None, "[microvm]")
        if Feature.MSI in self.needs and "microvm" in machines:
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
        self._check_cpu(action.cpu, (*action.at, "cpu"))
        return _Place(action.cpu, place.parallel)

    def _check_cpu(self, cpu: int, at: Location) -> None:
        if cpu >= self.cpus:
            why = f"the scenario has {self.cpus}, from cpu0"
            raise self.text.error(at, f"there is no CPU {cpu}", why, "see cpus")

    def _parallel(self, verb: Parallel, at: Location, place: _Place, step: int) -> Op:
        self._conducts(place, at, "parallel")
        bodies: list[list[Op]] = []
        for cpu, actions in verb.blocks:
            self._check_cpu(cpu, at)
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
                return self._write(verb, place, (*at, verb.name))
            case Read():
                return [
                    op
                    for target, size in verb.targets
                    for op in self._read(target, size, place, (*at, "read"))
                ]
            case Word():
                return self._word(verb, place, at)
            case Line():
                return self._line(verb, (*at, "line"))
            case Ipi():
                return self._ipi(verb, place, (*at, "ipi"))
            case Msi():
                return self._msi(verb, (*at, "msi"))
            case Wait():
                return self._wait(verb, place, (*at, "wait"))
            case Await():
                return self._await(verb, place, (*at, "await"))
            case Offline():
                return self._offline(verb, place, (*at, "offline"))
            case Delay():
                return [Op(Opcode.DELAY, verb.root)]
            case PicInit():
                return self._pic_init(verb)
            case PitChannel():
                return self._pit_channel(verb)
            case Do() | Parallel():
                raise AssertionError("a group")
        assert_never(verb)

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
        self._check_cpu(cpu, at)
        vector = ANY_VECTOR if verb.vector == language.ANY else verb.vector
        assert isinstance(vector, int)
        return [Op(Opcode.WAIT, vector, verb.count, verb.timeout_us, target=cpu)]

    def _await(self, verb: Await, place: _Place, at: Location) -> list[Op]:
        self._conducts(place, at, "await")
        if verb.cpu not in self.away:
            why = "it neither sleeps nor is offline"
            raise self.text.error(at, f"nothing to await of CPU {verb.cpu}", why)
        del self.away[verb.cpu]
        return [Op(Opcode.AWAIT, verb.timeout_us, target=verb.cpu)]

    def _offline(self, verb: Offline, place: _Place, at: Location) -> list[Op]:
        self._conducts(place, at, "offline")
        for cpu in verb.root:
            self._check_cpu(cpu, at)
            if cpu == place.cpu:
                raise self.text.error(at, f"CPU {cpu} cannot be offline: it executes this")
            self.away[cpu] = at
        return [Op(Opcode.OFFLINE, sum(1 << cpu for cpu in set(verb.root)))]

    # --- stimuli

    def _line(self, verb: Line, at: Location) -> list[Op]:
        self.needs |= Feature.LINES
        ops: list[Op] = []
        for pin, level in verb.root.items():
            if not 0 <= pin < LINES:
                why = f"the lines that can be driven are 0 to {LINES - 1}"
                raise self.text.error(at, f"there is no pin {pin}", why)
            levels = {"high": (1,), "low": (0,), "pulse": (1, 0)}[level]
            ops += [Op(Opcode.LINE, pin, value) for value in levels]
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
        value = self._pack(icr, fields, place, at)
        return [Op(Opcode.LAPIC_WRITE, icr.address, value & 0xFFFFFFFF, value >> 32)]

    def _msi(self, verb: Msi, at: Location) -> list[Op]:
        self.needs |= Feature.MSI
        if verb.address is not None and verb.data is not None:
            address, data = verb.address, verb.data
        else:
            field_ = Field("dest", 19, 12, cpus=True)
            dest = self._dest("msi", field_, verb.dest, bool(verb.dest_mode), at)
            address = msi.ADDRESS.pack(
                dest_mode=verb.dest_mode,
                redirection_hint=verb.redirection_hint,
                dest=dest,
                base=msi.BASE >> 20,
            )
            data = msi.DATA.pack(
                vector=verb.vector,
                delivery_mode=verb.mode,
                level=verb.level if verb.trigger == TRIGGER["level"] else LEVEL["deassert"],
                trigger=verb.trigger,
            )
        return [Op(Opcode.MSI, address & 0xFFFFFFFF, data, address >> 32)]

    def _pic_init(self, verb: PicInit) -> list[Op]:
        self.needs |= Feature.PIC
        icw1 = 0x10 | verb.level << 3 | verb.single << 1 | int(verb.icw4)
        icw4 = 0x01 | verb.special_fully_nested << 4 | verb.auto_eoi << 1
        ops: list[Op] = []
        for name, port, base, cascade in (
            ("master", 0x20, verb.master_base, 4),
            ("slave", 0xA0, verb.slave_base, 2),
        ):
            if verb.chip not in (name, "both"):
                continue
            words = [base, *([] if verb.single else [cascade]), *([icw4] if verb.icw4 else [])]
            ops.append(Op(Opcode.PIO_WRITE, port, icw1, size=1))
            ops += [Op(Opcode.PIO_WRITE, port + 1, word, size=1) for word in words]
        return ops

    def _pit_channel(self, verb: PitChannel) -> list[Op]:
        self.needs |= Feature.PIT
        control = verb.channel << 6 | 0x30 | verb.mode << 1
        port = 0x40 + verb.channel
        writes = ((0x43, control), (port, verb.count & 0xFF), (port, verb.count >> 8))
        return [Op(Opcode.PIO_WRITE, where, value, size=1) for where, value in writes]

    # --- registers

    def _mode(self, place: _Place) -> ApicMode | None:
        return self.modes[0 if place.cpu is None else place.cpu]

    def _check_access(self, target: Target, writes: bool, place: _Place, at: Location) -> None:
        register = target.register
        self.needs |= register.needs
        if register.access is (Access.RO if writes else Access.WO):
            done = "read" if writes else "written"
            raise self.text.error(at, f"{register.name} can only be {done}")
        limit = _LIMITS.get(register.name, 1 << 32)
        if register.raw and target.index >= limit:
            raise self.text.error(at, f"{target.index:#x} is out of range", f"below {limit:#x}")
        if register.raw and register.space is Space.LAPIC and target.index % 16:
            raise self.text.error(at, "registers stand 0x10 apart", None, "mem reaches any byte")
        mode = self._mode(place)
        allowed = register.modes & register.write_modes if writes else register.modes
        if register.space is Space.LAPIC and mode is not None and mode not in allowed:
            does = "be written" if writes else "be read"
            number = 0x800 + target.address // 16
            raise self.text.error(
                at,
                f"{register.name} cannot {does} in {mode.value} mode",
                None,
                f"msr.{number:#x} shows the #GP" if mode is ApicMode.X2APIC else "see lapic.base",
            )
        if register.name == "lapic.self_ipi":
            self.needs |= Feature.X2APIC
        if register.name == "lapic.tsc_deadline":
            self.needs |= Feature.TSC_DEADLINE

    def _write(self, verb: Write, place: _Place, at: Location) -> list[Op]:
        target = verb.target
        self._check_access(target, True, place, at)
        bits = target.bits if verb.size is None else 8 * verb.size
        if isinstance(verb.value, int):
            value = verb.value
            if not 0 <= value < 1 << bits:
                raise self.text.error(at, f"{value:#x} does not fit", f"{bits} bits")
        else:
            value = self._pack(target, verb.value, place, at)
        if target.register.space is Space.MSR and target.address == _APIC_BASE_MSR:
            self._base_written(value, place)
            # A local APIC of QEMU 7.2 that was switched off stays off (cpu_set_apic_base).
            named = target.register.name == "lapic.base"
            if (named and value & X2APIC) or not value & _APIC_ENABLED:
                self.needs |= Feature.X2APIC
        return _write_ops(target, value, bits // 8)

    def _base_written(self, value: int, place: _Place) -> None:
        """Follows IA32_APIC_BASE as far as the SDM's state transitions go (and no further)."""
        if place.cpu is None:
            return
        old = self.modes[place.cpu]
        enable, x2apic = value & _APIC_ENABLED, value & X2APIC
        new = ApicMode.X2APIC if x2apic else ApicMode.XAPIC
        if not enable:
            new = ApicMode.DISABLED
        allowed = {
            ApicMode.XAPIC: {ApicMode.XAPIC, ApicMode.X2APIC, ApicMode.DISABLED},
            ApicMode.X2APIC: {ApicMode.X2APIC, ApicMode.DISABLED},
            ApicMode.DISABLED: {ApicMode.DISABLED, ApicMode.XAPIC},
        }
        faults = x2apic and not enable
        known = old is not None and new in allowed[old] and not faults
        self.modes[place.cpu] = new if known else None

    def _pack(
        self, target: Target, fields: Mapping[str, object], place: _Place, at: Location
    ) -> int:
        """A register's value of its fields; those that are not named are 0."""
        register, value = target.register, target.register.fixed
        if register.name == "lapic.base":
            fields = {"page": APIC_BASE >> 12, "bsp": place.cpu == 0, **fields}
        for entry in register.fields:
            if entry.name not in fields:
                continue
            given = fields[entry.name]
            here = (*at, entry.name)
            if entry.cpus:
                entry = self._dest_field(register, entry, place, here)
                logical = fields.get("dest_mode") in (1, "logical")
                number = self._dest(register.name, entry, given, logical, here)
            else:
                number = self._field(register, entry, given, here)
            value |= number << entry.low
        if register.name == "lapic.lvt_timer" and fields.get("mode") == "tsc_deadline":
            self.needs |= Feature.TSC_DEADLINE
        if target.half is not None:
            keep, drop = (32, 0) if target.half == "high" else (0, 32)
            if value & 0xFFFFFFFF << drop:
                raise self.text.error(at, f"a field is not in the {target.half} half")
            value = value >> keep & 0xFFFFFFFF
        return value

    def _field(self, register: Register, entry: Field, given: object, at: Location) -> int:
        try:
            return field_value(register, entry, given)
        except ConfigError as error:
            raise self.text.error(at, error.what, error.why, error.fix) from None

    def _dest_field(self, register: Register, entry: Field, place: _Place, at: Location) -> Field:
        if register.name != "lapic.icr":
            return entry
        mode = self._mode(place)
        if mode is None:
            raise self.text.error(
                at,
                "whether the local APIC is in x2APIC mode here cannot be said",
                "the destination's place in the ICR hangs on it",
                "write lapic.icr as a number",
            )
        return X2APIC_DEST if mode is ApicMode.X2APIC else entry

    def _dest(self, name: str, entry: Field, given: object, logical: bool, at: Location) -> int:
        """A destination: a number, ``all``, or CPUs by their APIC IDs or flat logical IDs."""
        if isinstance(given, int) and not isinstance(given, bool):
            if not 0 <= given <= entry.max:
                why = f"0 to {entry.max:#x}"
                raise self.text.error(at, f"{name}: dest {given:#x} does not fit", why)
            return given
        if given == "all":
            return entry.max
        names = given if isinstance(given, list) else [given]
        if not names or (len(names) > 1 and not logical):
            raise self.text.error(at, "one CPU; several need dest_mode: logical", f"found {given}")
        value = 0
        for cpu in names:
            number = self._cpu_named(cpu, at)
            self._check_cpu(number, at)
            value |= 1 << number if logical else number
        return value

    def _cpu_named(self, given: object, at: Location) -> int:
        if isinstance(given, str) and given[:3] == "cpu" and given[3:].isdecimal():
            return int(given[3:])
        raise self.text.error(at, f"{given!r} is no destination", None, "cpu1, all, or a number")

    def _read(self, target: Target, size: int | None, place: _Place, at: Location) -> list[Op]:
        self._check_access(target, False, place, at)
        register, address = target.register, target.address
        bytes_ = target.bits // 8 if size is None else size
        match register.space:
            case Space.LAPIC:
                return [Op(Opcode.LAPIC_READ, address)]
            case Space.IOAPIC:
                parts = {"low": (0,), "high": (1,), None: range(target.bits // 32)}[target.half]
                return [Op(Opcode.IOAPIC_READ, address + part, 0, register.chip) for part in parts]
            case Space.MSR:
                return [Op(Opcode.MSR_READ, address)]
            case Space.MEMORY:
                return [Op(Opcode.MMIO_READ, address, size=bytes_)]
            case Space.PORT:
                select = [Op(Opcode.PIO_WRITE, a, b, size=1) for a, b in register.select]
                if size is not None:
                    return [Op(Opcode.PIO_READ, address, size=size)]
                return select + [
                    Op(Opcode.PIO_READ, address + part, size=1) for part in range(bytes_)
                ]
        assert_never(register.space)

    # --- handlers

    def _handler(self, text: HandlerText) -> Handler:
        model, place = text.model, _Place(None)
        for pin in model.pins:
            if not 0 <= pin < IOAPIC_PINS:
                raise self.text.error((*text.at, "pins"), f"there is no pin {pin}", "0 to 23")
        body = self._body(text.body, model.eoi, place)
        if model.limit is None and not any(op.opcode is Opcode.EOI for op in body):
            raise self.text.error(
                text.at,
                "a handler that never says EOI",
                "its interrupt stays in service, or comes again without end",
                "say with limit how often it may be entered",
            )
        first = None
        if model.first is not None:
            first = self._block(self._body(text.first, model.first.eoi or model.eoi, place))
        return Handler(
            ANY_VECTOR if text.vector is None else text.vector,
            self._block(body),
            Detail[model.log.upper()],
            sum(1 << pin for pin in set(model.pins)),
            DEFAULT_LIMIT if model.limit is None else model.limit,
            0 if model.first is None else model.first.times,
            first,
        )

    def _body(self, actions: Iterable[Action], eoi: language.Eoi, place: _Place) -> list[Op]:
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


def _write_ops(target: Target, value: int, size: int) -> list[Op]:
    register, address = target.register, target.address
    low, high = value & 0xFFFFFFFF, value >> 32
    match register.space:
        case Space.LAPIC:
            if address == REGISTERS["lapic.eoi"].address and not value:
                return [Op(Opcode.EOI)]
            return [Op(Opcode.LAPIC_WRITE, address, low, high)]
        case Space.IOAPIC:
            if target.half is not None or register.bits == 32:
                half = int(target.half == "high")
                return [Op(Opcode.IOAPIC_WRITE, address + half, low, register.chip)]
            # The destination first: the low half may unmask the pin.
            return [
                Op(Opcode.IOAPIC_WRITE, address + 1, high, register.chip),
                Op(Opcode.IOAPIC_WRITE, address, low, register.chip),
            ]
        case Space.MSR:
            return [Op(Opcode.MSR_WRITE, address, low, high)]
        case Space.MEMORY:
            return [Op(Opcode.MMIO_WRITE, address, low, high, size=size)]
        case Space.PORT if register.raw:
            return [Op(Opcode.PIO_WRITE, address, low, size=size)]
        case Space.PORT:
            return [
                Op(Opcode.PIO_WRITE, address + part, value >> 8 * part & 0xFF, size=1)
                for part in range(size)
            ]
    assert_never(register.space)


def _moves_base(action: Action) -> bool:
    verb = action.verb
    if isinstance(verb, Do):
        return any(_moves_base(part) for part in verb.actions)
    if not isinstance(verb, Write):
        return False
    register = verb.target.register
    return register.space is Space.MSR and verb.target.address == _APIC_BASE_MSR


def _labels(text: ScenarioText) -> dict[str, int]:
    labels: dict[str, int] = {}
    for number, step in enumerate(text.steps):
        if step.label is None:
            continue
        if step.label in labels:
            raise text.error(step.action.at, f"label {step.label!r} is there twice")
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
