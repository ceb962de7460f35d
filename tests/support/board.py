"""The PC board's IOAPIC and PICs as qtest sees them, in QEMU and as the model predicts them.

A step is one access or line change; the same list of steps goes to a real QEMU
(:func:`observe`) and to the chips (:func:`predict`), and both answer with the same type.

What can be seen of an IOAPIC's delivery without a CPU: QEMU's IOAPIC stores an MSI into the local
APIC's window, and the APIC's trace event ``apic_deliver_irq`` tells all its fields.  An INTA cycle
of the PIC has no command of its own, but an IOAPIC entry in ExtINT mode does one when it is
serviced, and its message shows the vector.
"""

from __future__ import annotations

import random
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple, Self

from support.differential import reduce_steps
from support.qtest import Qtest, Reply
from userspace_chip.events import EVENT_TYPES, Arg
from userspace_chip.info_pic import InfoPic, format_info_pic, parse_info_pic
from userspace_chip.ioapic import Ioapic
from userspace_chip.irqchip import is_aligned_port
from userspace_chip.messages import LapicMessage, MsiMessage
from userspace_chip.pic import Pic
from userspace_chip.ports import DestMap, TimerPort
from userspace_chip.profile import Profile

IOAPIC_BASE = 0xFEC00000
IOREGSEL = IOAPIC_BASE
IOWIN = IOAPIC_BASE + 0x10
EOIR = IOAPIC_BASE + 0x40

MACHINE = "pc,pit=off,hpet=off"
TRACE = ("ioapic_*", "pic_*", "apic_deliver_irq", "x86_pic_interrupt", "kvm_irqchip_*")

_SIZES = {"b": 1, "w": 2, "l": 4, "q": 8}


class Step(NamedTuple):
    """``read``/``write`` + size letter at an address, ``in``/``out`` at a port, or ``line``.

    For ``line`` the ``target`` is the device (``ioapic``, ``pic0``, ``pic1``), ``value`` is
    ``(pin, level)``.
    """

    op: str
    target: int | str
    value: int | tuple[int, int] = 0


def command(step: Step, paths: dict[str, str]) -> str:
    """The step in the words of the qtest protocol."""
    if step.op == "line":
        assert isinstance(step.value, tuple)
        pin, level = step.value
        return f"set_irq_in {paths[str(step.target)]} unnamed-gpio-in {pin} {level}"
    if step.op.startswith(("write", "out")):
        return f"{step.op} {step.target:#x} {step.value:#x}"
    return f"{step.op} {step.target:#x}"


class NoTimer:
    """Virtual time stands still on a stopped machine: nothing ever expires."""

    def arm(self, deadline_ns: int) -> None: ...

    def cancel(self) -> None: ...


@dataclass
class Board:
    """The chips wired as on a PC under TCG, recording what QEMU would trace."""

    profile: Profile
    trace: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.timer: TimerPort = NoTimer()
        self.ioapic = Ioapic(self.profile, self, self.emit)
        self.pic = Pic(self.profile, self, self.emit)

    def emit(self, name: str, *args: Arg) -> None:
        self.trace.append(f"{name} {EVENT_TYPES[name].format(args)}")

    # PicPort
    def intr(self, level: bool) -> None:
        self.emit("x86_pic_interrupt", 0, int(level))

    # IoapicPort
    def send_msi(self, pin: int, message: MsiMessage, level: bool) -> None:
        if self.profile.kvm_lapic:
            return  # an ioctl, which QEMU does not trace
        offset = message.address & 0xFFFFF
        if offset <= 0xFFF and offset >> 4 & 0xFF:
            return  # taken for an APIC register write, which needs a CPU (apic_mem_write)
        data = message.data
        self.emit(
            "apic_deliver_irq",
            offset >> 12,
            offset >> 2 & 1,
            data >> 8 & 7,
            data & 0xFF,
            data >> 15 & 1,
        )

    def intack(self) -> int:
        return self.pic.intack()

    def eoi_broadcast(self, vector: int, now_ns: int) -> None:
        signed = vector - (1 << 32) if vector >> 31 else vector
        self.emit("ioapic_eoi_broadcast", signed)
        if vector <= 0xFF:
            self.ioapic.eoi(vector, now_ns)

    def resample(self, pin: int) -> None: ...

    def rte_written(self, pin: int, old: int, new: int) -> None: ...

    def update_route(self, pin: int, message: MsiMessage) -> None:
        self.emit("kvm_irqchip_update_msi_route", pin)

    def commit_routes(self) -> None:
        self.emit("kvm_irqchip_commit_routes")

    # Never called by QEMU's models
    def deliver(self, message: LapicMessage, dest_map: DestMap | None = None) -> int:
        raise AssertionError

    def ack(self, *args: object) -> None:
        raise AssertionError

    def mask_changed(self, *args: object) -> None:
        raise AssertionError

    def has_resampler(self, pin: int) -> bool:
        raise AssertionError

    def pending_eoi(self, vcpu: int, vector: int) -> bool:
        raise AssertionError

    def matching(self, message: LapicMessage) -> list[int]:
        raise AssertionError

    def accepts_pic_intr(self) -> bool:
        raise AssertionError

    def info_pic(self, like: str) -> str:
        """The monitor's ``info pic``, its parts in the order of the text ``like``."""
        pics = {number: self.pic.state.chips[number] for number in parse_info_pic(like).pics}
        return format_info_pic(InfoPic([(self.ioapic.knobs.version, self.ioapic.state)], pics))

    def run(self, step: Step) -> Reply:
        """Do one step, and say what QEMU should have said."""
        self.trace.clear()
        value = self._do(step)
        return Reply(value, tuple(self.trace))

    def _do(self, step: Step) -> int | None:
        if step.op == "line":
            assert isinstance(step.value, tuple)
            pin, level = step.value
            if step.target == "ioapic":
                self.ioapic.set_irq(pin, level)
            else:
                self.pic.set_irq(pin + (8 if step.target == "pic1" else 0), level)
            return None
        assert isinstance(step.target, int)
        assert isinstance(step.value, int)
        size = _SIZES[step.op[-1]]
        if step.op.startswith("write"):
            self.ioapic.write(step.target - IOAPIC_BASE, size, step.value, 0)
            return None
        if step.op.startswith("read"):
            return self.ioapic.read(step.target - IOAPIC_BASE, size)
        if not qtest_reaches(self.profile, step.target, size):
            return 0 if step.op.startswith("in") else None
        if step.op.startswith("out"):
            self.pic.write(step.target, step.value, size)
            return None
        return self.pic.read(step.target, size)


