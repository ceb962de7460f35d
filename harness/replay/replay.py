"""Replay: a recorded case, event by event, against the Python chips.

``events.jsonl`` is streamed: what was recorded of the chips' inputs drives a
:class:`~userspace_chip.irqchip.Machine` in the case's own profile, and everything else that was
recorded has to be what the machine predicts.  KVM's trace is replayed by
:mod:`harness.replay.kvm_stimuli` (``on`` and ``split``), QEMU's of its own chips by
:mod:`harness.replay.qemu_stimuli` (``split``, ``off`` and ``tcg``), each on a machine of its own;
in between the chips' registers are compared with what the monitor showed
(:mod:`harness.replay.snapshots`).  The first disagreement ends the replay: it is a divergence,
unless something is missing from the recording before it.  See docs/replay.md.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from enum import StrEnum
from itertools import islice
from pathlib import Path
from typing import Any, Final, TypeAlias

from harness.base.errors import CollectError, ReplayRefused, StoreError
from harness.model import manifest, marks
from harness.model.case import Machine as MachineType
from harness.model.case import Vmm
from harness.model.layout import CaseDir
from harness.model.manifest import CaseFile
from harness.record.eventlog import EventLogReader, LogReport
from harness.replay import reorder, snapshots
from harness.replay.kvm_stimuli import DisagreementError, Stimuli, What
from harness.replay.lookahead import LOOKAHEAD, Lookahead, NumberedEvent
from harness.replay.profiles import not_modelled, preempts, profile_of
from harness.replay.provenance import chips_of, rules_of
from harness.replay.qemu_stimuli import QemuStimuli
from harness.replay.reorder import Move, moved
from harness.replay.shadow import SHOWN, Shadow
from harness.replay.snapshots import Look, LookedWrongError, Looking
from userspace_chip.events import EVENT_TYPES, Event, event_type
from userspace_chip.irqchip import Machine
from userspace_chip.kvm import firmware
from userspace_chip.profile import Profile
from userspace_chip.snapshot import to_json

MAX_MOVES: Final = 30
"""Number of preemptions in one recording that are looked for."""
SEEN: Final = 5
"""Number of a chip's last events shown beside its state."""


class ReplayOutcome(StrEnum):
    """What a replay found."""

    AGREED = "agreed"
    DIVERGED = "diverged"
    INCOMPLETE = "incomplete"
    """The recording has gaps or ends too early: nothing can be said of what follows them."""


@dataclass(frozen=True)
class Divergence:
    """The first disagreement.  ``recorded`` is None where the recording ended instead."""

    why: str
    source: str
    """Whose trace disagrees: kvm or qemu."""
    recorded: NumberedEvent | None
    predicted: tuple[str, ...]
    """What the model expected in that thread, as the tracer would print it."""
    before: tuple[NumberedEvent, ...]
    after: tuple[NumberedEvent, ...]
    states: Mapping[str, str]
    """The model's state of the chips concerned, each as a line of JSON."""
    seen: Mapping[str, tuple[NumberedEvent, ...]]
    """By chip: the last events that the recording has of it."""
    shown: Mapping[str, str]
    """By chip: what the monitor showed of it, where it is this that disagrees."""
    rules: tuple[str, ...]
    """The functions of ``userspace_chip`` that decided, and what they follow."""


@dataclass(frozen=True)
class Replayed:
    """``predicted`` events came out of the machines, which were fed with ``stimuli``.

    ``skipped`` ones came before the first CPU's first; ``not_compared`` ones are QEMU's, and are
    not compared.  ``looks`` of the monitor's at a chip showed what the model has.
    ``is_cut``: the log has more lines than were to be replayed.
    """

    outcome: ReplayOutcome
    predicted: int
    stimuli: int
    skipped: int
    not_compared: int
    looks: int
    divergence: Divergence | None
    is_cut: bool
    warnings: tuple[str, ...]
    snapshots: int = 0
    """After how many exits all of KVM's chips were as the model has them."""
    reordered: int = 0
    """How often a thread was taken to be stopped between an event and its effect."""

    @property
    def compared(self) -> int:
        """Events that were fed or predicted."""
        return self.predicted + self.stimuli


