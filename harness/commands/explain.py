"""The command ``explain`` after option parsing: files -> evidence -> an answer."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Final

from harness.base.errors import CollectError, ConfigError
from harness.explain import bands
from harness.explain.answer import Explanation
from harness.explain.explain import explain
from harness.explain.vm import vm_of
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

    Traces are read last: their laws depend on the mode, which another file may say.
    """
    wanted = [*((path, None) for path in asked.files), *map(_said, asked.said)]
    if not wanted:
        raise ConfigError("no file to explain", None, "irqmatrix explain FILE...")
    evidence: list[Evidence] = []
    refused: list[str] = []
    late: list[tuple[Path, FileKind]] = []
    for path, kind in wanted:
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
    if not evidence:
        raise CollectError("nothing could be read", "; ".join(refused))
    return explain(
        evidence,
        catalogue.shipped_entries(),
        bands.shipped(),
        refused=tuple(refused),
        seconds=asked.seconds,
    )


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
