"""Recorded cases judged anew: analysis, ledger, replay, verdicts and findings, from the recordings.

Nothing is asked of this machine: no QEMU and no KVM is needed.  What comes out is put beside what
the run had said.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final, TypeAlias

from harness.analyse import blame, case_evidence
from harness.analyse.case_evidence import StoredVerdict, case_folders
from harness.base.errors import HarnessError, StoreError
from harness.compare.finding import Group
from harness.compare.known import KnownDifferences
from harness.model import manifest
from harness.model.case import Case
from harness.model.layout import CaseDir, RunDir
from harness.model.manifest import CaseFile
from harness.model.verdict import CaseResult, Verdict
from harness.record import recording_file
from harness.run import judging
from harness.run.conclusion import NOT_ASKED, compare_matrix, recorded_versions, run_result
from harness.store import case_folder, result
from harness.store.result import RunResult

FILES: Final = (
    CaseDir.events,
    CaseDir.moving,
    CaseDir.counters,
    CaseDir.snapshots,
    CaseDir.ledger,
    CaseDir.scenarios,
    CaseDir.evidence,
    CaseDir.verdict,
)
"""What is made of a recording, in the order in which one is made of another."""


@dataclass(frozen=True)
class Rejudged:
    """One case, now and as the run had it.

    ``result`` is None where it cannot be judged, for the reason ``missing``.
    """

    id: str
    directory: Path
    before: StoredVerdict | None
    """The ``verdict.json`` that the run wrote."""
    result: CaseResult | None
    missing: str | None
    changed: tuple[str, ...]
    """The files that are not the same any more, or are new."""

    @property
    def verdict(self) -> str:
        """The verdict now; that of a case without a whole recording is the run's."""
        if self.result is not None:
            return self.result.verdict.value
        return Verdict.INCOMPLETE.value if self.before is None else self.before.verdict.value

    @property
    def changes(self) -> tuple[str, ...]:
        """What became of the verdict and of its parts, in words; nothing where all is as it was."""
        if self.result is None or self.before is None:
            return ()
        now = {"": (self.result.verdict.value, self.result.full_detail)}
        now |= {part.id: (part.verdict.value, part.detail) for part in self.result.parts}
        then = {"": (self.before.verdict.value, self.before.detail)}
        then |= {part.id: (part.verdict.value, part.detail) for part in self.before.parts}
        names = dict.fromkeys([*then, *now])
        return tuple(
            _change(name, then.get(name), now.get(name))
            for name in names
            if then.get(name) != now.get(name)
        )


_NEVER_COMPARED: Final = frozenset({Verdict.SKIP, Verdict.ERROR, Verdict.INCOMPLETE})

_Said: TypeAlias = tuple[str, str]
"""A verdict and its detail."""


def _change(name: str, then: _Said | None, now: _Said | None) -> str:
    where = f"{name}: " if name else ""
    old, new = then or ("-", ""), now or ("-", "")
    words = f"{where}{old[0]} -> {new[0]}" if old[0] != new[0] else f"{where}{new[0]}"
    return f"{words}: {old[1]!r} -> {new[1]!r}" if old[1] != new[1] else words


@dataclass(frozen=True)
class RejudgedRun:
    """A run, or a single case.

    ``before`` is the ``result.json`` that the run wrote, None where there is none; ``result`` is
    what it is now, None for a case alone.
    """

    cases: tuple[Rejudged, ...]
    before: RunResult | None
    result: RunResult | None
    written: bool

    @property
    def findings(self) -> tuple[str, ...]:
        """The findings that are new (``+``) or gone (``-``).

        Not those of subjects of which a case cannot be judged any more.
        """
        if self.before is None or self.result is None:
            return ()
        unjudged = {one.directory.name for one in self.cases if one.result is None}
        lost = frozenset(
            case.subject
            for case in self.before.cases
            if case.dir in unjudged and case.verdict not in _NEVER_COMPARED
        )
        then, now = _findings(self.before, lost), _findings(self.result, lost)
        gone = [f"- {text}" for text in then if text not in now]
        return (*gone, *(f"+ {text}" for text in now if text not in then))

    @property
    def is_changed(self) -> bool:
        """Whether anything is not as the run had said."""
        return bool(self.findings) or any(case.changed for case in self.cases)

    @property
    def exit_status(self) -> int:
        """0 where all is as the run had said, else 1."""
        return int(self.is_changed)


def _members(group: Group) -> str:
    return ", ".join(dict.fromkeys(member.backend for member in group.members))


def _findings(run: RunResult, lost: frozenset[str]) -> dict[str, None]:
    """Every finding and every rule that was due, each as a line; but of subjects in ``lost``."""
    differences = (
        f"{found.status}: {found.subject}: {found.what} [{found.axis}] {found.rule or ''}: "
        + "; ".join(f"{group.label or _members(group)}: {group.saw}" for group in found.groups)
        for found in run.findings
        if not lost.intersection(
            member.subject for group in found.groups for member in group.members
        )
    )
    rules = (
        f"{rule.kind}: {rule.rule} in {rule.backend}: met {rule.met} times of {rule.due}"
        for rule in run.rules
        if not lost
    )
    return dict.fromkeys((*differences, *rules))


Finish: TypeAlias = Callable[[RunResult, Mapping[str, Case], Path], RunResult]
"""From what was found of cases in a folder to the final result."""


