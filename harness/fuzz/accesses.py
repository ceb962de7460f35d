"""A program as a list of register accesses, for people who do not know the scenario language."""

from __future__ import annotations

from collections.abc import Iterator

from harness.scenario.program import NMI_ENTRY, Handler, Op, Opcode, OpFlag, Program
from harness.scenario.registers import REGISTERS, Register, Space
from userspace_chip.architecture import IOAPIC_BASES


def of_steps(program: Program) -> list[str]:
    """What the steps do, an access a line."""
    main = program.blocks[1]
    return [f"step {op.step}, CPU {op.cpu}: {text}" for op in main for text in of(op, program)]


def of_handlers(program: Program) -> list[str]:
    """What the handlers do."""
    return [line for handler in program.handlers for line in _of_handler(handler, program)]


def _of_handler(handler: Handler, program: Program) -> Iterator[str]:
    names = {NMI_ENTRY: "an NMI", NMI_ENTRY - 1: "any other vector"}
    name = names.get(handler.vector, f"vector {handler.vector:#x}")
    if handler.first_block is not None:
        done = "; ".join(_block(handler.first_block, program)) or "nothing"
        yield f"on {name}, the first {handler.first_times} times: {done}"
    done = "; ".join(_block(handler.block, program)) or "nothing"
    yield f"on {name}: {done} (at most {handler.limit} times)"


def _block(number: int, program: Program) -> Iterator[str]:
    for op in program.blocks[number]:
        yield from of(op, program)


def of(op: Op, program: Program) -> Iterator[str]:
    """One operation; a parallel one is several."""
    match op.opcode:
        case Opcode.LAPIC_WRITE:
            high = f", high half {op.c:#x}" if op.c else ""
            yield f"local APIC +{op.a:#x}{_name(Space.LAPIC, op.a)} := {op.b:#x}{high}"
        case Opcode.LAPIC_READ:
            yield f"read local APIC +{op.a:#x}{_name(Space.LAPIC, op.a)}"
        case Opcode.IOAPIC_WRITE:
            yield f"{_ioapic(op.c)} index {op.a:#x}{_name(Space.IOAPIC, op.a)} := {op.b:#x}"
        case Opcode.IOAPIC_READ:
            yield f"read {_ioapic(op.c)} index {op.a:#x}{_name(Space.IOAPIC, op.a)}"
        case Opcode.PIO_WRITE:
            yield f"out {op.a:#x}, {op.b:#x} ({op.size} bytes)"
        case Opcode.PIO_READ:
            yield f"in {op.a:#x} ({op.size} bytes)"
        case Opcode.MMIO_WRITE:
            yield f"[{op.a:#x}] := {op.b | op.c << 32:#x} ({op.size} bytes)"
        case Opcode.MMIO_READ:
            yield f"read [{op.a:#x}] ({op.size} bytes)"
        case Opcode.MSR_WRITE:
            yield f"wrmsr {op.a:#x}, {op.b | op.c << 32:#x}"
        case Opcode.MSR_READ:
            yield f"rdmsr {op.a:#x}"
        case Opcode.LINE:
            yield f"a device drives GSI {op.a} {'high' if op.b else 'low'}"
        case Opcode.MSI:
            yield f"a device writes {op.b:#x} to {op.a | op.c << 32:#x}"
        case Opcode.EOI:
            held = " if the vector is in service" if op.flags & OpFlag.IN_SERVICE else ""
            yield f"local APIC +0xb0 (lapic.eoi) := 0x0{held}"
        case Opcode.PARALLEL:
            members = [cpu for cpu in range(program.cpus) if op.a >> cpu & 1]
            for index, cpu in enumerate(members):
                done = "; ".join(_block(op.b + index, program)) or "nothing"
                yield f"at the same time, CPU {cpu}: {done}"
        case Opcode.WAIT:
            yield f"wait for vector {op.a:#x}, {op.b} times, at most {op.c} us"
        case Opcode.DELAY:
            yield f"wait {op.a} us"
        case Opcode.AWAIT:
            yield f"wait for CPU {op.target}"
        case Opcode.OFFLINE:
            yield f"CPUs {op.a:#x} (a mask) wait for an INIT"
        case Opcode.CR8_WRITE:
            yield f"mov cr8, {op.b:#x}"
        case Opcode.STI | Opcode.CLI | Opcode.HLT:
            yield op.opcode.name.lower()


def _ioapic(number: int) -> str:
    return f"IOAPIC at {IOAPIC_BASES[number]:#x},"


def _name(space: Space, address: int) -> str:
    """The register's name in parentheses, where it has one."""
    for register in REGISTERS.values():
        if register.space is space and not register.raw and register.chip == 0:
            index = _index(register, address)
            if index is not None and not register.name.endswith(".index"):
                name = register.name if register.count is None else f"{register.name}.{index}"
                return f" ({name})"
    return ""


def _index(register: Register, address: int) -> int | None:
    offset = address - register.address
    if register.count is None:
        return 0 if offset == 0 else None
    if not 0 <= offset < register.count * register.stride:
        return None
    return offset // register.stride
