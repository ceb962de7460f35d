"""Findings finish themselves: run again, made short, merged, placed on the axes, explained.

::

    differences ─> run again ─> the same kind together ─> minimised ─> merged by signature
                                                            └─> on further backends ─> the axis
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from harness.base.errors import CannotRun, HarnessError
from harness.compare.known import KnownDifferences, Rule, Scope
from harness.fuzz import evidence, laws, oracles, resemblance, signature
from harness.fuzz.author import Written, write
from harness.fuzz.campaign import Fuzzer
from harness.fuzz.oracles import Difference, Oracle
from harness.fuzz.placing import Member, Placer, axis_of
from harness.fuzz.programs import compiled
from harness.fuzz.resemblance import Resembling
from harness.fuzz.runner import Runner
from harness.images.cache import ImageCache
from harness.repro import bench as bench_module
from harness.repro.bench import Bench
from harness.repro.minimise import Judge, Source, smallest
from harness.scenario.finding import LogFinding
from harness.scenario.program import Scenario
from harness.scenario.shrink import Data

RERUNS: Final = 3
REPRESENTATIVES: Final = 3
"""Programs of one kind of difference that are minimised; the others are counted with them."""
MOST: Final = 12
"""Programs that are minimised in all."""
GUEST: Final = "probe-fuzz"
"""What rules of known differences call the guest of a finding."""


@dataclass(frozen=True)
class Shown:
    """A difference that was run again; ``shown`` of ``asked`` executions showed it."""

    difference: Difference
    written: Written
    shown: int
    asked: int

    @property
    def is_flaky(self) -> bool:
        """Whether no other execution than the first showed it, or the log is never the same."""
        return self.shown <= 1 or self.difference.oracle is Oracle.TWICE


@dataclass(frozen=True)
class Finished:
    """A finding, with everything that a report says of it.

    ``programs`` are all that show it, with their sides; ``axis`` says what separates the backends
    that show it from those that do not.  ``rule`` explains it, ``resembling`` may be the same.
    """

    id: str
    signature: str
    shown: Shown
    text: str
    """What the minimal program shows."""
    data: Data
    scenario: Scenario
    steps_before: int
    programs: tuple[tuple[str, str], ...]
    members: tuple[Member, ...]
    axis: str
    rule: Rule | None
    resembling: Resembling
    note: str = ""

    @property
    def is_flaky(self) -> bool:
        """Whether it is not the same every time, or its minimal program shows it nowhere again."""
        gone = bool(self.members) and all(member.shows is False for member in self.members)
        return self.shown.is_flaky or gone

    @property
    def is_explained(self) -> bool:
        """Whether a known difference says why, or it is flaky."""
        return self.rule is not None or self.is_flaky


Publish = Callable[[Finished], None]


class Finisher:
    """Finishes the differences of a campaign."""

    def __init__(
        self,
        fuzzer: Fuzzer,
        cache: ImageCache,
        known: KnownDifferences,
        tell: Callable[[str], None],
        publish: Publish,
    ) -> None:
        self._fuzzer = fuzzer
        self._bench: Bench = fuzzer.bench
        self._runner = Runner(fuzzer.bench)
        self._placer = Placer(self._bench, fuzzer.sides, cache, tell)
        self._known = known
        self._tell = tell
        self._publish = publish

    async def run(self) -> list[Finished]:
        """Finish all that is not finished yet."""
        journal = self._fuzzer.journal
        done = {
            tuple(pair) for one in journal.history.finished.values() for pair in one["programs"]
        }
        left = [
            one
            for one in journal.history.differences.values()
            if (one.program, one.side) not in done
        ]
        if not left:
            return []
        self._tell(f"{len(left)} differences are run again")
        drafts = _merged(await self._minimised(await self._again(left)))
        found = await self._placed(drafts)
        for one in found:
            self._publish(one)
            journal.finding(one.id, summary(one))
        return found

    # --- run again

    async def _again(self, differences: Sequence[Difference]) -> list[Shown]:
        campaign = self._fuzzer.journal.history.campaign
        grammars = self._fuzzer.source.grammars
        shown: list[Shown] = []
        by_sides: dict[tuple[str, str], list[Difference]] = {}
        for one in differences:
            by_sides.setdefault((one.side, one.against), []).append(one)
        for group in by_sides.values():
            written = [write(campaign.seed, one.number, grammars) for one in group]
            scenarios = [compiled(one.name, one.data) for one in written]
            counts = await self._counted(group, scenarios)
            shown += [
                Shown(one, of, 1 + count, 1 + RERUNS)
                for one, of, count in zip(group, written, counts, strict=True)
            ]
        return shown

    async def _counted(
        self, group: Sequence[Difference], scenarios: Sequence[Scenario]
    ) -> list[int]:
        """How many of the reruns show each difference; all are of the same two sides."""
        side = bench_module.parse(group[0].side)
        sides = [side]
        if group[0].oracle is Oracle.BACKENDS:
            sides.append(bench_module.parse(group[0].against))
        ran = await self._runner.run(sides, list(scenarios) * RERUNS)
        number = len(group)
        return [
            sum(
                self._placer.shows(
                    one,
                    scenarios[index],
                    side,
                    *(ran[each][index + turn * number] for each in sides),
                )
                for turn in range(RERUNS)
            )
            for index, one in enumerate(group)
        ]

    # --- made short

    async def _minimised(self, shown: Sequence[Shown]) -> list[_Draft]:
        """The representatives of each kind made short; the others are counted with the first."""
        by_kind: dict[tuple[str, ...], list[Shown]] = {}
        for one in sorted(shown, key=lambda one: (one.is_flaky, len(one.written.data["steps"]))):
            key = (*one.difference.kind, str(one.is_flaky))
            by_kind.setdefault(key, []).append(one)
        chosen = {kind: _chosen(group) for kind, group in by_kind.items()}
        room, slots = MOST, asyncio.Semaphore(self._bench.stage.jobs)
        work: list[asyncio.Task[_Draft]] = []
        async with asyncio.TaskGroup() as tasks:
            for group in chosen.values():
                del group[max(room, 1) :]
                room -= len(group)
                work += [tasks.create_task(self._draft(one, slots)) for one in group]
        drafts = iter([task.result() for task in work])
        return [
            draft
            for kind, group in by_kind.items()
            for draft in _with_the_rest(kind, group, [next(drafts) for _ in chosen[kind]])
        ]

    async def _draft(self, shown: Shown, slots: asyncio.Semaphore) -> _Draft:
        difference, written = shown.difference, shown.written
        data, note = written.data, ""
        if not _stays_whole(shown):
            async with slots:
                self._tell(f"{written.name} on {difference.side}: {difference.finding.text}")
                data, note = await self._smallest(shown)
        named = signature.of(difference, data)
        programs = ((difference.program, difference.side),)
        return _Draft(named, shown, data, len(written.data["steps"]), programs, note)

    async def _smallest(self, shown: Shown) -> tuple[Data, str]:
        """What is left of the program, and what there is to say about that."""
        difference, written = shown.difference, shown.written
        comparison = evidence.of(difference, self._bench)
        scenario = compiled(written.name, written.data)
        middle, whole = _apart(written)
        source = Source(Path(written.name), written.name, middle)
        allowed = comparison.problems(scenario)
        judge = Judge(comparison, difference.finding, source, allowed, whole)
        try:
            left = await smallest(judge, lambda text: self._tell(f"  {written.name}: {text}"))
            return whole(left), ""
        except CannotRun:
            raise
        except HarnessError as error:
            return written.data, f"it could not be minimised: {error}"

    async def _placed(self, drafts: Sequence[_Draft]) -> list[Finished]:
        """Every draft with the backends that show it."""
        if not drafts:
            return []
        scenarios = [compiled(draft.id, draft.data) for draft in drafts]
        wanted = [draft.shown.difference for draft in drafts]
        members = await self._placer.placed(wanted, scenarios)
        return [
            self._finished(draft, scenario, of_draft)
            for draft, scenario, of_draft in zip(drafts, scenarios, members, strict=True)
        ]

    # --- held to what is known

    def _text(self, draft: _Draft, scenario: Scenario, members: Sequence[Member]) -> str:
        """What differs, in the words of the minimal program where it shows it."""
        difference = draft.shown.difference
        own = next((one for one in members if str(one.side) == difference.side), None)
        found: Sequence[LogFinding] = ()
        if own is not None and own.log is not None:
            if difference.oracle is Oracle.ENDS:
                step = max((event.step for event in own.log.events), default=0)
                return f"step {step}: {difference.finding.text.partition(': ')[2]}"
            if difference.oracle is Oracle.LAWS:
                found = laws.broken(scenario.program, own.log)
            else:
                found = oracles.compared(scenario, own.expected, own.log)
        texts = (one.text for one in found if one == difference.finding)
        return next(texts, difference.finding.text)

    def _finished(self, draft: _Draft, scenario: Scenario, members: Sequence[Member]) -> Finished:
        showing = [one for one in members if one.shows]
        others = [one for one in members if one.shows is False]
        axis = axis_of(showing, others)
        rule = self._rule(draft.signature, showing, others)
        return Finished(
            draft.id,
            draft.signature,
            draft.shown,
            self._text(draft, scenario, members),
            draft.data,
            scenario,
            draft.steps_before,
            draft.programs,
            tuple(members),
            axis,
            rule,
            resemblance.of(draft.data, self._known),
            draft.note,
        )

    def _rule(self, named: str, showing: Sequence[Member], others: Sequence[Member]) -> Rule | None:
        """The rule that explains why each that shows it differs from each that does not."""
        rule: Rule | None = None
        for one in showing:
            for other in others or [one]:
                scope = Scope(one.facts, other.facts, GUEST, GUEST)
                rule = self._known.for_check(scope, named, ("", ""))
                if rule is None:
                    return None
        return rule


@dataclass(frozen=True)
class _Draft:
    """A finding before it is placed."""

    signature: str
    shown: Shown
    data: Data
    steps_before: int
    programs: tuple[tuple[str, str], ...]
    note: str

    @property
    def id(self) -> str:
        return signature.id_of(self.signature)


def _apart(written: Written) -> tuple[Data, Callable[[Data], Data]]:
    """A program without its grammar's first and last steps, and what puts those back.

    What is no chip of the model is not reset between programs; such steps do that.
    """
    steps = written.data["steps"]
    begin = len(written.grammar.begin)
    end = len(steps) - len(written.grammar.end)

    def whole(data: Data) -> Data:
        return {**data, "steps": [*steps[:begin], *data["steps"], *steps[end:]]}

    return {**written.data, "steps": steps[begin:end]}, whole


def _stays_whole(shown: Shown) -> bool:
    """Whether making it short would tell nothing."""
    return shown.is_flaky


def _chosen(group: Sequence[Shown]) -> list[Shown]:
    """Those of one kind that are made short; of what ends a boot each time, one."""
    is_slow = group[0].difference.oracle is Oracle.ENDS
    return list(group[:1]) if is_slow or _stays_whole(group[0]) else _varied(group)


def _with_the_rest(
    kind: tuple[str, ...], group: Sequence[Shown], drafts: Sequence[_Draft]
) -> list[_Draft]:
    """The drafts of a kind: each with its program's other sides, the first with what has none."""
    pairs = [(one.difference.program, one.difference.side) for one in group]
    names = [draft.shown.difference.program for draft in drafts]
    rest = tuple(pair for pair in pairs if pair[0] not in names)
    found = [
        replace(draft, programs=tuple(pair for pair in pairs if pair[0] == name))
        for draft, name in zip(drafts, names, strict=True)
    ]
    if rest:
        what = " ".join(filter(None, kind[:-1]))
        number = len({name for name, _ in rest})
        many = "more program shows" if number == 1 else "more programs show"
        note = f"{number} {many} a difference of this kind ({what}), not minimised"
        notes = "; ".join(filter(None, (found[0].note, note)))
        found[0] = replace(found[0], programs=(*found[0].programs, *rest), note=notes)
    return found