def rejudge(
    path: Path, known: KnownDifferences, *, write: bool = False, finish: Finish | None = None
) -> RejudgedRun:
    """Judge the case or the run in the folder ``path``; with ``write`` its files are replaced.

    A case without a complete recording keeps the result that it has, or is ``incomplete``.
    :class:`StoreError` for a folder that is neither, or has no recording at all.
    """
    path = path.resolve()
    before = _read_result(path)
    folders = _folders(path, before)
    with _scratch() as scratch:
        judged = [_rejudged(folder, scratch / folder.name) for folder in folders]
        if not any(found.result for found, _ in judged):
            raise StoreError(f"nothing in {path} can be judged", judged[0][0].missing)
        now = None
        if folders != [path]:
            now = _concluded(path, before, judged, known, scratch, finish)
        if write:
            for found, _ in judged:
                _replace(found.directory, scratch / found.directory.name)
            if now is not None:
                result.write(now, RunDir(path).result)
        return RejudgedRun(tuple(found for found, _ in judged), before, now, write)


@contextmanager
def _scratch() -> Iterator[Path]:
    """A folder for what comes out, and nothing of it left."""
    with tempfile.TemporaryDirectory(prefix="irqmatrix-judge-") as name:
        yield Path(name)


def _read_result(path: Path) -> RunResult | None:
    file = RunDir(path).result
    return result.read(file) if file.exists() else None


def _folders(path: Path, before: RunResult | None) -> list[Path]:
    """The folders of the cases: as the run lists them, and as they are."""
    if before is None:
        return case_folders(path)
    there = {found.parent for found in path.glob(f"*/{CaseDir.manifest}")}
    listed = [path / case.dir for case in before.cases]
    return [*listed, *sorted(there - set(listed))]


_Judged: TypeAlias = tuple[Rejudged, tuple[Case, CaseFile] | None]


def _rejudged(directory: Path, scratch: Path) -> _Judged:
    """The case in ``directory``, with its evidence and its verdict in ``scratch``."""
    before = _read_verdict(directory)
    try:
        recording = recording_file.load(directory)
        described = manifest.read(directory)
        scratch.mkdir()
        manifest.write(scratch, described)
        found = judging.judged(recording, described, scratch)
    except HarnessError as error:
        shutil.rmtree(scratch, ignore_errors=True)
        return Rejudged(_id(directory, before), directory, before, None, str(error), ()), None
    case_folder.write_verdict(scratch, found)
    changed = tuple(name for name in FILES if _differ(directory / name, scratch / name))
    one = Rejudged(found.id, directory, before, found, None, changed)
    return one, (recording.case, described)


def _id(directory: Path, before: StoredVerdict | None) -> str:
    """The id of a case that cannot be judged, as far as it is known."""
    if before is not None and before.id:
        return before.id
    try:
        return manifest.read(directory).id
    except StoreError:
        return directory.name


def _read_verdict(directory: Path) -> StoredVerdict | None:
    try:
        return case_evidence.read_verdict(CaseDir(directory).verdict)
    except StoreError:
        return None


def _differ(before: Path, after: Path) -> bool:
    """Whether a file is another one than it was; one that is not made anew stays as it is."""
    if not after.exists():
        return False
    return not before.exists() or before.read_bytes() != after.read_bytes()


def _replace(directory: Path, scratch: Path) -> None:
    for name in FILES:
        if (scratch / name).exists():
            partial = directory / f"{name}.partial"
            try:
                shutil.copyfile(scratch / name, partial)
                partial.replace(directory / name)
            except OSError as error:
                partial.unlink(missing_ok=True)
                raise StoreError(f"cannot write {directory / name}", error.strerror) from None


def _concluded(
    path: Path,
    before: RunResult | None,
    judged: Iterable[_Judged],
    known: KnownDifferences,
    scratch: Path,
    finish: Finish | None,
) -> RunResult:
    """The run's result: of what was judged now, and of what the run had said of the rest."""
    said = {} if before is None else {case.id: case for case in before.cases}
    by_dir = {case.dir: case for case in said.values()}
    results: list[CaseResult] = []
    recorded: dict[str, tuple[Case, CaseFile]] = {}
    for found, what in judged:
        if found.result is None or what is None:
            results.append(by_dir.get(found.directory.name) or _incomplete(found.directory))
            continue
        first = said[found.id].first_time if found.id in said else None
        results.append(replace(found.result, dir=found.directory.name, first_time=first))
        recorded[found.id] = what
    cases = {id_: case for id_, (case, _) in recorded.items()}
    versions = recorded_versions(recorded.values())
    emulated_lab = any(described.lab_qemu is not None for _, described in recorded.values())
    results = list(blame.over_run(results, emulated_lab=emulated_lab))
    compared = compare_matrix(cases.values(), results, versions, known, scratch)
    name = path.name if before is None else before.name
    environment = {} if before is None else before.environment
    nowhere = NOT_ASKED if before is None else before.nowhere
    now = run_result(name, environment, tuple(results), compared, nowhere)
    return now if finish is None else finish(now, cases, scratch)


def _incomplete(directory: Path) -> CaseResult:
    """What is known of a case that has no result and cannot be judged."""
    described = manifest.read(directory)
    return CaseResult(
        id=described.id,
        subject=described.subject,
        backend=described.backend,
        axes=described.axes,
        guest=described.kind,
        verdict=Verdict.INCOMPLETE,
        detail="its recording is not complete",
        duration_s=0.0,
        dir=directory.name,
        as_expected=False,
    )
