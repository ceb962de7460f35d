"""What the specification says of what a program touches: ``configs/fuzz/specification.yaml``."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Annotated, Any

import yaml
from pydantic import Field

from harness.base import resources, yamlfile
from harness.base.yamlfile import Strict
from harness.fuzz import touched


@dataclass(frozen=True)
class Passage:
    """One place in a specification; ``words`` are those of the program that it is about."""

    words: tuple[str, ...]
    document: str
    section: str
    says: str


class RowModel(Strict):
    """A row as it stands in the file."""

    words: Annotated[str, Field(min_length=1)]
    in_: Annotated[str, Field(alias="in")]
    section: str
    says: str


class FileModel(Strict):
    """The whole file."""

    version: Annotated[int, Field(ge=1, le=1)]
    documents: Mapping[str, str]
    rows: list[RowModel]


def passages(words: Iterable[str]) -> tuple[Passage, ...]:
    """The passages about ``words`` (:func:`harness.fuzz.touched.words`), each once."""
    table = _table()
    found: dict[tuple[str, str, str], list[str]] = {}
    for word in words:
        bare = word.removeprefix("nmi handler: ").removeprefix("handler: ").removeprefix("read ")
        row = next((row for row in table.rows if bare.startswith(row.words)), None)
        if row is not None:
            key = (table.documents[row.in_], row.section, row.says)
            found.setdefault(key, []).append(word)
    return tuple(Passage(tuple(of), *key) for key, of in found.items())


def of_steps(steps: Iterable[str]) -> tuple[Passage, ...]:
    """The passages about ``steps`` as they were written; one in another form adds none."""
    return passages(touched.words({"steps": list(_read(steps))}))


def _read(steps: Iterable[str]) -> Iterator[Any]:
    for step in steps:
        for text in (step, f"{{{step}}}"):  # "cpu: 1, read: lapic.svr" is a mapping without braces
            try:
                found = yaml.safe_load(text)
            except yaml.YAMLError:
                continue
            if isinstance(found, (dict, str)):
                yield found
            break


@cache
def _table() -> FileModel:
    return yamlfile.load(resources.configs() / "fuzz" / "specification.yaml").validate(FileModel)
