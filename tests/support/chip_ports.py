"""Ports for one chip alone: they record every call, and answer as the test tells them to."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from userspace_chip.events import EVENT_TYPES, Arg
from userspace_chip.messages import LapicMessage, MsiMessage
from userspace_chip.ports import DestMap, Irqchip


@dataclass
class Timer:
    """What a chip armed last."""

    deadline_ns: int | None = None

    def arm(self, deadline_ns: int) -> None:
        self.deadline_ns = deadline_ns

    def cancel(self) -> None:
        self.deadline_ns = None


@dataclass
class Recorder:
    """The calls in order, as (name, arguments...), and the events as their tracers print them."""

    calls: list[tuple[Any, ...]] = field(default_factory=list)
    events: list[str] = field(default_factory=list)
    timer: Timer = field(default_factory=Timer)

    def emit(self, name: str, *args: Arg) -> None:
        self.events.append(f"{name} {EVENT_TYPES[name].format(args)}".rstrip())

    def named(self, *names: str) -> list[tuple[Any, ...]]:
        """The calls of these names only."""
        return [call for call in self.calls if call[0] in names]

    def clear(self) -> None:
        self.calls.clear()
        self.events.clear()


@dataclass
class IoapicRecorder(Recorder):
    """An :class:`~userspace_chip.ports.IoapicPort`."""

    result: int = 1
    """What a delivery returns."""
    takers: DestMap = field(default_factory=dict)
    """The vCPUs that accept, for ``dest_map`` and ``matching``."""
    in_lapic: set[tuple[int, int]] = field(default_factory=set)
    """(vCPU, vector) pending in a local APIC."""
    resamplers: set[int] = field(default_factory=set)
    inta_vector: int = 0x77
    on_ack: Callable[[int], None] | None = None

    def deliver(self, message: LapicMessage, dest_map: DestMap | None = None) -> int:
        self.calls.append(("deliver", message))
        if dest_map is not None:
            dest_map.update(self.takers)
        return self.result

    def ack(self, pin: int) -> None:
        self.calls.append(("ack", pin))
        if self.on_ack is not None:
            self.on_ack(pin)

    def mask_changed(self, pin: int, masked: bool) -> None:
        self.calls.append(("mask_changed", pin, masked))

    def rte_written(self, pin: int, old: int, new: int) -> None:
        self.calls.append(("rte_written", pin, old, new))

    def has_resampler(self, pin: int) -> bool:
        return pin in self.resamplers

    def resample(self, pin: int) -> None:
        self.calls.append(("resample", pin))

    def pending_eoi(self, vcpu: int, vector: int) -> bool:
        return (vcpu, vector) in self.in_lapic

    def matching(self, message: LapicMessage) -> list[int]:
        return list(self.takers)

    def send_msi(self, pin: int, message: MsiMessage, level: bool) -> None:
        self.calls.append(("send_msi", pin, message.address, message.data, level))

    def update_route(self, pin: int, message: MsiMessage) -> None:
        self.calls.append(("update_route", pin, message.data))

    def commit_routes(self) -> None:
        self.calls.append(("commit_routes",))

    def intack(self) -> int:
        self.calls.append(("intack",))
        return self.inta_vector

    def eoi_broadcast(self, vector: int, now_ns: int) -> None:
        self.calls.append(("eoi_broadcast", vector, now_ns))


@dataclass
class PicRecorder(Recorder):
    """A :class:`~userspace_chip.ports.PicPort`."""

    accepts: bool = True
    level: bool = False

    def intr(self, level: bool) -> None:
        self.calls.append(("intr", level))
        self.level = level

    def ack(self, chip: Irqchip, pin: int) -> None:
        self.calls.append(("ack", chip, pin))

    def mask_changed(self, chip: Irqchip, pin: int, masked: bool) -> None:
        self.calls.append(("mask_changed", chip, pin, masked))

    def accepts_pic_intr(self) -> bool:
        return self.accepts


@dataclass
class PitRecorder(Recorder):
    """A :class:`~userspace_chip.ports.PitPort`."""

    def set_irq(self, level: int) -> None:
        self.calls.append(("set_irq", level))

    def nmi_watchdog(self) -> None:
        self.calls.append(("nmi_watchdog",))

    @property
    def levels(self) -> list[int]:
        """What GSI 0 was driven to."""
        return [call[1] for call in self.named("set_irq")]
