"""The journal of a campaign: a line for each thing that happened, never changed afterwards.

``journal.jsonl`` in the campaign's folder.  Whatever ends the campaign, every line that is whole
counts, and ``--resume`` goes on after them.

==========  ====================================================================================
kind        meaning
==========  ====================================================================================
campaign    the first line: schema, versions, and what was asked for
difference  an oracle's word about one program on one backend
round       programs up to number ``next`` (not included) were run on all sides
finding     a finding was finished; its folder is ``findings/ID``
reached     a program was the first to reach lines of KVM; it is ``corpus/PROGRAM.yaml``
==========  ====================================================================================
"""

from __future__ import annotations

import dataclasses
import json
import os
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from harness import __version__
from harness.base import files, limits
from harness.base.errors import CannotRun, ConfigError, StoreError, advice
from harness.fuzz.oracles import Difference
from harness.fuzz.reach import Kept

SCHEMA: Final = 1
NAME: Final = "journal.jsonl"


@dataclass(frozen=True)
class Campaign:
    """What decides which programs are run, where, and what they are compared with."""

    seed: int
    only: str | None
    sides: tuple[str, ...]
    machine: str
    cpu: str
    grammars: str
    """Their digest."""


@dataclass
class History:
    """What a journal says."""

    campaign: Campaign
    next: int = 0
    """The number of the first program that was not run."""
    programs: int = 0
    seconds: float = 0.0
    executed: Counter[str] = field(default_factory=Counter)
    """By side, how many programs were run."""
    differences: dict[tuple[str, str, str], Difference] = field(default_factory=dict)
    """By program, side and oracle."""
    finished: dict[str, dict[str, Any]] = field(default_factory=dict)
    """By id, what became of each finding."""
    corpus: dict[str, tuple[str, ...]] = field(default_factory=dict)
    """By program, the lines of KVM that it was the first to reach."""

    def add(self, difference: Difference) -> bool:
        """Whether it is new."""
        key = (difference.program, difference.side, difference.oracle.value)
        return self.differences.setdefault(key, difference) is difference


class Journal:
    """An open journal; :meth:`begun` or :meth:`resumed` open it."""

    def __init__(self, path: Path, history: History) -> None:
        self.history = history
        self._path = path

    @classmethod
    def begun(cls, folder: Path, campaign: Campaign) -> Journal:
        """A new one; :class:`ConfigError` where the folder has one already."""
        path = folder / NAME
        if path.exists():
            fix = "--resume DIR goes on with it; --out names another directory"
            raise ConfigError(f"{folder} has a journal already", None, fix)
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise StoreError(f"cannot write {folder}", error.strerror, advice(error)) from None
        journal = cls(path, History(campaign))
        journal._write(
            "campaign",
            {"schema": SCHEMA, "irqmatrix": __version__, **dataclasses.asdict(campaign)},
        )
        return journal

    @classmethod
    def resumed(cls, folder: Path) -> Journal:
        """That of an earlier campaign.

        :class:`ConfigError` for a folder without one; :class:`CannotRun` where it is of another
        version of irqmatrix, whose programs are others.
        """
        path = folder / NAME
        try:
            text = files.read_text(path, limits.current().json_mib * limits.MIB, "json_mib")
        except OSError as error:
            fix = "--resume takes the directory that --out named"
            raise ConfigError(f"cannot resume {folder}", error.strerror, fix) from None
        except ValueError as error:
            raise ConfigError(f"cannot resume {folder}", str(error)) from None
        whole = text[: text.rfind("\n") + 1]
        if whole != text:  # of one that was killed while it wrote
            files.write_text(path, whole)
        return cls(path, _history(folder, whole.splitlines()))

    def difference(self, difference: Difference) -> bool:
        """Write it, unless it is there; whether it was new."""
        new = self.history.add(difference)
        if new:
            self._write("difference", difference.as_json())
        return new

    def round(self, next_: int, programs: int, executed: Counter[str], seconds: float) -> None:
        """The programs before ``next_`` were run: ``programs`` more than before."""
        history = self.history
        history.next = next_
        history.programs += programs
        history.executed += executed
        history.seconds += seconds
        record = {"next": next_, "programs": programs, "executed": dict(executed)}
        self._write("round", record | {"seconds": round(seconds, 3)})

    def finding(self, id_: str, summary: dict[str, Any]) -> None:
        """A finding was finished."""
        self.history.finished[id_] = summary
        self._write("finding", {"id": id_, **summary})

    def reached(self, kept: Kept) -> None:
        """A program was the first to reach some lines of KVM."""
        record = kept.as_json()
        _add(self.history, {"kind": "reached", **record})
        self._write("reached", record)

    def _write(self, kind: str, record: dict[str, Any]) -> None:
        line = json.dumps({"kind": kind, **record}) + "\n"
        try:
            with self._path.open("a", encoding="utf-8") as file:
                file.write(line)
                file.flush()
                os.fsync(file.fileno())
        except OSError as error:
            raise StoreError(f"cannot write {self._path}", error.strerror, advice(error)) from None


def _history(folder: Path, lines: list[str]) -> History:
    try:
        first, *rest = map(files.parse_json, lines)
        if first["kind"] != "campaign":
            raise ValueError("the first line is of another kind")
        version = (first["schema"], first["irqmatrix"])
        if version != (SCHEMA, __version__):
            raise CannotRun(
                f"{folder} cannot be resumed",
                f"it is of irqmatrix {version[1]}, schema {version[0]}; this is "
                f"{__version__}, schema {SCHEMA}",
                "its programs are others: begin a new campaign",
            )
        names = {one.name for one in dataclasses.fields(Campaign)}
        campaign = Campaign(**{name: first[name] for name in names})
        history = History(dataclasses.replace(campaign, sides=tuple(first["sides"])))
        for record in rest:
            _add(history, record)
    except (ValueError, KeyError, TypeError) as error:
        raise ConfigError(f"cannot resume {folder}", f"{NAME} is no journal: {error}") from None
    return history


def _add(history: History, record: dict[str, Any]) -> None:
    match record["kind"]:
        case "difference":
            history.add(Difference.of_json(record))
        case "round":
            history.next = int(record["next"])
            history.programs += int(record["programs"])
            history.executed += Counter(record["executed"])
            history.seconds += float(record["seconds"])
        case "finding":
            history.finished[str(record["id"])] = {
                key: value for key, value in record.items() if key not in ("kind", "id")
            }
        case "reached":
            before = history.corpus.get(record["program"], ())
            history.corpus[str(record["program"])] = (*before, *map(str, record["lines"]))
        case other:
            raise ValueError(f"there is no kind {other!r}")
