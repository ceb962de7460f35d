"""What ran on no backend at all: a scenario that each of them skipped was not tested."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from harness.guests.kinds.table import kind_of
from harness.model.case import Case
from harness.model.verdict import CaseResult, PartResult, Verdict


def ran_nowhere(cases: Iterable[Case], results: Iterable[CaseResult]) -> tuple[str, ...]:
    """The scenarios, workloads and checks of ``cases`` that none of ``results`` has run.

    Nothing can be said of a run that was cut short.
    """
    by_id = {case.id: case for case in cases}
    ended = [each for each in results if each.verdict is not Verdict.INCOMPLETE]
    if len(ended) < len(by_id):
        return ()
    planned: dict[str, None] = {}
    ran: set[str] = set()
    for result in ended:
        case = by_id[result.id]
        planned |= dict.fromkeys(_planned(case, result))
        ran |= {_name(case, part.id) for part in result.parts if _has_run(part)}
    return tuple(name for name in planned if name not in ran)


def _planned(case: Case, result: CaseResult) -> Iterator[str]:
    parts = kind_of(case.guest).parts
    names = [part.id for part in result.parts] if parts is None else parts
    return (_name(case, name) for name in names)


def _name(case: Case, part: str) -> str:
    """Scenarios and workloads are the same in every guest; a check is its image's."""
    return kind_of(case.guest).part_name(part)


def _has_run(part: PartResult) -> bool:
    return part.verdict is not Verdict.SKIP and part.was_reached
