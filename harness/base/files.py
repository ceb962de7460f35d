"""Files that are written whole or not at all, and JSON that is checked as it is read."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any, TypeAlias, TypeVar

from pydantic import TypeAdapter, ValidationError

from harness.base.errors import StoreError


def write_text(path: Path, text: str) -> None:
    """Write a file, whole or not at all; :class:`StoreError` where that cannot be."""
    partial = path.with_name(path.name + ".partial")
    try:
        partial.unlink(missing_ok=True)  # of one that was killed; and a link leads elsewhere
        with partial.open("x", encoding="utf-8") as file:
            file.write(text)
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


_T = TypeVar("_T")


Document: TypeAlias = dict[str, Any]
Upgrade: TypeAlias = Callable[[Document], Document]
"""From a document of one schema to the next one."""


def read_typed(
    path: Path,
    adapter: TypeAdapter[_T],
    schema: int,
    otherwise: str,
    older: Mapping[int, Upgrade] = MappingProxyType({}),
) -> _T:
    """What the JSON in ``path`` says, as of ``schema``; ``older`` ones are upgraded step by step.

    :class:`StoreError` where the file cannot be read, has a schema that is not known, or is of
    another kind; ``otherwise`` completes the last message: "FILE ``is not a result``".
    """
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
        found = data.get("schema") if isinstance(data, dict) else None
        while isinstance(found, int) and found in older:
            found += 1
            data = older[found - 1](data) | {"schema": found}
        if found != schema:
            raise StoreError(
                f"{path} has schema {found!r}", f"this irqmatrix reads {schema}", "run it again"
            )
        return adapter.validate_python(data)
    except OSError as error:
        raise StoreError(f"cannot read {path}", error.strerror) from None
    except (ValueError, KeyError, AttributeError, ValidationError) as error:
        why = str(error).splitlines()[0]
        raise StoreError(f"{path} {otherwise}", why, "run it again") from None
