"""Which instructions of KVM ran, as a file of a case or of a run: JSON, compressed with zstandard.

Schema 1: a list of builds, each with its kernel's version, its build ID, and by section the
differences between the offsets that ran (:meth:`~harness.model.coverage.Executed.as_json`).
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Final

import zstandard

from harness.base import files, limits
from harness.base.errors import StoreError
from harness.model.coverage import Executed

SCHEMA: Final = 1


def write(path: Path, executed: Iterable[Executed]) -> None:
    """Whole or not at all; :class:`StoreError` where it cannot be written."""
    document = {"schema": SCHEMA, "executed": [one.as_json() for one in executed]}
    files.write_bytes(path, zstandard.compress(json.dumps(document).encode()))


def read(path: Path) -> tuple[Executed, ...]:
    """What :func:`write` wrote; :class:`StoreError` where the file is no such one."""
    most = limits.current().json_mib * limits.MIB
    try:
        data = zstandard.ZstdDecompressor().decompress(path.read_bytes(), max_output_size=most)
        document = files.parse_json(data)
        if document["schema"] != SCHEMA:
            raise StoreError(
                f"{path} has schema {document['schema']!r}",
                f"this irqmatrix reads {SCHEMA}",
                "record it again",
            )
        return tuple(Executed.of_json(one) for one in document["executed"])
    except OSError as error:
        raise StoreError(f"cannot read {path}", error.strerror) from None
    except (zstandard.ZstdError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise StoreError(
            f"{path} says nothing of coverage", str(error), "record it again"
        ) from None
