"""QEMU's 8254 against the model: the same accesses at the same virtual times on both.

Compared for each access: the value read, and every drive of IRQ 0 (QEMU calls the line again
where its level stays, and so does the model) up to the mark behind it.  The accesses are done by a
guest that knows its time to the nanosecond (``support.timed_guest``), because a stopped machine's
clock stands still where there is no qtest accelerator.  Accesses of more than a byte go through
qtest, at time 0.

Not observable: OUT of the channels 1 and 2, but for channel 2's in port 0x61.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass, field

import pytest

from support import timed_guest
from support.board import qtest_reaches, rng
from support.differential import reduce_steps
from support.qemus import QEMUS, find_qemu
from support.qtest import Qtest
from support.timed_guest import Access, Result
from userspace_chip.pit import Pit
from userspace_chip.profile import Profile

pytestmark = pytest.mark.live

MACHINE = "pc,hpet=off"
TRACE = ("pic_set_irq",)
IRQ0 = "pic_set_irq master 1 irq 0 level "
SESSIONS = 6
ACCESSES = 2000


@dataclass
class Wire:
    """The model's port: a timer that the test winds, and a record of what GSI 0 was driven to."""

    deadline_ns: int | None = None
    levels: list[int] = field(default_factory=list)

    @property
    def timer(self) -> Wire:
        return self

    def arm(self, deadline_ns: int) -> None:
        self.deadline_ns = deadline_ns

    def cancel(self) -> None:
        self.deadline_ns = None

    def set_irq(self, level: int) -> None:
        self.levels.append(level)

    def nmi_watchdog(self) -> None:
        raise AssertionError("QEMU's PIT has no watchdog")

    def run_until(self, pit: Pit, now_ns: int) -> None:
        """Expire what is due before ``now_ns``; a timer due at an instruction fires after it."""
        while self.deadline_ns is not None and self.deadline_ns < now_ns:
            pit.expire(self.deadline_ns)


def predict(
    profile: Profile, accesses: Sequence[Access], results: Sequence[Result]
) -> list[tuple[int, list[int]]]:
    """(value, levels driven) of each access, at the times of the results."""
    wire = Wire()
    pit = Pit(profile, wire)
    predictions: list[tuple[int, list[int]]] = []
    for access, result in zip(accesses, results, strict=True):
        wire.levels = []
        wire.run_until(pit, result.time_ns)
        value = access.value
        if access.op == "in":
            value = pit.read(access.address, result.time_ns)
        else:
            pit.write(access.address, access.value, result.time_ns)
        wire.run_until(pit, result.mark_ns)
        predictions.append((value, wire.levels))
    return predictions


def seen(results: Sequence[Result]) -> list[tuple[int, list[int]]]:
    return [
        (r.value, [int(line[-1]) for line in r.trace if line.startswith(IRQ0)]) for r in results
    ]


def first_difference(qemu: Sequence[str], profile: Profile, steps: Sequence[Access]) -> int | None:
    results = timed_guest.run(qemu, MACHINE, steps, TRACE)
    pairs = zip(seen(results), predict(profile, steps, results), strict=True)
    return next((i for i, (theirs, ours) in enumerate(pairs) if theirs != ours), None)


def agree(qemu: str, steps: Sequence[Access]) -> None:
    command, profile = find_qemu(qemu)
    argv = [str(word) for word in command]
    if first_difference(argv, profile, steps) is None:
        return
    shortest = reduce_steps(
        list(steps), lambda some: first_difference(argv, profile, some) is not None
    )
    results = timed_guest.run(argv, MACHINE, shortest, TRACE)
    last = first_difference(argv, profile, shortest)
    assert last is not None
    lines = [
        f"    {step!r},  # at {r.time_ns} ns" for step, r in zip(shortest, results, strict=True)
    ]
    raise AssertionError(
        f"QEMU {profile.qemu} and the model differ at the last of these accesses:\n"
        + "\n".join(lines[: last + 1])
        + f"\nQEMU:  {seen(results)[last]}\nmodel: {predict(profile, shortest, results)[last]}"
    )


