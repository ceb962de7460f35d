"""The registers' tables against those of the chips."""

import pytest

from harness.scenario.registers import REGISTERS, find
from userspace_chip import ioapic, lapic_registers
from userspace_chip.bits import Register

CHIPS = {
    "ioapic.redir": ioapic.RTE,
    "lapic.icr": lapic_registers.ICR_REGISTER,
    "lapic.svr": lapic_registers.SPIV_REGISTER,
    "lapic.base": lapic_registers.APIC_BASE_REGISTER,
    "lapic.lvt_timer": lapic_registers.LVT_REGISTERS[0],
    "lapic.lvt_lint0": lapic_registers.LVT_REGISTERS[lapic_registers.LVT_LINT0],
    "lapic.lvt_lint1": lapic_registers.LVT_REGISTERS[lapic_registers.LVT_LINT1],
    "lapic.lvt_thermal": lapic_registers.LVT_REGISTERS[lapic_registers.LVT_THERMAL],
    "lapic.lvt_perf": lapic_registers.LVT_REGISTERS[lapic_registers.LVT_PERF],
    "lapic.lvt_error": lapic_registers.LVT_REGISTERS[lapic_registers.LVT_ERROR],
    "lapic.lvt_cmci": lapic_registers.LVT_REGISTERS[lapic_registers.LVT_CMCI],
}
SAME = {
    "mode": ("delivery_mode", "timer_mode"),
    "mask": ("mask", "masked"),
    "x2apic": ("extd",),
    "page": ("base",),
}


def chip_bits(register: Register, name: str) -> tuple[int, int]:
    names = {field.name for field in register}
    (known,) = names & {name, *SAME.get(name, ())}
    return register[known].high, register[known].low


@pytest.mark.parametrize("name", CHIPS)
def test_fields_are_where_the_chips_have_them(name):
    fields = [field for field in REGISTERS[name].fields if name != "lapic.icr" or field.high < 32]
    assert [(f.name, (f.high, f.low)) for f in fields] == [
        (f.name, chip_bits(CHIPS[name], f.name)) for f in fields
    ]


@pytest.mark.parametrize(
    ("name", "offset"),
    [
        ("lapic.id", lapic_registers.ID),
        ("lapic.tpr", lapic_registers.TPR),
        ("lapic.ppr", lapic_registers.PPR),
        ("lapic.eoi", lapic_registers.EOI),
        ("lapic.ldr", lapic_registers.LDR),
        ("lapic.dfr", lapic_registers.DFR),
        ("lapic.svr", lapic_registers.SPIV),
        ("lapic.isr.1", lapic_registers.ISR + 0x10),
        ("lapic.tmr.1", lapic_registers.TMR + 0x10),
        ("lapic.irr.1", lapic_registers.IRR + 0x10),
        ("lapic.esr", lapic_registers.ESR),
        ("lapic.icr", lapic_registers.ICR),
        ("lapic.icr_high", lapic_registers.ICR2),
        ("lapic.lvt_timer", lapic_registers.LVTT),
        ("lapic.lvt_lint0", lapic_registers.LVT0),
        ("lapic.lvt_cmci", lapic_registers.LVT_CMCI_REG),
        ("lapic.timer_initial", lapic_registers.TMICT),
        ("lapic.timer_current", lapic_registers.TMCCT),
        ("lapic.timer_divide", lapic_registers.TDCR),
        ("lapic.self_ipi", lapic_registers.SELF_IPI),
        ("ioapic.version", ioapic.IOAPICVER),
        ("ioapic.redir.3", ioapic.IOREDTBL + 6),
    ],
)
def test_registers_are_where_the_chips_have_them(name, offset):
    assert find(name).address == offset


@pytest.mark.parametrize("name", ["ioapic.redir[0x0e].low", "ioapic.redir.14.low"])
def test_index_may_be_written_in_brackets_or_behind_a_dot(name):
    target = find(name)
    assert (target.register.name, target.index, target.half) == ("ioapic.redir", 14, "low")
