"""Register accesses of a scenario as operations: values of fields, destinations, what is possible.

What a local APIC's registers are depends on its mode, so this follows each CPU's IA32_APIC_BASE.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, assert_never

from harness.base.errors import ConfigError
from harness.base.yamlfile import Location
from harness.scenario.language import Action, Do, Parallel, ScenarioText, Write
from harness.scenario.program import Feature, Op, Opcode
from harness.scenario.registers import (
    REGISTERS,
    X2APIC_DEST,
    Access,
    ApicMode,
    Field,
    Register,
    Space,
    Target,
    field_value,
)
from userspace_chip.architecture import (
    HPET_BASE,
    HPET_BYTES,
    HYPERV_APIC_MSRS,
    MSR_APIC_BASE,
    MSR_KVM_PV_EOI,
    MSR_X2APIC,
    RTC_PORTS,
)
from userspace_chip.lapic_registers import DEFAULT_BASE, ENABLE, EXTD

_LIMITS: Final[Mapping[str, int]] = {"lapic": 0x1000, "io": 0x10000}
_TRANSITIONS: Final[Mapping[ApicMode, frozenset[ApicMode]]] = {
    ApicMode.XAPIC: frozenset(ApicMode),
    ApicMode.X2APIC: frozenset({ApicMode.X2APIC, ApicMode.DISABLED}),
    ApicMode.DISABLED: frozenset({ApicMode.DISABLED, ApicMode.XAPIC}),
}
"""SDM 3A, "x2APIC State Transitions"."""


@dataclass(slots=True)
class Accesses:
    """Makes operations; ``cpu`` is None in a handler everywhere.

    ``modes``: each CPU's local APIC's now, None where that cannot be said; ``handler_mode`` that
    of whichever takes an interrupt.  ``needs``: what the registers were of.
    """

    text: ScenarioText
    modes: list[ApicMode | None]
    handler_mode: ApicMode | None
    needs: Feature = Feature.NONE

    @classmethod
    def of(cls, text: ScenarioText) -> Accesses:
        """At the scenario's begin."""
        mode: ApicMode | None = ApicMode(text.model.mode)
        needs = Feature.X2APIC if mode is ApicMode.X2APIC else Feature.NONE
        bodies = (handler.body + handler.first for handler in text.handlers)
        by_handler = any(_moves_base(action) for body in bodies for action in body)
        by_step = any(_moves_base(step.action) for step in text.steps)
        modes = [None if by_handler else mode] * text.model.cpus
        return cls(text, modes, None if by_handler or by_step else mode, needs)

    def write(self, verb: Write, cpu: int | None, at: Location) -> list[Op]:
        """The operations of a write."""
        target = verb.target
        self._check(target, True, cpu, at)
        bits = target.bits if verb.size is None else 8 * verb.size
        if isinstance(verb.value, int):
            value = verb.value
            if not 0 <= value < 1 << bits:
                raise self.text.error(at, f"{value:#x} does not fit", f"{bits} bits")
        else:
            value = self.pack(target, verb.value, cpu, at)
        if _is_base(target):
            self._base_written(target, value, cpu)
        return _write_ops(target, value, bits // 8)

    def read(self, target: Target, size: int | None, cpu: int | None, at: Location) -> list[Op]:
        """The operations of a read, in pieces of ``size`` bytes where that was chosen."""
        self._check(target, False, cpu, at)
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
            case Space.PORT if register.raw:
                return [Op(Opcode.PIO_READ, address, size=bytes_)]
            case Space.PORT:
                ops = [Op(Opcode.PIO_WRITE, a, b, size=1) for a, b in register.select]
                ports = range(address, address + bytes_)
                return ops + [Op(Opcode.PIO_READ, port, size=1) for port in ports]
            case Space.CR8:
                raise self.text.error(at, "CR8 is write-only")
        assert_never(register.space)

    def pack(
        self, target: Target, fields: Mapping[str, object], cpu: int | None, at: Location
    ) -> int:
        """A register's value of its fields; those that are not named are 0."""
        register, value = target.register, target.register.fixed
        if register.name == "lapic.base":
            fields = {"page": DEFAULT_BASE >> 12, "bsp": cpu == 0, **fields}
        for entry in register.fields:
            if entry.name not in fields:
                continue
            given, here = fields[entry.name], (*at, entry.name)
            if entry.cpus:
                entry = self._dest_field(register, entry, cpu, here)
                logical = fields.get("dest_mode") in (1, "logical")
                number = self.dest(register.name, entry, given, logical, here)
            else:
                number = self._field(register, entry, given, here)
            value |= number << entry.low
        if register.name == "lapic.lvt_timer" and fields.get("mode") == "tsc_deadline":
            self.needs |= Feature.TSC_DEADLINE
        if target.half is None:
            return value
        low, high = value & 0xFFFFFFFF, value >> 32
        wanted, other = (high, low) if target.half == "high" else (low, high)
        if other:
            raise self.text.error(at, f"a field is not in the {target.half} half")
        return wanted

    def dest(self, name: str, entry: Field, given: object, logical: bool, at: Location) -> int:
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
            if not (isinstance(cpu, str) and cpu[:3] == "cpu" and cpu[3:].isdecimal()):
                fix = "cpu1, all, or a number"
                raise self.text.error(at, f"{cpu!r} is not a destination", None, fix)
            number = int(cpu[3:])
            self.text.check_cpu(number, at)
            value |= 1 << number if logical else number
        return value

    def _mode(self, cpu: int | None) -> ApicMode | None:
        return self.handler_mode if cpu is None else self.modes[cpu]

    def _check(self, target: Target, writes: bool, cpu: int | None, at: Location) -> None:
        """Whether the access means something where it stands."""
        register = target.register
        self.needs |= register.needs | _needs_of(register.space, target.address)
        if register.access is (Access.RO if writes else Access.WO):
            done = "read" if writes else "written"
            raise self.text.error(at, f"{register.name} can only be {done}")
        limit = _LIMITS.get(register.name, 1 << 32)
        if register.raw and target.index >= limit:
            raise self.text.error(at, f"{target.index:#x} is out of range", f"below {limit:#x}")
        if register.raw and register.space is Space.LAPIC and target.index % 16:
            raise self.text.error(at, "registers stand 0x10 apart", None, "mem can access any byte")
        mode = self._mode(cpu)
        allowed = register.modes & register.write_modes if writes else register.modes
        if register.space is Space.LAPIC and mode is not None and mode not in allowed:
            does = "be written" if writes else "be read"
            number = MSR_X2APIC + target.address // 16
            raise self.text.error(
                at,
                f"{register.name} cannot {does} in {mode.value} mode",
                None,
                f"msr.{number:#x} shows the #GP" if mode is ApicMode.X2APIC else "see lapic.base",
            )

    def _base_written(self, target: Target, value: int, cpu: int | None) -> None:
        """Follows IA32_APIC_BASE as far as the architecture's state transitions go."""
        # A local APIC of QEMU 7.2 that was switched off stays off (cpu_set_apic_base).
        named = target.register.name == "lapic.base"
        if (named and value & EXTD) or not value & ENABLE:
            self.needs |= Feature.X2APIC
        if cpu is None:
            return
        old = self.modes[cpu]
        new: ApicMode | None = ApicMode.X2APIC if value & EXTD else ApicMode.XAPIC
        if not value & ENABLE:
            new = None if value & EXTD else ApicMode.DISABLED  # #GP, where that is checked
        self.modes[cpu] = new if old is not None and new in _TRANSITIONS[old] else None

    def _field(self, register: Register, entry: Field, given: object, at: Location) -> int:
        try:
            return field_value(register, entry, given)
        except ConfigError as error:
            raise self.text.error(at, error.what, error.why, error.fix) from None

    def _dest_field(self, register: Register, entry: Field, cpu: int | None, at: Location) -> Field:
        """Where the destination is: in the ICR that depends on the mode."""
        if register.name != "lapic.icr":
            return entry
        mode = self._mode(cpu)
        if mode is None:
            raise self.text.error(
                at,
                "it is not certain whether the local APIC is in x2APIC mode here",
                "the position of the destination in the ICR depends on it",
                "write lapic.icr as a number",
            )
        return X2APIC_DEST if mode is ApicMode.X2APIC else entry


def _needs_of(space: Space, address: int) -> Feature:
    """What has to be there for an address that means something."""
    if space is Space.MEMORY and HPET_BASE <= address < HPET_BASE + HPET_BYTES:
        return Feature.HPET
    if space is Space.MSR and address in HYPERV_APIC_MSRS:
        return Feature.HYPERV
    if space is Space.MSR and address == MSR_KVM_PV_EOI:
        return Feature.KVM_APIC
    return Feature.RTC if space is Space.PORT and address in RTC_PORTS else Feature.NONE


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
        case Space.CR8:
            return [Op(Opcode.CR8_WRITE, 0, low)]
        case Space.MEMORY:
            return [Op(Opcode.MMIO_WRITE, address, low, high, size=size)]
        case Space.PORT if register.raw:
            return [Op(Opcode.PIO_WRITE, address, low, size=size)]
        case Space.PORT:
            return [Op(Opcode.PIO_WRITE, a, b, size=1) for a, b in register.select] + [
                Op(Opcode.PIO_WRITE, address + part, value >> 8 * part & 0xFF, size=1)
                for part in range(size)
            ]
    assert_never(register.space)


def _is_base(target: Target) -> bool:
    return target.register.space is Space.MSR and target.address == MSR_APIC_BASE


def _moves_base(action: Action) -> bool:
    """Whether the action writes IA32_APIC_BASE, whatever it makes of it."""
    verb = action.verb
    if isinstance(verb, Do):
        return any(_moves_base(part) for part in verb.actions)
    if isinstance(verb, Parallel):
        return any(_moves_base(part) for _, actions in verb.blocks for part in actions)
    return isinstance(verb, Write) and _is_base(verb.target)
