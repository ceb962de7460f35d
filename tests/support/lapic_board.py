"""A local APIC on its own, with a port that records what the chip asks of its machine."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from userspace_chip.events import event_type
from userspace_chip.lapic import Lapic
from userspace_chip.lapic_registers import ICR, SPIV
from userspace_chip.messages import LapicMessage
from userspace_chip.profile import Profile, profile


@dataclass
class RecordingTimer:
    deadline_ns: int | None = None

    def arm(self, deadline_ns: int) -> None:
        self.deadline_ns = deadline_ns

    def cancel(self) -> None:
        self.deadline_ns = None


@dataclass
class RecordingPort:
    """Every call of the port, by name, and the answers that a test wants."""

    timer: RecordingTimer = field(default_factory=RecordingTimer)
    ipis: list[LapicMessage] = field(default_factory=list)
    eois: list[tuple[int, bool]] = field(default_factory=list)
    calls: list[str] = field(default_factory=list)
    pic: bool = False
    exits: bool = False
    smm: bool = True

    def send_ipi(self, message: LapicMessage) -> None:
        self.ipis.append(message)

    def eoi(self, vector: int, level: bool) -> None:
        self.eois.append((vector, level))

    def eoi_exits(self, vector: int) -> bool:
        return self.exits

    def apic_map_changed(self) -> None:
        self.calls.append("map")

    def request(self) -> None:
        self.calls.append("request")

    def nmi(self) -> None:
        self.calls.append("nmi")

    def smi(self) -> bool:
        self.calls.append("smi")
        return self.smm

    def init(self) -> None:
        self.calls.append("init")

    def sipi(self, vector: int) -> None:
        self.calls.append(f"sipi {vector}")

    def extint(self) -> None:
        self.calls.append("extint")

    def tpr_accessed(self) -> None:
        """KVM only."""

    def unhalt(self) -> None:
        self.calls.append("unhalt")

    def pic_output(self) -> bool:
        return self.pic


class LapicBoard:
    """One local APIC, software-enabled unless a test wants it as reset leaves it."""

    def __init__(
        self, which: Profile | str = "on", vcpu: int = 0, *, enabled: bool = True, **options: Any
    ) -> None:
        self.port = RecordingPort()
        self.texts: list[str] = []
        chosen = profile(which) if isinstance(which, str) else which  # type: ignore[arg-type]
        self.apic = Lapic(chosen, self.port, vcpu, **options)
        if enabled:
            self.write(SPIV, 0x1FF)
        self.apic.emit = self.record
        self.port.calls.clear()

    def record(self, name: str, *args: Any) -> None:
        text = event_type(name).format(args)
        self.texts.append(f"{name}: {text}")

    def write(self, register: int, value: int, now_ns: int = 0) -> None:
        self.apic.write_mmio(register, 4, value, now_ns)

    def read(self, register: int, now_ns: int = 0) -> int:
        return self.apic.read_mmio(register, 4, now_ns)

    def accept(self, vector: int, **fields: Any) -> int:
        return self.apic.accept(LapicMessage(vector, **fields))

    def take(self) -> int | None:
        """What a CPU does that looks for an interrupt and takes it."""
        vector = self.apic.pending()
        if vector is not None:
            self.apic.ack(vector)
        return vector

    def x2apic(self) -> None:
        base = self.apic.state.apic_base
        assert self.apic.set_apic_base(base | 0xC00)

    def send(self, icr: int) -> LapicMessage:
        self.write(ICR, icr)
        return self.port.ipis[-1]