def pause(random: random.Random) -> int:
    kind = random.random()
    if kind < 0.3:
        return 1
    if kind < 0.7:
        return random.randrange(1, 2_000)
    return random.randrange(1, 60_000 if kind < 0.97 else 2_000_000)


def session(random: random.Random, count: int) -> list[Access]:
    steps: list[Access] = []
    while len(steps) < count:
        channel = random.choice((0, 0, 0, 1, 2))
        counter = 0x40 + channel
        kind = random.random()
        if kind < 0.25:
            steps.append(Access(pause(random), "in", counter))
        elif kind < 0.40:
            word = channel << 6 | random.randrange(1, 4) << 4 | random.randrange(8) << 1
            steps.append(Access(pause(random), "out", 0x43, word | (random.random() < 0.1)))
        elif kind < 0.55:
            steps.append(Access(pause(random), "out", 0x43, channel << 6))  # latch
            steps += [Access(pause(random), "in", counter) for _ in range(2)]
        elif kind < 0.65:
            steps.append(Access(pause(random), "out", 0x43, 0xC0 | random.getrandbits(6)))
            steps.append(Access(pause(random), "in", counter))
        elif kind < 0.90:
            # Counts from 1 to 255 let the outputs change between the accesses.
            low = random.choice((0, 1, 2, 3, random.getrandbits(8)))
            steps.append(Access(pause(random), "out", counter, low))
            if random.random() < 0.7:
                high = random.choice((0, 0, 0, 1, random.getrandbits(8)))
                steps.append(Access(pause(random), "out", counter, high))
        elif kind < 0.95:
            steps.append(Access(pause(random), "out", 0x61, random.randrange(4)))
        elif kind < 0.98:
            steps.append(Access(pause(random), "in", 0x61))
        else:
            steps.append(Access(pause(random), "in", 0x43))
    return steps[:count]


@pytest.mark.parametrize("qemu", QEMUS)
def test_pit_random_sessions_agree_with_qemu(qemu: str) -> None:
    for seed in range(SESSIONS):
        agree(qemu, session(rng("pit", seed), ACCESSES))


@pytest.mark.parametrize("qemu", QEMUS)
def test_pit_left_alone_after_reset_ticks_like_qemu(qemu: str) -> None:
    agree(qemu, [Access(60_000_000, "in", 0x40), Access(60_000_000, "in", 0x40)])


@pytest.mark.parametrize("qemu", QEMUS)
@pytest.mark.parametrize("mode", range(8))
def test_pit_every_mode_drives_its_output_like_qemu(qemu: str, mode: int) -> None:
    program = [
        Access(1, "out", 0x43, 0x30 | mode << 1),
        Access(1, "out", 0x40, 50),
        Access(1, "out", 0x40, 0),
    ]
    agree(qemu, program + [Access(10_000, "in", 0x40) for _ in range(20)])


@pytest.mark.parametrize("qemu", QEMUS)
def test_pit_accesses_of_all_sizes_agree_with_qemu(qemu: str) -> None:
    command, profile = find_qemu(qemu)
    random = rng("pit-sizes", 0)
    sizes = {"b": 1, "w": 2, "l": 4}
    wire = Wire()
    pit = Pit(profile, wire)
    with Qtest(command, MACHINE, trace=TRACE) as machine:
        for _ in range(1000):
            letter = random.choice("bwl")
            port = random.choice((0x40, 0x41, 0x42, 0x43, 0x61))
            wire.levels = []
            if random.random() < 0.5:
                (reply,) = machine.run([f"in{letter} {port:#x}"])
                reached = qtest_reaches(profile, port, sizes[letter])
                value = pit.read(port, 0, sizes[letter]) if reached else 0
                assert reply.value == value, (letter, port)
            else:
                value = random.getrandbits(8 * sizes[letter])
                (reply,) = machine.run([f"out{letter} {port:#x} {value:#x}"])
                if qtest_reaches(profile, port, sizes[letter]):
                    pit.write(port, value, 0, sizes[letter])
            drives = [int(line[-1]) for line in reply.trace if line.startswith(IRQ0)]
            assert drives == wire.levels, (letter, port)
