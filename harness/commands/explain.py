"""The command ``explain`` after option parsing: files -> evidence -> an answer."""

from __future__ import annotations

import tempfile
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Final, TypeAlias

from harness.base.errors import CollectError, ConfigError
from harness.explain import bands
from harness.explain.answer import Explanation
from harness.explain.explain import explain
from harness.explain.vm import vm_of
from harness.record.collectors.foreign import archive
from harness.record.collectors.foreign.model import Evidence, FileKind
from harness.record.collectors.foreign.read import ReadingFacts, kind_of_file, read_file
from harness.repro import catalogue

_BEGINNING: Final = 200_000
"""Lines of a trace."""


@dataclass(frozen=True)
class ExplainOptions:
    """The options: files whose kind is found out, those whose kind is given, and what is known."""

    files: tuple[Path, ...]
    said: tuple[str, ...]
    """Each ``KIND:FILE``."""
    seconds: float | None
    events: int | None


def run(asked: ExplainOptions) -> Explanation:
    """Read all files and explain them; :class:`CollectError` where none can be read.

    Traces are read last: their laws depend on the mode, which another file may say.  The files of
    an archive are read as if they had been given one by one.
    """
    wanted: list[_Wanted] = [*((path, None) for path in asked.files), *map(_said, asked.said)]
    if not wanted:
        raise ConfigError("no file to explain", None, "irqmatrix explain FILE...")
    refused: list[str] = []
    with tempfile.TemporaryDirectory(prefix="irqmatrix-") as scratch:
        files = _without_archives(wanted, Path(scratch), refused)
        evidence = _read(files, asked, refused)
    if not evidence:
        raise CollectError("nothing could be read", "; ".join(refused))
    return explain(
        evidence,
        catalogue.shipped_entries(),
        bands.shipped(),
        refused=tuple(refused),
        seconds=asked.seconds,
    )


_Wanted: TypeAlias = tuple[Path, FileKind | None]
"""A file, and what it is where the user said it."""


def _without_archives(
    wanted: Iterable[_Wanted], scratch: Path, refused: list[str]
) -> list[_Wanted]:
    """The same, with the files of an archive, unpacked below ``scratch``, in its place."""
    files: list[_Wanted] = []
    for number, (path, kind) in enumerate(wanted):
        if kind is not FileKind.ARCHIVE and (kind is not None or not archive.is_archive(path)):
            files.append((path, kind))
            continue
        folder = scratch / str(number)
        folder.mkdir()
        try:
            for name, text in archive.members(path):
                if (found := archive.kind_of_member(name)) is not None:
                    (folder / name).write_text(text, encoding="utf-8")
                    files.append((folder / name, found))
        except CollectError as error:
            refused.append(str(error))
    return files


def _read(files: Iterable[_Wanted], asked: ExplainOptions, refused: list[str]) -> list[Evidence]:
    evidence: list[Evidence] = []
    late: list[tuple[Path, FileKind]] = []
    for path, kind in files:
        try:
            found = kind or kind_of_file(path)
            if found in (FileKind.TRACE, FileKind.TRACE_DAT):
                late.append((path, found))
            else:
                evidence += read_file(path, found, ReadingFacts(seconds=asked.seconds))
        except CollectError as error:
            refused.append(str(error))
    for path, found in late:
        vm = vm_of([*evidence, *_beginning(path, found)])
        facts = ReadingFacts(irqchip=vm.irqchip, smp=vm.smp or 1, most=asked.events)
        try:
            evidence += read_file(path, found, facts)
        except CollectError as error:
            refused.append(str(error))
    return evidence


def _beginning(path: Path, kind: FileKind) -> list[Evidence]:
    """What the first events of a trace say: the mode, where only one mode has such events."""
    try:
        return read_file(path, kind, ReadingFacts(lines=_BEGINNING))
    except CollectError:
        return []


def _said(text: str) -> tuple[Path, FileKind]:
    word, colon, path = text.partition(":")
    if not colon or word not in set(FileKind):
        raise ConfigError(f"--as {text}: not KIND:FILE", None, f"kinds are {', '.join(FileKind)}")
    return Path(path), FileKind(word)
