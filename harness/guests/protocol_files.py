"""Result protocols as YAML: those that ship with us (``configs/protocols/``), and a user's own.

The language is described in ``docs/configuration.md``.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field

from harness.base import resources, yamlfile
from harness.base.yamlfile import Location, Strict, YamlFile
from harness.model.protocol import GROUPS, LineKind, LinePattern, Protocol, Quoted


class QuotedModel(Strict):
    """The first and the last line of a block without results."""

    begin: str
    end: str


class ProtocolModel(Strict):
    """A result protocol."""

    version: Literal[1] = 1
    name: Annotated[str, Field(pattern=r"^[\w.-]+$")] = "own"
    source: str = ""
    found_by: str | None = None
    plan_required: bool = False
    subtests: bool = False
    quoted: QuotedModel | None = None
    lines: Annotated[
        list[Annotated[dict[LineKind, str], Field(min_length=1, max_length=1)]],
        Field(min_length=1),
    ]


def load(path: Path) -> Protocol:
    """The protocol of the file ``path``; :class:`ConfigError` with its line for what is wrong."""
    file = yamlfile.load(path)
    return of_data(file, (), file.data)


def of_data(file: YamlFile, location: Location, data: object) -> Protocol:
    """The protocol that stands in ``file`` at ``location``; errors as of :func:`load`."""
    model = file.validate_part(location, ProtocolModel, data)
    for where, pattern in _patterns(model):
        _check_pattern(file, (*location, *where), pattern)
    lines = tuple(
        LinePattern(kind, pattern) for line in model.lines for kind, pattern in line.items()
    )
    if not any(line.kind in (LineKind.PASS, LineKind.FAIL) for line in lines):
        at = (*location, "lines")
        raise file.error(at, "no check could pass or fail", "there is no line for it", "add one")
    quoted = None if model.quoted is None else Quoted(model.quoted.begin, model.quoted.end)
    return Protocol(model.name, lines, model.found_by, model.plan_required, model.subtests, quoted)


def candidates(protocol: Protocol | None) -> tuple[Protocol, ...]:
    """``protocol``, or all that can be found by their lines where none was chosen."""
    return shipped() if protocol is None else (protocol,)


@cache
def shipped() -> tuple[Protocol, ...]:
    """The protocols that are found by themselves."""
    return tuple(load(path) for path in sorted(resources.configs().glob("protocols/*.yaml")))


def _patterns(model: ProtocolModel) -> Iterator[tuple[Location, str]]:
    """Every pattern, and where it stands."""
    for index, line in enumerate(model.lines):
        for pattern in line.values():
            yield ("lines", index), pattern
    if model.found_by is not None:
        yield ("found_by",), model.found_by
    if model.quoted is not None:
        yield ("quoted", "begin"), model.quoted.begin
        yield ("quoted", "end"), model.quoted.end


def _check_pattern(file: YamlFile, location: Location, pattern: str) -> None:
    try:
        with warnings.catch_warnings(action="error"):
            compiled = re.compile(f"(?:{pattern})")  # as it is joined with others
    except (re.error, FutureWarning, OverflowError, RecursionError) as error:
        what = f"{pattern!r} is not a regular expression"
        raise file.error(location, what, str(error)) from None
    if unknown := sorted(compiled.groupindex.keys() - GROUPS):
        known = ", ".join(sorted(GROUPS))
        raise file.error(location, f"unknown group {unknown[0]!r}", None, f"known: {known}")
    if compiled.match("") is not None:
        raise file.error(location, f"{pattern!r} matches every line", "it matches an empty one")
