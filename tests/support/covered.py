"""A small build of KVM, and runs that executed some of it."""

from harness.model.coverage import Executed, Function, LineTable, SourceLine, Span
from harness.model.layout import CaseDir, RunDir
from harness.record import executed_file

LAPIC, IRQCHIP = "arch/x86/kvm/lapic.c", "virt/kvm/irqchip.c"
KERNEL, BUILD = "6.1.192-3", "78fb9d15"


def text(start, end):
    """A span of the section .text."""
    return Span(".text", start, end)


TABLE = LineTable(
    KERNEL,
    BUILD,
    {
        SourceLine(LAPIC, 10): (text(0, 4),),
        SourceLine(LAPIC, 11): (text(4, 8), text(20, 24)),
        SourceLine(LAPIC, 13): (text(8, 12),),
        SourceLine(LAPIC, 20): (text(12, 20),),
        SourceLine(IRQCHIP, 5): (Span(".text.unlikely", 0, 4),),
    },
    {
        Function(LAPIC, 9, "apic_one"): (text(0, 12),),
        Function(LAPIC, 19, "apic_two"): (text(12, 24),),
        Function(IRQCHIP, 4, "kvm_send"): (Span(".text.unlikely", 0, 4),),
    },
)


def executed(*offsets, section=".text", build=BUILD):
    """What ran of one section."""
    return Executed(KERNEL, build, {section: frozenset(offsets)})


def run_in(folder, *cases, floor=None):
    """A run's folder with coverage of cases, and a floor."""
    for number, one in enumerate(cases):
        case = CaseDir(folder / f"case-{number}")
        case.path.mkdir(parents=True)
        executed_file.write(case.executed, [one])
    if floor is not None:
        executed_file.write(RunDir(folder).floor, [floor])
    return folder


def tables(kernel, build_id):
    """As the image cache finds them."""
    assert (kernel, build_id) == (KERNEL, BUILD)
    return TABLE
