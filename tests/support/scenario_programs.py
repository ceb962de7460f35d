"""Programs made by hand: steps with a prologue, for tests of what executes them."""

from harness.scenario.program import Feature, Handler, Op, Opcode, OpFlag, Program
from userspace_chip.profile import profile

PROFILES = {
    f"{mode}-{qemu}-{linux}": profile(mode, qemu=qemu, linux=linux)
    for mode, qemu, linux in (
        ("on", "7.2", "6.1"),
        ("on", "10.0", "6.12"),
        ("split", "7.2", "6.1"),
        ("split", "7.2", "6.12"),
        ("split", "10.0", "6.12"),
        ("off", "7.2", "6.1"),
        ("tcg", "7.2", "6.1"),
        ("tcg", "10.0", "6.12"),
    )
}

APIC = 0xFEE00000
SVR, LDR, DFR, TPR, ICR = 0xF0, 0xD0, 0xE0, 0x80, 0x300
LVTT, LINT0, LINT1, TMICT, TDCR = 0x320, 0x350, 0x360, 0x380, 0x3E0
PPR, ISR2, APIC_ID, ESR = 0xA0, 0x120, 0x20, 0x280
MASKED = 1 << 16
LEVEL = 1 << 15

ASSERT = 1 << 14
NMI, INIT, SIPI = 4 << 8, 5 << 8, 6 << 8
SMI = 0x200
LOGICAL = 1 << 11
SELF, ALL, OTHERS = 1 << 18, 2 << 18, 3 << 18


def prologue(cpus, *, interrupts=True):
    ops = []
    for cpu in range(cpus):
        writes = [(SVR, 0x1FF), (LDR, 1 << cpu << 24), (DFR, 0xFFFFFFFF), (TPR, 0)]
        writes += [(lvt, MASKED) for lvt in (LVTT, 0x330, 0x340, LINT0, LINT1, 0x370)]
        ops += [lapic(*write, cpu=cpu) for write in writes]
    for port, value in ((0x20, 0x11), (0x21, 0x20), (0x21, 4), (0x21, 1), (0x21, 0xFF)):
        ops.append(Op(Opcode.PIO_WRITE, port, value, size=1))
    for port, value in ((0xA0, 0x11), (0xA1, 0x28), (0xA1, 2), (0xA1, 1), (0xA1, 0xFF)):
        ops.append(Op(Opcode.PIO_WRITE, port, value, size=1))
    ops += [Op(Opcode.PIO_WRITE, port, value, size=1) for port, value in ((0x43, 0x30), (0x40, 1))]
    ops += [Op(Opcode.PIO_WRITE, 0x40, 0, size=1), Op(Opcode.DELAY, 1000)]
    if interrupts:
        ops += [Op(Opcode.STI, cpu=cpu) for cpu in range(cpus)]
    return tuple(ops)


def program(*steps, cpus=1, handlers=(), blocks=(), needs=Feature.NONE, interrupts=True):
    """Each step is one operation or a list; ``blocks`` are those from number 2 on."""
    main = []
    for number, step in enumerate(steps):
        ops = [step] if isinstance(step, Op) else step
        for index, op in enumerate(ops):
            last = OpFlag.SETTLE if index == len(ops) - 1 else OpFlag.NONE
            main.append(changed(op, step=number, flags=op.flags | last))
    first = prologue(cpus, interrupts=interrupts)
    return Program("by hand", cpus, (first, tuple(main), *map(tuple, blocks)), handlers, needs)


def changed(op, **changes):
    values = {name: getattr(op, name) for name in Op.__slots__}
    return Op(**values | changes)


def lapic(register, value, high=0, *, cpu=0):
    return Op(Opcode.LAPIC_WRITE, register, value, high, cpu=cpu)


def read(register, *, cpu=0):
    return Op(Opcode.LAPIC_READ, register, cpu=cpu)


def rte(pin, low, *, dest=0, cpu=0):
    return [
        Op(Opcode.IOAPIC_WRITE, 0x11 + 2 * pin, dest << 24, cpu=cpu),
        Op(Opcode.IOAPIC_WRITE, 0x10 + 2 * pin, low, cpu=cpu),
    ]


def line(gsi, level, *, cpu=0):
    return Op(Opcode.LINE, gsi, level, cpu=cpu)


def ipi(low, *, dest=0, cpu=0):
    return lapic(ICR, low | ASSERT, dest << 24, cpu=cpu)


def msi(vector, *, dest=0, high=0, base=APIC):
    return Op(Opcode.MSI, base | dest << 12, vector, high)


def wait(vector, count=1, *, us=100_000, target=0, cpu=0):
    return Op(Opcode.WAIT, vector, count, us, cpu=cpu, target=target)


def await_cpu(target, us=100_000):
    return Op(Opcode.AWAIT, us, target=target)


def outb(port, value):
    return Op(Opcode.PIO_WRITE, port, value, size=1)


def inb(port):
    return Op(Opcode.PIO_READ, port, size=1)


EOI = Op(Opcode.EOI)
EOI_IN_SERVICE = Op(Opcode.EOI, flags=OpFlag.IN_SERVICE)
STI, CLI, HLT = Op(Opcode.STI), Op(Opcode.CLI), Op(Opcode.HLT)


def on(op, cpu):
    """``op`` on another CPU."""
    return changed(op, cpu=cpu)


def handler(vector, block=2, **settings):
    return Handler(vector, block, **settings)
