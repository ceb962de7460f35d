"""``recording.json``: a :class:`Recording` on disk, beside the files that it names.

A folder with it can be analysed and judged anywhere and at any time.  It is written last: a case
that was interrupted has none.  The guest's kind is in ``case.json``, and what a probe executed in
``probe.json.zst``.
"""

from __future__ import annotations

import functools
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import zstandard
from pydantic import TypeAdapter, ValidationError

from harness.base import limits
from harness.base.errors import StoreError
from harness.base.files import Document, parse_json, read_typed, write_json
from harness.guests.kinds.table import kind_named, kind_of
from harness.model import manifest
from harness.model.case import Guest
from harness.model.layout import CaseDir
from harness.record.collectors.table import COLLECTORS
from harness.record.recording import Recording

SCHEMA: Final = 1


@dataclass(frozen=True)
class WrittenScenario:
    """A scenario in the words of its file: what it is about, and each step as it was written."""

    about: str
    steps: tuple[str, ...]


_DOCUMENT: Final = TypeAdapter(dict[str, Any])
_RECORDING: Final = TypeAdapter(Recording)
_SCENARIOS: Final = TypeAdapter(list[dict[str, Any]])


def write(recording: Recording) -> None:
    """Write ``recording.json``; :class:`StoreError` where that cannot be."""
    folder = CaseDir(recording.directory)
    document = _RECORDING.dump_python(
        recording, mode="json", exclude={"directory", "console", "stderr", "traces"}
    )
    for collector in COLLECTORS:
        path = recording.traces.get(collector.key)
        document[collector.key] = None if path is None else path.name
    if (apart := kind_of(recording.case.guest).kept_apart) is not None:
        text = json.dumps(document["case"]["guest"].pop(apart))
        try:
            folder.scenarios_run.write_bytes(zstandard.compress(text.encode()))
        except OSError as error:
            raise StoreError(f"cannot write {folder.scenarios_run}", error.strerror) from None
    write_json(folder.recording, {"schema": SCHEMA} | document)


def load(directory: Path) -> Recording:
    """The recording in a case's folder.

    :class:`StoreError` where there is none, or a part of it is missing.
    """
    path = CaseDir(directory).recording
    if not path.exists():
        raise StoreError(
            f"{directory} has no {CaseDir.recording}",
            "the case did not end, or an older irqmatrix recorded it",
            "run it again",
        )
    document = read_typed(path, _DOCUMENT, SCHEMA, "is not a recording")
    document |= {"directory": directory}
    folder = CaseDir(directory)
    document |= {"console": read_text(folder.console), "stderr": read_text(folder.stderr)}
    try:
        names = {one.key: document.pop(one.key, None) for one in COLLECTORS}
        document["traces"] = {
            key: directory / Path(name).name for key, name in names.items() if name is not None
        }
        document["case"]["guest"] = _guest(document["case"]["guest"], folder)
        return _RECORDING.validate_python(document)
    except (KeyError, TypeError, ValidationError) as error:
        why = str(error).splitlines()[0]
        raise StoreError(f"{path} is not a recording", why, "run it again") from None


def written_scenarios(directory: Path) -> dict[str, WrittenScenario]:
    """What the probe of a case executed, by its name; nothing where the case is of no probe.

    :class:`StoreError` where that cannot be read.
    """
    path = CaseDir(directory).scenarios_run
    if not path.exists():
        return {}
    try:
        found = _SCENARIOS.validate_python(_kept_apart(path))
        return {
            each["program"]["name"]: WrittenScenario(each["about"], tuple(each["steps"]))
            for each in found
        }
    except (KeyError, TypeError, ValidationError) as error:
        why = str(error).splitlines()[0]
        raise StoreError(f"{path} has no scenarios", why, "run it again") from None


def _guest(data: Document, folder: CaseDir) -> Guest:
    """The guest that :func:`write` wrote."""
    kind = kind_named(manifest.read(folder.path).kind)
    if kind.kept_apart is not None:
        data |= {kind.kept_apart: _kept_apart(folder.scenarios_run)}
    return _adapter(kind.guest_type).validate_python(data)


@functools.cache
def _adapter(guest_type: type[Guest]) -> TypeAdapter[Guest]:
    return TypeAdapter(guest_type)


def _kept_apart(path: Path) -> object:
    limit_bytes = limits.current().json_mib * limits.MIB
    try:
        with zstandard.open(path, "rb") as file:
            text = file.read(limit_bytes + 1)
        if len(text) > limit_bytes:
            raise ValueError(f"it has more than {limit_bytes} bytes ({limits.hint('json_mib')})")
        return parse_json(text)
    except (OSError, ValueError, zstandard.ZstdError) as error:
        why = str(error).splitlines()[0]
        raise StoreError(f"cannot read {path}", why, "run it again") from None


def read_text(path: Path) -> str:
    """The text of a log; nothing where there is no such file."""
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""


def drop_traces(recording: Recording) -> None:
    """Remove the raw traces of a recording that was analysed: its events stay."""
    for path in recording.traces.values():
        path.unlink(missing_ok=True)


def has_traces(recording: Recording) -> bool:
    """Whether the raw traces, of which there may be none, are all there."""
    return all(path.exists() for path in recording.traces.values())
