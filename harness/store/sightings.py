"""What a run saw: its findings, verdicts and XPASSes by their identities, and what it looked at."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Final, TypeAlias

from harness.compare.diff import Status
from harness.compare.finding import Finding
from harness.model.case import Accel, Host, Irqchip
from harness.model.verdict import CaseResult, PartResult, Verdict
from harness.store.identity import (
    CHECK,
    NOT_AS_EXPECTED,
    XPASS,
    FindingIdentity,
    Looked,
    RunSightings,
    Sighting,
)
from harness.store.result import RunResult

Lanes: TypeAlias = Mapping[tuple[str, str], str]
"""The name of a lane by its lab kernel and its QEMU, as configurations call them."""

_SERIES: Final = re.compile(r"(\d+\.\d+)\.[\d.]+.*")


def role_of(axes: Mapping[str, str | int | None], lanes: Lanes) -> str:
    """What a backend is, whatever its versions are tonight: irqchip mode and lane.

    ``split newest``.  Where there is no such lane, the names that the configuration gives QEMU and
    kernel, to the series: ``split linux 6.12``.  The usual host is not named.
    """
    irqchip, host = str(axes.get("irqchip", "")), axes.get("host")
    usual = Host.LOCAL if irqchip == Irqchip.TCG or axes.get("accel") == Accel.TCG else Host.LAB
    words = [str(host)] if host not in (None, usual.value) else []
    words.append(irqchip)
    qemu, kernel = str(axes.get("qemu") or "system"), axes.get("lab_kernel")
    if kernel is None:
        lane = next((name for (_, own), name in lanes.items() if own == qemu), None)
    else:
        lane = lanes.get((str(kernel), qemu))
    if lane is not None:
        return " ".join((*words, lane))
    if qemu != "system":
        words.append(f"qemu {_series(qemu)}")
    if kernel not in (None, "default"):
        words.append(f"linux {_series(str(kernel))}")
    return " ".join(words)


def _series(version: str) -> str:
    return _SERIES.sub(r"\1", version)


def seen_in(run: RunResult, lanes: Lanes) -> RunSightings:
    """All that ``run`` saw, each identity once, and what it looked at."""
    roles = {case.backend: role_of(case.axes, lanes) for case in run.cases}
    found = [
        *(each for finding in run.findings for each in _of_finding(finding, roles)),
        *(each for case in run.cases for each in _of_case(case, roles[case.backend])),
        *_xpasses(run, roles),
    ]
    once: dict[FindingIdentity, Sighting] = {}
    for each in found:
        first = once.setdefault(each.identity, each)
        if first is not each:
            cases = tuple(dict.fromkeys((*first.cases, *each.cases)))
            kept = each if each.is_problem and not first.is_problem else first
            once[each.identity] = replace(kept, cases=cases)
    return RunSightings(tuple(once.values()), _looked(run, roles))


# --- Findings of comparisons ----------------------------------------------------------------------


def _of_finding(finding: Finding, roles: Mapping[str, str]) -> Iterator[Sighting]:
    """The finding in each subject whose backends differ."""
    subjects = dict.fromkeys(m.subject for group in finding.groups for m in group.members)
    for subject in subjects:
        groups = [
            (group, own)
            for group in finding.groups
            if (own := [member for member in group.members if member.subject == subject])
        ]
        if len(groups) < 2:
            continue
        named = sorted(
            tuple(sorted({roles.get(m.backend, m.backend) for m in own})) for _, own in groups
        )
        text = "; ".join(
            f"{group.label or ', '.join(m.backend for m in own)}: {_first_line(group.saw)}"
            for group, own in groups
        )
        yield Sighting(
            FindingIdentity(subject, finding.part, kind_of(finding), tuple(named)),
            finding.family,
            finding.status.value,
            finding.status is Status.UNEXPLAINED,
            text,
            tuple(member.id for _, own in groups for member in own),
            finding.rule,
        )


def kind_of(finding: Finding) -> str:
    """The kind of its identities."""
    if finding.counter is None:
        return CHECK
    is_storm = finding.counter.startswith("storm/")
    word, path = ("storm", finding.counter[6:]) if is_storm else ("counter", finding.counter)
    return f"{word} {path} [{finding.source}]"


# --- Verdicts -------------------------------------------------------------------------------------


def _of_case(case: CaseResult, role: str) -> Iterator[Sighting]:
    if case.as_expected:
        return
    wrong = [part for part in case.parts if not part.as_expected and part.was_reached]
    whole_is_wrong = case.expected is not None and case.verdict is not case.expected
    if not wrong or whole_is_wrong:
        whole = PartResult("", case.verdict, case.full_detail, case.expected, blame=case.blame)
        wrong = [whole, *wrong]
    for part in wrong:
        is_xpass = part.verdict is Verdict.PASS
        kind = XPASS if is_xpass else part.verdict.value
        blame = f" (looks like {part.blame})" if part.blame is not None else ""
        said = f"should be {part.expected}, is " if part.expected is not None else ""
        detail = f": {_first_line(part.detail)}" if part.detail else ""
        yield Sighting(
            FindingIdentity(case.subject, part.id, kind, ((role,),)),
            case.family or case.subject,
            XPASS if is_xpass else NOT_AS_EXPECTED,
            True,
            f"{said}{part.verdict}{blame}{detail}",
            (case.id,),
        )


def _first_line(text: str) -> str:
    return text.partition("\n")[0]


# --- Known bugs that no longer show ---------------------------------------------------------------


def _xpasses(run: RunResult, roles: Mapping[str, str]) -> Iterator[Sighting]:
    for rule in run.rules:
        if rule.xpass:
            identity = FindingIdentity(RULES, rule.rule, XPASS, ((_role(rule.backend, roles),),))
            text = f"the known bug no longer shows on {rule.backend}: {rule.link}"
            yield Sighting(identity, RULES, XPASS, False, text, (), rule.rule)


RULES: Final = "known differences"
"""What stands for the subject of a rule."""


def _role(backend: str, roles: Mapping[str, str]) -> str:
    return roles.get(backend, backend)


# --- What was looked at ---------------------------------------------------------------------------

_SAYS_NOTHING: Final = frozenset({Verdict.SKIP, Verdict.ERROR, Verdict.INCOMPLETE})


def looked_at(run: RunResult) -> dict[str, frozenset[str]]:
    """The parts that each case reached or was compared in, by its id.

    The empty name is the case as a whole; one that did not run has nothing.
    """
    compared: dict[tuple[str, str], set[str]] = {}
    for each in run.comparisons:
        for backend in each.backends:
            compared.setdefault((each.subject, backend), set()).update(each.workloads, each.checks)
    found = {}
    for case in run.cases:
        if case.verdict in _SAYS_NOTHING:
            found[case.id] = frozenset[str]()
            continue
        own = {part.id for part in case.parts if part.was_reached}
        found[case.id] = frozenset(own | compared.get((case.subject, case.backend), set()) | {""})
    return found


def _looked(run: RunResult, roles: Mapping[str, str]) -> Looked:
    found: dict[tuple[str, str], frozenset[str]] = {}
    parts = looked_at(run)
    for case in run.cases:
        key = case.subject, roles[case.backend]
        found[key] = found.get(key, frozenset()) | parts[case.id]
    for rule in run.rules:
        key = RULES, _role(rule.backend, roles)
        found[key] = found.get(key, frozenset()) | {rule.rule}
    return found