def qtest_reaches(profile: Profile, port: int, size: int) -> bool:
    """Whether qtest's access of that many bytes at ``port`` gets to the device.

    That of QEMU 11.1 is refused where it is not aligned, as a guest's is under TCG
    (``Machine.pio_read``); earlier ones split it, as for what KVM leaves to user space.
    """
    return profile.qemu != "11.1" or is_aligned_port(port, size)


def predict(profile: Profile, steps: Iterable[Step]) -> list[Reply]:
    """What the model says that the steps do on a fresh board."""
    board = Board(profile)
    return [board.run(step) for step in steps]


@dataclass(frozen=True)
class Subject:
    """A QEMU and the profile that has to predict it."""

    qemu: Sequence[str | Path]
    profile: Profile
    args: Sequence[str] = ()
    accel: str = "tcg"


class Machine(Qtest):
    """A QEMU with the board."""

    def __init__(self, subject: Subject) -> None:
        super().__init__(subject.qemu, MACHINE, subject.args, TRACE, subject.accel)

    def __enter__(self) -> Self:
        super().__enter__()
        try:
            first, second = self.devices("isa-i8259")
            swapped = not self.qmp("qom-get", path=first, property="master")
            master, slave = (second, first) if swapped else (first, second)
            self.paths = {"ioapic": "ioapic", "pic0": master, "pic1": slave}
        except BaseException:
            self.close()
            raise
        return self

    def steps(self, steps: Iterable[Step]) -> list[Reply]:
        """Run the steps."""
        return self.run(command(step, self.paths) for step in steps)


def observe(subject: Subject, steps: Iterable[Step]) -> list[Reply]:
    """What a fresh QEMU does at the steps."""
    with Machine(subject) as machine:
        return machine.steps(steps)


def first_difference(seen: Sequence[Reply], expected: Sequence[Reply]) -> int | None:
    """Index of the first step whose outcomes differ."""
    return next((i for i, (a, b) in enumerate(zip(seen, expected, strict=True)) if a != b), None)


def compare(subject: Subject, steps: Sequence[Step], checkpoint: int = 250) -> None:
    """Assert that QEMU and the model agree on every step, and on ``info pic`` now and then.

    The steps are one session on one fresh machine.  A disagreement fails with the shortest list
    of steps that still shows it.
    """
    board = Board(subject.profile)
    with Machine(subject) as machine:
        for start in range(0, len(steps), checkpoint):
            part = steps[start : start + checkpoint]
            seen = machine.steps(part)
            expected = [board.run(step) for step in part]
            if seen != expected:
                index = first_difference(seen, expected)
                assert index is not None
                once = (
                    f"step {start + index}, {part[index]!r}:{_both(seen[index], expected[index])}"
                )
                break
            shown = machine.hmp("info pic")
            assert shown == board.info_pic(like=shown), f"info pic after step {start + len(part)}"
        else:
            return
    raise AssertionError(reproducer(subject, steps[: start + checkpoint], once))


def _both(seen: Reply, expected: Reply) -> str:
    return f"\nQEMU:  {seen}\nmodel: {expected}"


def reproducer(subject: Subject, steps: Sequence[Step], once: str) -> str:
    """The shortest list of steps on which QEMU and the model differ, and how they do.

    ``once`` is what was seen, for a difference that does not come again.
    """

    def differs(candidate: Sequence[Step]) -> bool:
        seen = observe(subject, candidate)
        return first_difference(seen, predict(subject.profile, candidate)) is not None

    if not differs(steps):
        return f"QEMU and the model differed once, but not when the steps are run again, at {once}"
    shortest = reduce_steps(list(steps), differs)
    seen = observe(subject, shortest)
    expected = predict(subject.profile, shortest)
    index = first_difference(seen, expected)
    assert index is not None
    lines = "".join(f"\n    {step!r}," for step in shortest[: index + 1])
    outcome = _both(seen[index], expected[index])
    return f"QEMU {subject.profile.qemu} and the model differ at the last of:{lines}{outcome}"


def rng(name: str, seed: int) -> random.Random:
    """A generator that gives the same steps on every machine."""
    return random.Random(f"{name}-{seed}")
