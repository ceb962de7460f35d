"""What a run gave: frozen types, and their one form on disk (``result.json``).

The schema is versioned; see DESIGN's "Exit status" and "Config" for the words.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Any, Final, TypeVar

from pydantic import TypeAdapter, ValidationError

from harness.case import Case, kind_of
from harness.diff import DiffResult
from harness.errors import StoreError
from harness.known import Kind

SCHEMA: Final = 2


class Verdict(StrEnum):
    """What is said of a case or of a part of it, from harmless to grave."""

    PASS = "pass"
    SKIP = "skip"
    FAIL = "fail"
    """The guest's own check failed."""
    STORM = "storm"
    STUCK = "stuck"
    LOST = "lost"
    MISROUTED = "misrouted"
    DIVERGED = "diverged"
    HANG = "hang"
    CRASH = "crash"
    ERROR = "error"
    """It could not be run or not be judged; says nothing of the subject."""


_GRAVITY: Final = {verdict: rank for rank, verdict in enumerate(Verdict)}


NOT_REACHED: Final = "not reached"
"""The detail of a part that the case did not live to see."""


@dataclass(frozen=True)
class PartResult:
    """A workload of a Linux guest, or a check of a flat image."""

    id: str
    verdict: Verdict
    detail: str = ""
    expected: Verdict | None = None
    """What the configuration says it has to be, where it says so."""
    metrics: Mapping[str, int | float | str] = field(default_factory=dict)

    @property
    def as_expected(self) -> bool:
        """Whether it is what it should be."""
        if self.expected is not None:
            return self.verdict is self.expected
        return self.verdict in (Verdict.PASS, Verdict.SKIP)


@dataclass(frozen=True)
class CaseResult:
    """One case: what became of it, and where its files are (below the run directory)."""

    id: str
    subject: str
    backend: str
    axes: Mapping[str, str | int | None]
    guest: str
    verdict: Verdict
    detail: str
    duration_s: float
    dir: str
    parts: tuple[PartResult, ...] = ()
    observations: Mapping[str, str] = field(default_factory=dict)
    """What the monitor told of the chips themselves, by id."""
    as_expected: bool = True
    expected: Verdict | None = None
    """What the configuration says the case as a whole has to be, where it says so."""
    first_time: str | None = None
    """What it was the first time, where it was run again because that was not as expected."""

    @property
    def unsteady(self) -> bool:
        """Whether it is as expected now and was not the first time."""
        return self.as_expected and self.first_time is not None


def of_case(
    case: Case,
    verdict: Verdict,
    detail: str,
    duration_s: float,
    *,
    parts: tuple[PartResult, ...] = (),
    observations: Mapping[str, str] | None = None,
    as_expected: bool = True,
    expected: Verdict | None = None,
) -> CaseResult:
    """The result of ``case``, which is in the folder of its name."""
    return CaseResult(
        id=case.id,
        subject=case.subject,
        backend=case.backend.name,
        axes=case.axes,
        guest=kind_of(case.guest),
        verdict=verdict,
        detail=detail,
        duration_s=round(duration_s, 3),
        dir=case.directory_name,
        parts=parts,
        observations=dict(observations or {}),
        as_expected=as_expected,
        expected=expected,
    )


def judged(parts: Iterable[PartResult]) -> Verdict:
    """The gravest verdict of ``parts``; where some passed, the skipped ones do not count."""
    verdicts = {part.verdict for part in parts}
    if Verdict.PASS in verdicts:
        verdicts.discard(Verdict.SKIP)
    return max(verdicts, key=_GRAVITY.__getitem__, default=Verdict.PASS)


@dataclass(frozen=True)
class RuleResult:
    """A known difference in one backend: in how many comparisons it was due, in how many met."""

    rule: str
    kind: Kind
    always: bool
    link: str
    backend: str
    due: int
    met: int

    @property
    def xpass(self) -> bool:
        """A known bug that no longer shows."""
        return self.always and not self.met and self.kind is Kind.KNOWN_BUG

    @property
    def stale(self) -> bool:
        """A difference by design that should have shown, and did not."""
        return self.always and not self.met and self.kind is Kind.BY_DESIGN


@dataclass(frozen=True)
class Summary:
    """The counts at the end."""

    cases: int
    by_verdict: Mapping[Verdict, int]
    not_as_expected: tuple[str, ...]
    unexplained_differences: int
    exit_status: int


@dataclass(frozen=True)
class RunResult:
    """A whole run."""

    schema: int
    name: str
    environment: Mapping[str, Any]
    cases: tuple[CaseResult, ...]
    diffs: tuple[DiffResult, ...]
    rules: tuple[RuleResult, ...]
    """The known differences that were due in this run."""
    summary: Summary


def summarised(cases: Iterable[CaseResult], diffs: Iterable[DiffResult]) -> Summary:
    """The summary of a run, with its exit status (DESIGN, "Command line")."""
    cases = tuple(cases)
    counts: dict[Verdict, int] = {}
    for case in cases:
        counts[case.verdict] = counts.get(case.verdict, 0) + 1
    failed = tuple(case.id for case in cases if not case.as_expected)
    unexplained = sum(len(diff.unexplained) for diff in diffs)
    if failed or unexplained:
        status = 1
    elif all(case.verdict is Verdict.SKIP for case in cases):
        status = 3
    else:
        status = 0
    return Summary(len(cases), counts, failed, unexplained, status)


_ADAPTER: Final = TypeAdapter(RunResult)


def dump(result: RunResult) -> str:
    """``result`` as JSON."""
    return _ADAPTER.dump_json(result, indent=1).decode() + "\n"


def write(result: RunResult, path: Path) -> None:
    """Write ``result``, whole or not at all; :class:`StoreError` where that cannot be."""
    write_text(path, dump(result))


def write_text(path: Path, text: str) -> None:
    """Write a file, whole or not at all; :class:`StoreError` where that cannot be."""
    partial = path.with_name(path.name + ".partial")
    try:
        partial.write_text(text, encoding="utf-8")
        partial.replace(path)
    except OSError as error:
        with contextlib.suppress(OSError):
            partial.unlink()
        raise StoreError(
            f"cannot write {path}", error.strerror, "free some space or choose another place"
        ) from None


def write_json(path: Path, data: object) -> None:
    """Write ``data`` as JSON, whole or not at all."""
    write_text(path, json.dumps(data, indent=1) + "\n")


def read(path: Path) -> RunResult:
    """The result in ``path``; :class:`StoreError` for a file of another kind or schema."""
    return read_typed(path, _ADAPTER, SCHEMA, "is not a result")


_T = TypeVar("_T")


def read_typed(path: Path, adapter: TypeAdapter[_T], schema: int, otherwise: str) -> _T:
    """What the JSON in ``path`` says; its ``schema`` has to be that.

    :class:`StoreError` for a file of another kind, of which is said what it does ``otherwise``, or
    of another schema, or that cannot be read.
    """
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
        found = data.get("schema") if isinstance(data, dict) else None
        if found != schema:
            raise StoreError(
                f"{path} has schema {found!r}", f"this irqmatrix reads {schema}", "run it again"
            )
        return adapter.validate_python(data)
    except OSError as error:
        raise StoreError(f"cannot read {path}", error.strerror) from None
    except (ValueError, ValidationError) as error:
        why = str(error).splitlines()[0]
        raise StoreError(f"{path} {otherwise}", why, "run it again") from None
