from dataclasses import dataclass, field

import pytest

from userspace_chip.errors import PinRangeError, RouteError
from userspace_chip.events import event_type
from userspace_chip.messages import LapicMessage, MsiMessage
from userspace_chip.ports import Irqchip
from userspace_chip.routing import (
    IrqchipRoute,
    MsiRoute,
    Router,
    RoutingTable,
    kernel_default,
    qemu_pc,
    split_msi,
)


@dataclass
class Ends:
    """The chips at the routes' ends, with the results that a test wants."""

    pic: int = 1
    ioapic: int = 1
    lapics: int = 1
    calls: list[tuple] = field(default_factory=list)

    def set_pic(self, pin, level, source):
        self.calls.append(("pic", pin, level, source))
        return self.pic

    def set_ioapic(self, pin, level, source, line_status):
        self.calls.append(("ioapic", pin, level, source, line_status))
        return self.ioapic

    def deliver(self, message: LapicMessage):
        self.calls.append(("lapic", message.vector))
        return self.lapics


def test_kernel_default_calls_the_ioapic_first():
    ends = Ends()
    Router(kernel_default(), ends).set_irq(9, 1)
    assert ends.calls == [("ioapic", 9, 1, 0, True), ("pic", 9, 1, 0)]


def test_qemu_pc_calls_the_pic_first():
    ends = Ends()
    Router(qemu_pc(), ends).set_irq(9, 1)
    assert ends.calls == [("pic", 9, 1, 0), ("ioapic", 9, 1, 0, True)]


def test_qemu_pc_leads_gsi_0_to_ioapic_pin_2_and_gsi_2_nowhere():
    table = qemu_pc()
    assert [(r.chip, r.pin) for r in table.of(0)] == [
        (Irqchip.PIC_MASTER, 0),
        (Irqchip.IOAPIC, 2),
    ]
    assert table.of(2) == []
    assert table.gsi_of(Irqchip.IOAPIC, 0) is None


def test_kernel_default_has_no_pic_above_15():
    assert [r.chip for r in kernel_default().of(16)] == [Irqchip.IOAPIC]


def test_split_msi_has_24_routes_of_zero():
    assert split_msi().routes == tuple(MsiRoute(n, MsiMessage(0, 0)) for n in range(24))


@pytest.mark.parametrize(
    ("pic", "ioapic", "result"),
    [(1, -1, 1), (1, 0, 1), (1, 1, 2), (0, 0, 0), (-1, -1, -1), (-1, 3, 3), (0, -1, 0)],
)
def test_set_irq_sums_what_is_not_negative(pic, ioapic, result):
    assert Router(kernel_default(), Ends(pic=pic, ioapic=ioapic)).set_irq(9, 1) == result


def test_set_irq_of_an_unrouted_gsi_is_ignored_but_traced():
    seen = []
    router = Router(qemu_pc(), Ends(), emit=lambda name, *args: seen.append((name, args)))
    assert router.set_irq(2, 1) == -1
    assert seen == [("kvm_set_irq", (2, 1, 0))]


def test_set_irq_passes_source_and_line_status():
    ends = Ends()
    Router(qemu_pc(), ends).set_irq(0, 1, 2, False)
    assert ends.calls == [("pic", 0, 1, 2), ("ioapic", 2, 1, 2, False)]


def test_set_irq_low_of_an_msi_route_sends_nothing():
    ends = Ends()
    seen = []
    router = Router(split_msi(), ends, emit=lambda name, *args: seen.append(name))
    assert router.set_irq(5, 0) == -1
    assert ends.calls == []
    assert seen == ["kvm_set_irq"]


def test_set_irq_high_of_an_msi_route_traces_the_message_before_it_is_sent():
    texts = []

    def emit(name, *args):
        texts.append(event_type(name).format(args))

    table = RoutingTable([MsiRoute(5, MsiMessage(0xFEE01004, 0x8031))], split=True)
    assert Router(table, Ends(lapics=2), emit=emit).set_irq(5, 1) == 2
    assert texts == ["gsi 5 level 1 source 0", "dst 1 vec 49 (Fixed|logical|level)"]


@pytest.mark.parametrize("gsi", [-1, 4096])
def test_set_irq_of_an_impossible_gsi_raises(gsi):
    with pytest.raises(PinRangeError, match=r"0\.\.4095"):
        Router(kernel_default(), Ends()).set_irq(gsi, 1)


@pytest.mark.parametrize(
    "routes",
    [
        [IrqchipRoute(4096, Irqchip.IOAPIC, 0)],
        [IrqchipRoute(0, Irqchip.IOAPIC, 24)],
        [IrqchipRoute(0, Irqchip.PIC_SLAVE, 8)],
        [IrqchipRoute(0, Irqchip.IOAPIC, 0), IrqchipRoute(0, Irqchip.IOAPIC, 1)],
        [MsiRoute(0, MsiMessage(0, 0)), MsiRoute(0, MsiMessage(0, 1))],
        [IrqchipRoute(0, Irqchip.IOAPIC, 0), MsiRoute(0, MsiMessage(0, 1))],
    ],
)
def test_table_that_kvm_refuses_raises(routes):
    with pytest.raises(RouteError):
        RoutingTable(routes)


def test_table_in_split_refuses_irqchip_routes():
    with pytest.raises(RouteError, match="no in-kernel"):
        RoutingTable([IrqchipRoute(0, Irqchip.IOAPIC, 0)], split=True)


def test_table_of_one_gsi_may_name_each_chip_once():
    table = RoutingTable(
        [
            IrqchipRoute(0, Irqchip.IOAPIC, 0),
            IrqchipRoute(0, Irqchip.PIC_MASTER, 0),
            IrqchipRoute(0, Irqchip.PIC_SLAVE, 0),
        ]
    )
    assert len(table.of(0)) == 3
