"""What of KVM no lab can reach, and why: ``configs/coverage/cannot-reach.yaml``.

A condition of the source, and the code that needs it::

    - id: apicv
      needs: APICv or AVIC          # in a few words
      why: >                        # why no lab has it, and where the source asks for it
        ...
      functions:                    # whole functions, by file
        arch/x86/kvm/lapic.c: [kvm_apic_update_apicv]
      lines:                        # of others, by the kernel's version and by file
        "6.1.192": {arch/x86/kvm/lapic.c: [98, 100-103]}

A function is from the line that it is declared in to that of the next one.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Final, Literal

from pydantic import BeforeValidator, Field

from harness.base import resources, yamlfile
from harness.base.yamlfile import Strict
from harness.model.coverage import LineTable, SourceLine

FILE: Final = "cannot-reach.yaml"

_Text = Annotated[str, Field(min_length=10)]
_Range = Annotated[str, BeforeValidator(str), Field(pattern=r"^\d+(-\d+)?$")]


class ConditionModel(Strict):
    """A condition as it stands in the file."""

    id: Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9-]*$")]
    needs: _Text
    why: _Text
    functions: dict[str, list[str]] = {}
    lines: dict[str, dict[str, list[_Range]]] = {}


class FileModel(Strict):
    """The whole file."""

    version: Literal[1]
    conditions: list[ConditionModel]


@dataclass(frozen=True)
class Condition:
    """What code needs that no lab has."""

    id: str
    needs: str
    why: str


def shipped(table: LineTable) -> Mapping[SourceLine, Condition]:
    """The lines of a build that no lab can reach, as far as that is known."""
    return load(resources.configs() / "coverage" / FILE, table)


def load(path: Path, table: LineTable) -> Mapping[SourceLine, Condition]:
    """As a file says; :class:`ConfigError` for what is wrong in it."""
    found: dict[SourceLine, Condition] = {}
    for model in yamlfile.load(path).validate(FileModel).conditions:
        condition = Condition(model.id, model.needs, " ".join(model.why.split()))
        for line in _lines_of(model, table):
            found.setdefault(line, condition)
    return found


def _lines_of(model: ConditionModel, table: LineTable) -> Iterator[SourceLine]:
    """Of a version that the file does not know, those of its functions."""
    for line in table.lines:
        function = table.function_at(line)
        if function is not None and function.name in model.functions.get(line.file, ()):
            yield line
    version = table.kernel.partition("-")[0]  # of Debian's 6.1.192-3
    for file, ranges in model.lines.get(version, {}).items():
        yield from (line for line in _numbered(file, ranges) if line in table.lines)


def _numbered(file: str, ranges: Sequence[str]) -> Iterator[SourceLine]:
    for text in ranges:
        first, _, last = text.partition("-")
        yield from (
            SourceLine(file, number) for number in range(int(first), int(last or first) + 1)
        )
