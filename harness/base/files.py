"""Files that are written whole or not at all, and JSON that is checked as it is read."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any, TypeAlias, TypeVar

from pydantic import TypeAdapter, ValidationError

from harness.base import limits
from harness.base.errors import StoreError
from harness.base.text import shortened


def write_text(path: Path, text: str) -> None:
    """Write a file in UTF-8, whole or not at all; :class:`StoreError` where that cannot be."""
    write_bytes(path, text.encode())


def write_bytes(path: Path, data: bytes) -> None:
    """Write a file, whole or not at all; :class:`StoreError` where that cannot be."""
    partial = path.with_name(path.name + ".partial")
    try:
        partial.unlink(missing_ok=True)  # of one that was killed; and a link leads elsewhere
        with partial.open("xb") as file:
            file.write(data)
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


def read_text(path: Path, limit_bytes: int, what: str) -> str:
    """The UTF-8 text of a file of at most ``limit_bytes``.

    :class:`OSError` where it cannot be read, :class:`ValueError` where it is no text or too large;
    a device or a pipe has no size, and is read no further than the limit.
    """
    with path.open("rb") as file:
        data = file.read(limit_bytes + 1)
    if len(data) > limit_bytes:
        raise ValueError(f"it has more than {limit_bytes} bytes ({limits.hint(what)})")
    return data.decode("utf-8")


def parse_json(text: str | bytes) -> Any:
    """What ``text`` says; :class:`ValueError` for everything that is not JSON, or too deep."""
    try:
        return json.loads(text)
    except RecursionError:
        raise ValueError("it is nested too deeply") from None


def read_json(path: Path) -> Any:
    """What the JSON file ``path`` says; :class:`OSError`, :class:`ValueError` where it says none.

    The one way to read JSON that something else may have written.
    """
    return parse_json(read_text(path, limits.current().json_mib * limits.MIB, "json_mib"))


def first_problem(error: ValidationError) -> str:
    """What is wrong first with data of another form, and where, in one line."""
    first = error.errors(include_url=False, include_context=False)[0]
    where = ".".join(str(part) for part in first["loc"])
    found = shortened(repr(first["input"]), 100)
    return f"{where or 'it'}: {first['msg']}; found {found}"


def shorten(path: Path, limit_bytes: int) -> None:
    """Cut the middle out of a file that is longer, and say so in its place."""
    size = path.stat().st_size
    if size <= limit_bytes:
        return
    half = limit_bytes // 2
    with path.open("r+b") as file:
        file.seek(size - half)
        tail = file.read(half)
        file.seek(half)
        file.write(f"\n[irqmatrix: {size - 2 * half} bytes cut]\n".encode() + tail)
        file.truncate()


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
        data = read_json(path)
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
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        why = first_problem(error) if isinstance(error, ValidationError) else str(error)
        raise StoreError(f"{path} {otherwise}", why, "run it again") from None