def replay_case(directory: Path) -> Replayed:
    """Replay the case in ``directory``.

    :class:`ReplayRefused` where nothing can be said, :class:`StoreError` and :class:`CollectError`
    for a folder or a log that cannot be used.
    """
    return replay_log(
        CaseDir(directory).events, manifest.read(directory), snapshots.read(directory)
    )


def replay_log(
    path: Path, case: CaseFile, looks: Iterable[Look], *, max_lines: int | None = None
) -> Replayed:
    """Replay the log of ``case``, or its first ``max_lines``; errors as of :func:`replay_case`."""
    if (why := not_modelled(case)) is not None:
        raise ReplayRefused("the chips do not model the case", why)
    subject, warnings = profile_of(case)
    shown = tuple(looks)

    def attempt(moves: tuple[Move, ...]) -> tuple[Replayed, tuple[NumberedEvent, ...]]:
        replay = Replay(
            subject,
            case.smp,
            microvm=case.machine is MachineType.MICROVM,
            live=case.vmm is Vmm.PYCHIP,
            looks=shown,
            warnings=warnings,
            moves=moves,
        )
        with path.open(encoding="utf-8", errors="replace") as file:
            return replay.run(file, max_lines=max_lines), replay.around

    try:
        found, around = attempt(())
        if case.smp == 1 and case.linux is not None and preempts(case.linux):
            return _reordered(found, around, attempt)
        return found
    except OSError as error:
        raise StoreError(f"cannot read {path}", error.strerror, "run the case again") from None


_Attempt: TypeAlias = Callable[[tuple[Move, ...]], tuple[Replayed, tuple[NumberedEvent, ...]]]


def _reordered(found: Replayed, around: tuple[NumberedEvent, ...], attempt: _Attempt) -> Replayed:
    """``found``, or what is found in another order of what threads traced, that goes further."""
    moves: tuple[Move, ...] = ()
    while len(moves) < MAX_MOVES and (number := _disagrees_at(found)) is not None:
        for move in reorder.candidates(around, number):
            other, near = attempt((*moves, move))
            further = _disagrees_at(other)
            if further is None or further > max(number, move.until):
                found, around, moves = other, near, (*moves, move)
                break
        else:
            break
    return replace(found, reordered=len(moves))


def _disagrees_at(found: Replayed) -> int | None:
    """Where KVM's trace disagrees, and nothing is missing before."""
    divergence = found.divergence
    if (
        found.outcome is not ReplayOutcome.DIVERGED
        or divergence is None
        or divergence.recorded is None
    ):
        return None
    return divergence.recorded.number if divergence.source == "kvm" else None


@dataclass
class _Side:
    """A machine and who feeds it; ``source`` is whose trace it replays."""

    source: str
    feeder: Stimuli | QemuStimuli
    started: bool = False
    """A CPU was seen: before that, QEMU builds its machine."""
    touched: dict[int | None, int] = field(default_factory=dict)
    """By thread, the line after which something has been outstanding."""


def _sides(subject: Profile, cpus: int, microvm: bool, live: bool) -> tuple[_Side, ...]:
    """Who is to be replayed; QEMU's trace does not tell microvm's two IOAPICs apart.

    The live chips begin as their firmware left them, and are traced from there on.
    """

    def machine() -> Machine:
        made = Machine(subject, cpus, board="microvm" if microvm else "pc")
        made.run_vapic_rom()
        if live:
            firmware.leave(made)
        return made

    sides = []
    if subject.kvm_lapic:
        sides.append(_Side("kvm", Stimuli(machine()), started=live))
    if subject.mode != "on" and not microvm:
        sides.append(_Side("qemu", QemuStimuli(machine()), started=live))
    if not sides:
        raise ReplayRefused(
            f"a case of microvm in irqchip mode {subject.mode} cannot be replayed",
            "QEMU's trace does not distinguish the machine's two IOAPICs",
            "q35 and pc can be",
        )
    return tuple(sides)