def _varied(group: Sequence[Shown]) -> list[Shown]:
    """Some of a kind: the shortest programs, of as many grammars as there are."""
    by_program: dict[str, Shown] = {}
    for one in group:
        by_program.setdefault(one.difference.program, one)
    by_grammar: dict[str, Shown] = {}
    for one in by_program.values():
        by_grammar.setdefault(one.difference.grammar, one)
    chosen = {one.difference.program: one for one in by_grammar.values()} | by_program
    return list(chosen.values())[:REPRESENTATIVES]


def _merged(drafts: Iterable[_Draft]) -> list[_Draft]:
    """One draft a signature; the shortest stands for all."""
    found: dict[str, _Draft] = {}
    for draft in sorted(drafts, key=lambda draft: len(draft.data["steps"])):
        first = found.get(draft.signature)
        if first is None:
            found[draft.signature] = draft
        else:
            notes = "; ".join(dict.fromkeys(filter(None, (first.note, draft.note))))
            programs = (*first.programs, *draft.programs)
            found[draft.signature] = replace(first, programs=programs, note=notes)
    return list(found.values())


def summary(one: Finished) -> dict[str, object]:
    """What the journal and ``--json`` say of a finding."""
    difference = one.shown.difference
    return {
        "signature": one.signature,
        "oracle": difference.oracle.value,
        "text": one.text,
        "steps": len(one.data["steps"]),
        "shown": one.shown.shown,
        "asked": one.shown.asked,
        "axis": one.axis,
        "shows": [str(member.side) for member in one.members if member.shows],
        "rule": None if one.rule is None else one.rule.id,
        "explained": one.is_explained,
        "flaky": one.is_flaky,
        "resembles": [*one.resembling.rules, *one.resembling.entries],
        "blame": difference.blame,
        "programs": [list(pair) for pair in one.programs],
    }
