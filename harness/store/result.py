"""What a run gave: frozen types, and their one form on disk (``result.json``).

The schema is versioned; see DESIGN's "Exit status" and "Config" for the words.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

from pydantic import TypeAdapter

from harness.base.errors import StoreError
from harness.base.files import read_typed, write_text
from harness.compare.diff import Comparison, Status
from harness.compare.expectations import RuleResult
from harness.compare.finding import Finding
from harness.model.verdict import CaseResult, Verdict
from harness.store.schema2 import from_schema_2

SCHEMA: Final = 3


@dataclass(frozen=True)
class Nowhere:
    """Scenarios, checks and workloads that ran on no backend; whether that is an error."""

    parts: tuple[str, ...] = ()
    is_error: bool = False


@dataclass(frozen=True)
class Summary:
    """The counts at the end."""

    cases: int
    by_verdict: Mapping[Verdict, int]
    not_as_expected: tuple[str, ...]
    unexplained_findings: int
    exit_status: int


@dataclass(frozen=True)
class RunResult:
    """A whole run.

    ``comparisons`` say what was compared in each subject, ``findings`` what differs, each once;
    ``rules`` are the known differences that were due in this run.
    """

    schema: int
    name: str
    environment: Mapping[str, Any]
    cases: tuple[CaseResult, ...]
    comparisons: tuple[Comparison, ...]
    findings: tuple[Finding, ...]
    rules: tuple[RuleResult, ...]
    nowhere: Nowhere
    summary: Summary

    @property
    def did_not_end(self) -> bool:
        """Whether the run was ended before it had compared its cases."""
        return self.environment.get("finished", "") is None

    @property
    def losses(self) -> tuple[str, ...]:
        """The workers of a cluster that were lost under a case, each in words."""
        cluster = self.environment.get("cluster")
        return tuple(map(str, cluster.get("lost", ()))) if isinstance(cluster, dict) else ()

    def of(self, status: Status) -> tuple[Finding, ...]:
        """The findings of that status."""
        return tuple(finding for finding in self.findings if finding.status is status)

    def with_cases(self, cases: Iterable[CaseResult]) -> RunResult:
        """The same run after its ``cases`` were judged anew."""
        cases = tuple(cases)
        return replace(self, cases=cases, summary=summarised(cases, self.findings, self.nowhere))


def summarised(
    cases: Iterable[CaseResult], findings: Iterable[Finding], nowhere: Nowhere
) -> Summary:
    """The summary of a run, with its exit status (DESIGN, "Command line")."""
    cases = tuple(cases)
    counts: dict[Verdict, int] = {}
    for case in cases:
        counts[case.verdict] = counts.get(case.verdict, 0) + 1
    failed = tuple(case.id for case in cases if not case.as_expected)
    unexplained = sum(finding.status is Status.UNEXPLAINED for finding in findings)
    if all(case.verdict is Verdict.SKIP for case in cases) and not failed:
        status = 3
    else:
        status = int(bool(failed or unexplained or (nowhere.parts and nowhere.is_error)))
    return Summary(len(cases), counts, failed, unexplained, status)


_ADAPTER: Final = TypeAdapter(RunResult)


def dump(result: RunResult) -> str:
    """``result`` as JSON."""
    return _ADAPTER.dump_json(result, indent=1).decode() + "\n"


def write(result: RunResult, path: Path) -> None:
    """Write ``result``, whole or not at all; :class:`StoreError` where that cannot be."""
    write_text(path, dump(result))


def read(path: Path) -> RunResult:
    """The result in ``path``; :class:`StoreError` for a file of another kind or schema.

    A case's folder is in the run's: a result that names another one is refused.
    """
    result = read_typed(path, _ADAPTER, SCHEMA, "is not a result", {2: from_schema_2})
    for case in result.cases:
        if case.dir in ("", ".", "..") or "/" in case.dir or "\0" in case.dir:
            raise StoreError(
                f"{path} is not a result",
                f"case {case.id!r} would be in {case.dir!r}, which is not a directory of the run",
                "run it again",
            )
    return result