class Replay:
    """One replay of one log of ``cpus`` CPUs on ``subject``, with memory for a window of it.

    :class:`ReplayRefused` for a machine that the trace does not describe.
    """

    def __init__(
        self,
        subject: Profile,
        cpus: int,
        *,
        microvm: bool = False,
        live: bool = False,
        looks: Iterable[Look] = (),
        warnings: Iterable[str] = (),
        moves: Iterable[Move] = (),
    ) -> None:
        self.around: tuple[NumberedEvent, ...] = ()
        """Where it diverged: the lines near it."""
        self._moves = tuple(moves)
        self._subject = subject
        self._cpus = cpus
        self._warnings = list(warnings)
        self._sides = _sides(subject, cpus, microvm, live)
        self._takers = {
            name: tuple(side for side in self._sides if name in side.feeder.names)
            for name in EVENT_TYPES
        }
        machines = [side.feeder.machine for side in self._sides]
        has_ioapic = not subject.kvm_lapic or subject.mode == "on" or len(machines) == 2
        first = self._sides[0].feeder
        self._looking = Looking(
            looks,
            machines[0],
            machines[-1] if has_ioapic else None,
            first.taking.unsure if isinstance(first, QemuStimuli) else None,
        )
        self._shadow = Shadow(machines[0])
        if subject.mode == "tcg":
            self._looking.adopt_elcr()
        self._reader = EventLogReader()
        self._skipped = self._not_compared = 0
        self._doubt: tuple[int, str] | None = None
        """From which line on nothing is sure, and why."""
        self._is_cut = False

    def run(self, lines: Iterable[str], *, max_lines: int | None = None) -> Replayed:
        """Replay the log in ``lines``, which have their line ends, or the first of them.

        :class:`ReplayRefused` where no CPU was traced or the log needs what the chips lack,
        :class:`CollectError` for a file that is no log of events.
        """
        rest = iter(lines)
        lines_of_chips = self._of_chips(islice(rest, max_lines))
        window = Lookahead(moved(lines_of_chips, self._moves) if self._moves else lines_of_chips)
        number = 0
        takers, looking, shadow = self._takers, self._looking, self._shadow
        side = self._sides[0]
        for number, event in window:
            try:
                if event.name == SHOWN:
                    shadow.show(NumberedEvent(number, event))
                    continue
                if shadow.is_waiting:
                    shadow.goes_on(event.vcpu if event.source == "kvm" else None)
                if event.source == "harness":
                    looking.mark(event)
                    if marks.is_load(event):
                        for side in self._sides:
                            side.feeder.loaded()
                    continue
                for side in takers[event.name]:
                    if side.started and not side.feeder.feed(event, window):
                        side.touched[event.vcpu] = number
                if looking.waiting:
                    looking.compare()
                if shadow.is_waiting:
                    shadow.compare()
            except DisagreementError as error:
                self._refuse_unseen(event, error.predicted)
                return self._ended(
                    self._divergence(error, side, NumberedEvent(number, event), window)
                )
            except LookedWrongError as error:
                found = self._wrong_look(error, NumberedEvent(number, event), window)
                self._refuse_untraced(window)
                return self._ended(found)
        self._refuse_untraced(window)
        self._is_cut = next(rest, None) is not None
        return self._ended(None if self._is_cut else self._missing_at_end(number, window))

    def _refuse_untraced(self, window: Lookahead) -> None:
        """Refuse a log in which no CPU does anything, also further on."""
        if not any(side.feeder.count for side in self._sides) and not any(
            side.feeder.concerns(event) for _, event in window for side in self._sides
        ):
            raise ReplayRefused(
                "there is nothing to replay",
                "no CPU's events were traced",
                "see why in the case's counters.json, under missing",
            )

    def _of_chips(self, lines: Iterable[str]) -> Iterator[NumberedEvent]:
        """The events that matter, for each side from its first CPU's first on."""
        reader, last_ns, takers = self._reader, 0, self._takers
        waiting = sum(not side.started for side in self._sides)
        for event in reader.events(lines):
            if event.time_ns < last_ns:
                self._note_doubt(reader.lines, "the times go back")
            last_ns = event.time_ns
            if event.name == "lost":
                self._note_doubt(reader.lines, f"{event.text}: the tracer says so")
            if event.source == "harness" or (event.name == SHOWN and self._subject.mode == "on"):
                yield NumberedEvent(reader.lines, event)
                continue
            sides = [side for side in takers[event.name] if side.feeder.concerns(event)]
            if not sides:
                self._not_compared += event.source == "qemu"
                continue
            if waiting:
                waiting -= _start(sides, event)
                if not any(side.started for side in sides):
                    self._skipped += 1
                    continue
            if event.vcpu is not None and event.vcpu >= self._cpus:
                self._refuse_cpu(reader.lines, event.vcpu)
            yield NumberedEvent(reader.lines, event)

    def _note_doubt(self, number: int, why: str) -> None:
        if self._doubt is None:
            self._doubt = number, why

    # --- what cannot be replayed

    def _refuse_cpu(self, number: int, vcpu: int) -> None:
        raise CollectError(
            f"line {number} is of vCPU {vcpu}",
            f"the case has {self._cpus}",
            "events.jsonl and case.json are not of the same case",
        )

    def _refuse_unseen(self, event: Event, predicted: tuple[What, ...]) -> None:
        """Refuse a recording that lacks what a replay lives on."""
        if event.name == "kvm_apicv_accept_irq":
            raise ReplayRefused(
                "the case cannot be replayed",
                "its APIC is virtualised by the processor (APICv, AVIC), which injects by itself",
                "reload kvm_intel with enable_apicv=0, or kvm_amd with avic=0, and run it again",
            )
        taken = {"tcg": "hardware_int", "off": "kvm_inj_virq"}.get(self._subject.mode)
        wanted = predicted[0][0] if predicted else None
        if wanted is not None and wanted == taken and not self._sides[0].feeder.count[wanted]:
            raise ReplayRefused(
                "the case cannot be replayed",
                f"the recording does not show when a CPU takes an interrupt: it has no {taken}",
                "run it again; under TCG only Linux guests are recorded with it",
            )

    # --- what disagrees

    def _divergence(
        self, error: DisagreementError, side: _Side, found: NumberedEvent, window: Lookahead
    ) -> Divergence:
        self.around = window.around()
        name = found.event.name
        wanted = error.predicted[0][0] if error.predicted else name
        names = (wanted, name) if wanted != name else (name,)
        return Divergence(
            why=error.why,
            source=side.source,
            recorded=found,
            predicted=tuple(map(_text, error.predicted)),
            before=window.before(),
            after=window.after(),
            rules=rules_of(names),
            shown={},
            **self._chips(side, names, found.event.vcpu, window),
        )

    def _wrong_look(
        self, error: LookedWrongError, found: NumberedEvent, window: Lookahead
    ) -> Divergence:
        kvm = self._subject.kvm_lapic and any(chip.startswith("lapic") for chip in error.states)
        return Divergence(
            why=str(error),
            source="kvm" if kvm or self._subject.mode == "on" else "qemu",
            recorded=error.at or found,
            predicted=(),
            before=window.before(),
            after=window.after(),
            states=error.states,
            seen={chip: _seen(chip, window) for chip in error.states},
            shown=error.shown,
            rules=(),
        )

    def _missing_at_end(self, last: int, window: Lookahead) -> Divergence | None:
        """What never came; where the log ends meanwhile it may just have been cut off."""
        if not self._reader.report.truncated:
            try:
                self._shadow.end()
            except LookedWrongError as error:
                return self._wrong_look(error, error.at or window.last()[-1], window)
        for side in self._sides:
            for vcpu, rest in side.feeder.outstanding.items():
                if last - side.touched[vcpu] < LOOKAHEAD:
                    self._note_doubt(last, "the recording ends where more was to come")
                where = "another thread" if vcpu is None else f"the thread of vCPU {vcpu}"
                names = (rest[0][0],)
                return Divergence(
                    source=side.source,
                    why=f"it never came in {where}, since line {side.touched[vcpu]}",
                    recorded=None,
                    predicted=tuple(map(_text, rest)),
                    before=window.last(),
                    after=(),
                    rules=rules_of(names),
                    shown={},
                    **self._chips(side, names, vcpu, window),
                )
        return None

    def _chips(
        self, side: _Side, names: Iterable[str], vcpu: int | None, window: Lookahead
    ) -> dict[str, Any]:
        """The fields ``states`` and ``seen`` of a divergence that events of ``names`` make."""
        cpu, machine = vcpu or 0, side.feeder.machine
        states = {
            "lapic": machine.lapics[cpu].state,
            "vcpu": machine.vcpus[cpu].state,
            "ioapic": machine.ioapics[0].state,
            "pic": machine.pic.state,
        }
        chips = {f"{kind}{_NUMBERED.get(kind, cpu)}": kind for kind in chips_of(names)}
        return {
            "states": {chip: _one_line(states[kind]) for chip, kind in chips.items()},
            "seen": {chip: _seen(chip, window) for chip in chips},
        }

    # --- the end

    def _ended(self, divergence: Divergence | None) -> Replayed:
        report = self._reader.report
        self._note_damage(report)
        counts = [side.feeder.count for side in self._sides]
        if guesses := sum(count["guesses"] for count in counts):
            self._warnings.append(f"{guesses} times it was a guess which CPU took an interrupt")
        at = None if divergence is None else divergence.recorded
        outcome = ReplayOutcome.AGREED
        if divergence is not None:
            line = report.lines if at is None else at.number
            doubted = self._doubt is not None and self._doubt[0] <= line
            outcome = ReplayOutcome.INCOMPLETE if doubted or guesses else ReplayOutcome.DIVERGED
        elif report.truncated:
            outcome = ReplayOutcome.INCOMPLETE
        return Replayed(
            outcome=outcome,
            predicted=sum(count["predicted"] for count in counts),
            stimuli=sum(count["stimuli"] for count in counts),
            skipped=self._skipped,
            not_compared=self._not_compared,
            looks=self._looking.agreed,
            snapshots=self._shadow.agreed,
            divergence=divergence,
            is_cut=self._is_cut,
            warnings=tuple(self._warnings),
        )

    def _note_damage(self, report: LogReport) -> None:
        if report.truncated:
            self._warnings.append(f"the log is cut off in line {report.lines}")
            self._note_doubt(report.lines, "the log is cut off")
        if report.damaged:
            first = report.examples[0].number
            self._warnings.append(f"{report.damaged} damaged lines, the first is {first}")
            if self._doubt is None or first < self._doubt[0]:
                self._doubt = first, "a damaged line"
        if report.unknown:
            names = ", ".join(sorted(report.unknown))
            self._warnings.append(
                f"{sum(report.unknown.values())} events of unknown types: {names}"
            )
        if self._doubt is not None:
            number, why = self._doubt
            self._warnings.append(f"from line {number} on a disagreement proves nothing: {why}")


_NUMBERED: Final = {"ioapic": "0", "pic": ""}
"""How the chips are numbered that are not a CPU's."""


def _start(sides: Iterable[_Side], event: Event) -> int:
    """Start the sides whose first CPU this is; how many did."""
    started = 0
    for side in sides:
        if not side.started and event.vcpu is not None and event.source == side.source:
            side.started = True
            started += 1
    return started


def _seen(chip: str, window: Lookahead) -> tuple[NumberedEvent, ...]:
    """The last events of ``chip`` up to the current one."""
    kind = chip.rstrip("0123456789")
    of_cpu = None if kind in _NUMBERED else int(chip[len(kind) :])
    found = [
        line
        for line in window.behind()
        if kind in chips_of((line.event.name,)) and _is_of(line.event, of_cpu)
    ]
    return tuple(found[-SEEN:])


def _is_of(event: Event, cpu: int | None) -> bool:
    if event.name == "kvm_apic_accept_irq":
        return cpu is None or event.args[0] == cpu
    return cpu is None or event.vcpu in (cpu, None)


def _text(what: What) -> str:
    name, args = what
    return f"{name}: {event_type(name).format(args)}"


def _one_line(state: object) -> str:
    return json.dumps(json.loads(to_json(state))["state"])
