"""What reports say of a run, as plain data: words and lines that text, JUnit and TAP share."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final

from harness.base.emphasis import Emphasis
from harness.compare import partition
from harness.compare.diff import Status
from harness.compare.finding import Finding, Group, pattern
from harness.compare.partition import Axes
from harness.model.verdict import Blame, CaseResult, PartResult, Verdict
from harness.store.baseline import BaselineComparison, Change, State
from harness.store.identity import CHECK
from harness.store.result import RunResult

WORDS: Final[Mapping[Status, str]] = {
    Status.UNEXPLAINED: "UNEXPLAINED",
    Status.KNOWN_BUG: "known bug",
    Status.BY_DESIGN: "by design",
    Status.INFORMATIONAL: "by time",
}
EMPHASIS: Final[Mapping[Status, Emphasis]] = {
    Status.UNEXPLAINED: Emphasis.ALARM,
    Status.KNOWN_BUG: Emphasis.NOTICE,
    Status.BY_DESIGN: Emphasis.EXPLAINED,
    Status.INFORMATIONAL: Emphasis.FAINT,
}
SHOWN_BACKENDS: Final = 3
"""Number of members named of a group without a label."""


# --- Findings -----------------------------------------------------------------------------------


@dataclass(frozen=True)
class FindingView:
    """A finding in words: a headline, and a line a group."""

    headline: str
    groups: tuple[str, ...]


def finding_view(finding: Finding) -> FindingView:
    """``finding`` as every report has it."""
    head = f"{finding.subject}  {finding.what}  [{finding.axis}]"
    if finding.counter is not None and finding.status is Status.UNEXPLAINED:
        head += f"  ({finding.reason})"
    if finding.first:
        head += "; the first difference"
    if finding.left:
        head += f"; {', '.join(finding.rules)} does not explain {'; '.join(finding.left)}"
    labels = [_label(group) for group in finding.groups]
    width = max(map(len, labels))
    lines = (
        f"{label + ':':<{width + 1}} {group.saw}"
        for label, group in zip(labels, finding.groups, strict=True)
    )
    return FindingView(head, tuple(lines))


def _label(group: Group) -> str:
    """What a group is called, and how many cases are in it where that is not plain."""
    count = len(group.members)
    if group.label:
        return f"{group.label} ({count})" if count > 1 else group.label
    names = list(dict.fromkeys(member.backend for member in group.members))
    more = f" and {len(names) - SHOWN_BACKENDS} more" if len(names) > SHOWN_BACKENDS else ""
    return ", ".join(names[:SHOWN_BACKENDS]) + more


@dataclass(frozen=True)
class RuleView:
    """A rule and all that it explains."""

    rule: str
    status: Status
    reason: str
    link: str
    axes: tuple[str, ...]
    findings: int


def rule_views(findings: Iterable[Finding]) -> tuple[RuleView, ...]:
    """Each rule that explains a finding, once."""
    by_rule: dict[str, list[Finding]] = {}
    for finding in findings:
        if finding.rule is not None and finding.status is not Status.UNEXPLAINED:
            by_rule.setdefault(finding.rule, []).append(finding)
    return tuple(
        RuleView(
            rule,
            found[0].status,
            found[0].reason,
            found[0].link or "",
            tuple(dict.fromkeys(finding.axis for finding in found)),
            len(found),
        )
        for rule, found in by_rule.items()
    )


# --- What is not as expected ---------------------------------------------------------------------


@dataclass(frozen=True)
class Cause:
    """A part of a guest that is not as expected, in all the cases where it is so."""

    subject: str
    part: str
    """Empty for the case as a whole."""
    verdict: Verdict
    expected: Verdict | None
    blame: Blame | None
    detail: str
    where: str
    """What these cases have in common and no other: ``split, Linux 6.1``."""
    cases: tuple[CaseResult, ...]
    of: int
    """How many cases have that part."""

    def __str__(self) -> str:
        """One line."""
        name = f"{self.subject}  {self.part}".strip()
        what = f"should be {self.expected}, is {self.verdict}" if self.expected else self.verdict
        if self.expected is not None and self.verdict is Verdict.PASS:
            what = f"XPASS: {what}"
        if self.blame is not None:
            what += f" (looks like {self.blame})"
        if self.of > 1:
            where = f"{self.where}: " if self.where else ""
            what = f"{where}{what}, {len(self.cases)} of {self.of} cases"
        return f"{name}: {what}" + (f": {self.detail}" if self.detail else "")


_Key = tuple[str, str, str, Verdict, Verdict | None, Blame | None]


def causes(cases: Sequence[CaseResult]) -> tuple[Cause, ...]:
    """Everything that is not as expected, once for each part and verdict."""
    wrong: dict[_Key, list[tuple[CaseResult, PartResult]]] = {}
    for case in cases:
        if not case.as_expected:
            for part in to_blame(case):
                key = (
                    case.family,
                    case.group,
                    part.id,
                    part.verdict,
                    part.expected,
                    part.blame or case.blame,
                )
                wrong.setdefault(key, []).append((case, part))
    return tuple(_cause(key, found, cases) for key, found in wrong.items())


MANY: Final = 4
"""From this number on, parts that went wrong alike in the same cases are one line."""
NAMED: Final = 3
"""The number of them that are named."""


def in_few_lines(found: Sequence[Cause]) -> tuple[Cause, ...]:
    """``found`` with what only differs in its part as one cause, where there is much of it."""
    alike: dict[object, list[Cause]] = {}
    for cause in found:
        ids = tuple(case.id for case in cause.cases)
        key = (cause.subject, cause.verdict, cause.expected, cause.blame, cause.where, ids)
        alike.setdefault((*key, cause.of, bool(cause.part)), []).append(cause)
    few: list[Cause] = []
    for group in alike.values():
        few += [_all_of(group)] if len(group) >= MANY else group
    return tuple(few)


def _all_of(found: Sequence[Cause]) -> Cause:
    names = ", ".join(cause.part for cause in found[:NAMED])
    more = len(found) - NAMED
    detail = f"{names} and {more} more"
    return replace(found[0], part=f"{len(found)} parts", detail=detail)


def to_blame(case: CaseResult) -> list[PartResult]:
    """The parts that are not as they should be; where there are none, the case as a whole."""
    parts = [part for part in case.parts if not part.as_expected and part.was_reached]
    whole = PartResult("", case.verdict, case.detail, case.expected, blame=case.blame)
    if case.expected is not None and case.expected is not case.verdict:
        return [whole, *(part for part in parts if part.expected is not None)]
    return parts or [whole]


def _cause(
    key: _Key, found: Sequence[tuple[CaseResult, PartResult]], cases: Sequence[CaseResult]
) -> Cause:
    family, group, name, verdict, expected, blame = key
    own = [case for case, _ in found]
    having = [
        case
        for case in cases
        if (case.family, case.group) == (family, group)
        and (not name or any(part.id == name for part in case.parts))
    ]
    rest = [case for case in having if case not in own]
    where = ""
    if rest:
        sides = [[axes_of(case) for case in side] for side in (own, rest)]
        where = partition.separate(sides).labels[0]
    elif len(own) > 1:
        where = "everywhere"
    subjects = [case.id for case in own] if len(having) == 1 else [case.subject for case in own]
    detail = found[0][1].detail
    if missed := sum(not part.was_reached for part in own[0].parts):
        detail += f"{'; ' if detail else ''}{missed} not reached"
    return Cause(
        pattern(subjects), name, verdict, expected, blame, detail, where, tuple(own), len(having)
    )


def axes_of(case: CaseResult) -> Axes:
    """The values of a case on the axes of a finding, as the configuration names them."""
    axes = case.axes
    return {
        "irqchip": str(axes.get("irqchip", "-")),
        "QEMU": str(axes.get("qemu", "-")),
        "Linux": str(axes.get("lab_kernel") or "-"),
        "host": str(axes.get("host", "-")),
        "machine": str(axes.get("machine", "-")),
        "smp": str(axes.get("smp", "-")),
        "CPU": str(axes.get("cpu", "-")),
    }


@dataclass(frozen=True)
class Skip:
    """Cases that were not run, and why."""

    reason: str
    cases: int
    where: str
    """What they have in common and no other case has; empty where that is nothing."""

    def __str__(self) -> str:
        """One line."""
        where = f" ({self.where})" if self.where else ""
        return f"{self.cases} case{'s' if self.cases > 1 else ''}{where}: {self.reason}"


def skips(cases: Sequence[CaseResult]) -> tuple[Skip, ...]:
    """The cases that were skipped as a whole, once for each reason."""
    by_reason: dict[str, list[CaseResult]] = {}
    for case in cases:
        if case.verdict is Verdict.SKIP and case.as_expected:
            by_reason.setdefault(case.detail, []).append(case)
    found = []
    for reason, skipped in by_reason.items():
        others = [case for case in cases if case not in skipped]
        sides = [[axes_of(case) for case in side] for side in (skipped, others)]
        found.append(Skip(reason, len(skipped), partition.separate(sides).labels[0]))
    return tuple(found)


# --- Since the baseline ---------------------------------------------------------------------------


@dataclass(frozen=True)
class ChangeView:
    """What became of a problem, in all subjects of a guest in which it is the same."""

    state: State
    is_regression: bool
    keys: tuple[str, ...]
    """Those of its findings, for ``irqmatrix history``."""
    subject: str
    what: str
    """The part, its kind and the groups."""
    text: str
    """What was seen, in the first of its subjects."""
    since: str
    """Since when it shows, or why it does not, and how often."""
    cases: tuple[str, ...]

    def __str__(self) -> str:
        """One line."""
        more = f" and {len(self.keys) - 1} more" if len(self.keys) > 1 else ""
        keys = f"{self.keys[0]}{more}"
        return f"{self.state}  {self.subject}  {self.what}: {self.text}  ({self.since}; {keys})"


def baseline_headline(compared: BaselineComparison) -> str:
    """What the run was compared with, and the counts: ``since the baseline ...: 2 new, 1 gone``."""
    if compared.baseline is not None:
        since = f"since the baseline {compared.baseline.name!r} (run {compared.baseline.run})"
    elif compared.previous is not None:
        since = f"since run {compared.previous}"
    else:
        since = "first run in the store"
    counts = [
        f"{count} {state}" for state in State if (count := len(change_views(compared, state)))
    ]
    if compared.counters:
        counts.append(f"{len(compared.counters)} counters left their band")
    return f"{since}: {', '.join(counts) if counts else 'nothing new'}"


def change_views(
    compared: BaselineComparison, state: State | None = None
) -> tuple[ChangeView, ...]:
    """The changes, those that are alike in several subjects as one; of one ``state``, or all."""
    alike: dict[object, list[Change]] = {}
    for change in compared.changes:
        if state in (None, change.state):
            own = change.identity
            said = since_text(change)
            key = (change.state, change.family, own.part, own.kind, own.groups, said)
            alike.setdefault(key, []).append(change)
    return tuple(map(_change_view, alike.values()))


def _change_view(changes: Sequence[Change]) -> ChangeView:
    first = changes[0]
    own = first.identity
    kind = "" if own.kind == CHECK else f" {own.kind}"
    groups = " | ".join(", ".join(group) for group in own.groups)
    return ChangeView(
        first.state,
        any(change.is_regression for change in changes),
        tuple(change.key for change in changes),
        pattern([change.identity.subject for change in changes]),
        f"{own.part or 'the whole case'}{kind} [{groups}]",
        first.text,
        since_text(first),
        tuple(case for change in changes for case in change.cases),
    )


def since_text(change: Change) -> str:
    """Since when a problem shows, or why it does not, and how often it did."""
    rate = f"in {change.rate}"
    if change.since is None:
        return f"{change.reason}; {rate}"
    if change.since.runs == 1:
        return f"for the first time; {rate}" if change.rate.seen == 1 else rate
    return f"since run {change.since.run}, {change.since.started[:10]}; {rate}"


# --- The end -------------------------------------------------------------------------------------


def counted(cases: Iterable[CaseResult]) -> str:
    """``3 pass, 1 skip``."""
    counts: dict[Verdict, int] = {}
    for case in cases:
        counts[case.verdict] = counts.get(case.verdict, 0) + 1
    return ", ".join(f"{count} {verdict}" for verdict, count in counts.items())


def conclusion(run: RunResult) -> str:
    """The first thing to know of a run; reproducers are counted apart."""
    matrix = [case for case in run.cases if not case.group]
    reproducers = [case for case in run.cases if case.group]
    said = [_as_expected("case", matrix)] if matrix else []
    if reproducers:
        said.append(_as_expected("case of reproducers", reproducers, "cases of reproducers"))
    if unexplained := len(run.of(Status.UNEXPLAINED)):
        said.append(f"{unexplained} unexplained finding{'s' if unexplained > 1 else ''}")
    if run.nowhere.parts and run.nowhere.is_error:
        said.append(f"{len(run.nowhere.parts)} ran nowhere")
    return "; ".join(said)


def _as_expected(name: str, cases: Sequence[CaseResult], names: str = "cases") -> str:
    called = name if len(cases) == 1 else names
    if bad := sum(not case.as_expected for case in cases):
        return f"{len(cases)} {called}: {bad} not as expected ({counted(cases)})"
    how = counted(cases)
    odd = f" ({how})" if any(case.verdict is not Verdict.PASS for case in cases) else ""
    return f"{len(cases)} {called}, {'all ' if len(cases) > 1 else ''}as expected{odd}"
