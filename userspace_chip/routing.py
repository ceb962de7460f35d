"""GSI routing as KVM has it: a table, and the call that fans a line change out to every chip.

Sources: Linux ``virt/kvm/irqchip.c`` (``kvm_set_irq``, ``kvm_set_irq_routing``),
``arch/x86/kvm/irq_comm.c`` (``kvm_set_routing_entry``, ``default_routing``), QEMU
``hw/i386/pc.c`` / ``hw/i386/kvm/ioapic.c:kvm_pc_setup_irq_routing`` and
``target/i386/kvm/kvm.c:kvm_arch_init_irq_routing``.

Not modelled: Hyper-V SINT and Xen event channel routes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from functools import cache
from typing import Final, NamedTuple, Protocol, TypeAlias

from userspace_chip import msi
from userspace_chip.architecture import IOAPIC_PINS, ISA_LINES
from userspace_chip.errors import PinRangeError, RouteError
from userspace_chip.knobs import DefaultRoutes
from userspace_chip.messages import (
    DELIVERY_MODE_NAMES,
    DEST_MODE_NAMES,
    TRIGGER_NAMES,
    LapicMessage,
    MsiMessage,
)
from userspace_chip.ports import Emit, Irqchip

MAX_GSI: Final = 4096
"""KVM_MAX_IRQ_ROUTES."""

_PINS: Final = {Irqchip.PIC_MASTER: 8, Irqchip.PIC_SLAVE: 8, Irqchip.IOAPIC: IOAPIC_PINS}


class IrqchipRoute(NamedTuple):
    """GSI -> a pin of an in-kernel chip; ``pin`` counts from 0 in each PIC."""

    gsi: int
    chip: Irqchip
    pin: int


class MsiRoute(NamedTuple):
    """GSI -> a message."""

    gsi: int
    message: MsiMessage


Route: TypeAlias = IrqchipRoute | MsiRoute


class RoutingTable:
    """A whole KVM_SET_GSI_ROUTING table; :class:`RouteError` for what KVM refuses with EINVAL.

    ``split`` refuses irqchip routes.  Immutable.
    """

    __slots__ = ("_by_gsi", "_gsi_of", "routes")

    def __init__(self, routes: Iterable[Route] = (), *, split: bool = False) -> None:
        self.routes = tuple(routes)
        self._by_gsi: dict[int, list[Route]] = {}
        self._gsi_of: dict[tuple[int, int], int] = {}
        for route in self.routes:
            self._add(route, split)

    def _add(self, route: Route, split: bool) -> None:
        if not 0 <= route.gsi < MAX_GSI:
            raise RouteError(f"route of GSI {route.gsi}", f"GSIs are 0..{MAX_GSI - 1}")
        others = self._by_gsi.setdefault(route.gsi, [])
        if isinstance(route, IrqchipRoute):
            if split:
                raise RouteError(f"{route}", "split has no in-kernel PIC and IOAPIC")
            if not 0 <= route.pin < _PINS[route.chip]:
                raise RouteError(f"{route}", f"the chip has {_PINS[route.chip]} pins")
            taken = any(not isinstance(o, IrqchipRoute) or o.chip == route.chip for o in others)
            self._gsi_of[route.chip, route.pin] = route.gsi
        else:
            taken = bool(others)
        if taken:
            raise RouteError(
                f"second route of GSI {route.gsi}", "one message, or one pin of each chip, a GSI"
            )
        others.append(route)

    def with_messages(self, messages: Mapping[int, MsiMessage]) -> RoutingTable:
        """A table in which each of these GSIs leads to its message, and nowhere else."""
        new = RoutingTable()
        changed = [MsiRoute(gsi, message) for gsi, message in messages.items()]
        new.routes = (*(route for route in self.routes if route.gsi not in messages), *changed)
        new._by_gsi = self._by_gsi | {route.gsi: [route] for route in changed}
        new._gsi_of = {place: gsi for place, gsi in self._gsi_of.items() if gsi not in messages}
        return new

    def of(self, gsi: int) -> list[Route]:
        """The routes of a GSI in the order in which KVM calls them: that of the table."""
        return self._by_gsi.get(gsi, [])

    def gsi_of(self, chip: Irqchip, pin: int) -> int | None:
        """``kvm_irq_map_chip_pin``: which GSI leads to a pin, None where none does."""
        return self._gsi_of.get((chip, pin))

    @property
    def size(self) -> int:
        """``nr_rt_entries``: highest GSI + 1."""
        return max(self._by_gsi, default=0) + 1

    def __eq__(self, other: object) -> bool:
        return isinstance(other, RoutingTable) and self.routes == other.routes

    def __hash__(self) -> int:
        return hash(self.routes)

    def __repr__(self) -> str:
        return f"RoutingTable({self.routes!r})"


@cache
def kernel_default() -> RoutingTable:
    """``default_routing``: IOAPIC and PIC for 0..15, in this order; IOAPIC for 16..23."""
    routes: list[Route] = []
    for gsi in range(IOAPIC_PINS):
        routes.append(IrqchipRoute(gsi, Irqchip.IOAPIC, gsi))
        if gsi < ISA_LINES:
            routes.append(_pic_route(gsi))
    return RoutingTable(routes)


@cache
def qemu_pc() -> RoutingTable:
    """``kvm_pc_setup_irq_routing``: GSI 0 goes to IOAPIC pin 2, GSI 2 nowhere."""
    routes: list[Route] = [_pic_route(gsi) for gsi in range(ISA_LINES) if gsi != 2]
    routes += [
        IrqchipRoute(gsi, Irqchip.IOAPIC, gsi or 2) for gsi in range(IOAPIC_PINS) if gsi != 2
    ]
    return RoutingTable(routes)


@cache
def split_msi(pins: int = IOAPIC_PINS) -> RoutingTable:
    """``kvm_arch_init_irq_routing``: MSI routes of address 0 and data 0 for the IOAPIC's pins."""
    return RoutingTable([MsiRoute(gsi, MsiMessage(0, 0)) for gsi in range(pins)], split=True)


def _pic_route(gsi: int) -> IrqchipRoute:
    return IrqchipRoute(gsi, Irqchip.PIC_MASTER if gsi < 8 else Irqchip.PIC_SLAVE, gsi % 8)


DEFAULT_TABLES: Final[dict[DefaultRoutes, Callable[[], RoutingTable]]] = {
    DefaultRoutes.KERNEL: kernel_default,
    DefaultRoutes.QEMU_PC: qemu_pc,
    DefaultRoutes.SPLIT_MSI: split_msi,
    DefaultRoutes.NONE: RoutingTable,
}


class RouterPort(Protocol):
    """Where routes lead."""

    def set_pic(self, pin: int, level: int, source: int) -> int:
        """In-kernel PIC input 0..15."""

    def set_ioapic(self, pin: int, level: int, source: int, line_status: bool) -> int:
        """In-kernel IOAPIC input."""

    def deliver(self, message: LapicMessage) -> int:
        """To the local APICs."""


class Router:
    """KVM's ``kvm_set_irq`` and ``kvm_send_userspace_msi`` over a table.

    Results: -1 ignored (masked, unrouted, not delivered), 0 coalesced, n accepted by n chips and
    CPUs; the results of the chips are summed, negative ones skipped.
    """

    def __init__(
        self,
        table: RoutingTable,
        port: RouterPort,
        *,
        ids_32bit: bool = False,
        emit: Emit | None = None,
    ) -> None:
        self.table = table
        self.emit = emit
        self._port = port
        self._ids_32bit = ids_32bit

    def set_irq(self, gsi: int, level: int, source: int = 0, line_status: bool = True) -> int:
        """``kvm_set_irq``; :class:`PinRangeError` for a GSI that no table can have."""
        if not 0 <= gsi < MAX_GSI:
            raise PinRangeError(f"GSI {gsi}", f"GSIs are 0..{MAX_GSI - 1}")
        if self.emit is not None:
            self.emit("kvm_set_irq", gsi, level, source)
        result = -1
        for route in self.table.of(gsi):
            if isinstance(route, MsiRoute):
                one = self.send_msi(route.message) if level else -1
            elif route.chip is Irqchip.IOAPIC:
                one = self._port.set_ioapic(route.pin, level, source, line_status)
            else:
                pin = route.pin + (8 if route.chip is Irqchip.PIC_SLAVE else 0)
                one = self._port.set_pic(pin, level, source)
            if one >= 0:
                result = one if result < 0 else result + one
        return result

    def send_msi(self, message: MsiMessage) -> int:
        """``kvm_set_msi`` with level 1; :class:`RouteError` where KVM says EINVAL."""
        return self._port.deliver(self.decode(message))

    def decode(self, message: MsiMessage) -> LapicMessage:
        """``kvm_set_msi_irq``: decode, and trace it (also where nothing is sent)."""
        decoded = msi.decode(message, ids_32bit=self._ids_32bit)
        if self.emit is not None:
            self.emit(
                "kvm_msi_set_irq",
                decoded.dest,
                decoded.vector,
                DELIVERY_MODE_NAMES[decoded.delivery_mode],
                DEST_MODE_NAMES[decoded.dest_mode],
                TRIGGER_NAMES[decoded.trigger],
                decoded.rh,
            )
        return decoded
