"""A running VM -> one archive with a list of its contents; and an archive -> a redacted copy."""

from __future__ import annotations

import contextlib
import getpass
import json
import socket
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from harness import __version__
from harness.base import files
from harness.base.errors import CollectError
from harness.collect.redaction import redacted
from harness.collect.sources import Asked, CollectSource, Found, cut, gathered
from harness.record.collectors.foreign import archive

SCHEMA: Final = 1
SCRIPT: Final = Path(__file__).with_name("collect.sh")
"""What a shell can collect, in an archive of the same form."""
UNREDACTED: Final = "not redacted"
REDACTED: Final = "redacted"


@dataclass(frozen=True)
class Collected:
    """An archive's texts, what is missing and why, and whether names were replaced.

    ``replaced`` is how many different things were; None where it is not redacted.
    """

    texts: Mapping[str, str]
    missing: Mapping[str, str]
    replaced: int | None
    seconds: float | None

    @property
    def contents(self) -> dict[str, Any]:
        """The list of contents; with it, one sees what is sent without unpacking it."""
        return {
            "schema": SCHEMA,
            "irqmatrix": __version__,
            "redaction": UNREDACTED if self.replaced is None else REDACTED,
            "replaced": self.replaced,
            "seconds": self.seconds,
            "files": [
                {
                    "name": name,
                    "kind": archive.kind_of_member(name),
                    "bytes": len(text.encode("utf-8", "replace")),
                }
                for name, text in self.texts.items()
            ],
            "missing": dict(self.missing),
        }

    def write(self, path: Path) -> int:
        """Write the archive, and say how many bytes it has.

        Raises :class:`~harness.base.errors.StoreError` where that cannot be.
        """
        listed = json.dumps(self.contents, indent=1) + "\n"
        data = archive.packed({archive.CONTENTS: listed, **self.texts})
        files.write_bytes(path, data)
        return len(data)


async def collect(asked: Asked, *, redact: bool) -> Collected:
    """What can be read of the VM; names are replaced unless ``redact`` is false."""
    found = await gathered(asked)
    texts, missing = _joined(found)
    if not redact:
        return Collected(texts, missing, None, asked.seconds)
    names = {*_names_here(), *([asked.target.domain] if asked.target.domain else [])}
    return _redacted(texts, missing, names, asked.seconds)


def _joined(found: Sequence[tuple[CollectSource, Found]]) -> tuple[dict[str, str], dict[str, str]]:
    """All texts: two of one name, as of versions, are one; and all that is missing."""
    texts: dict[str, str] = {}
    missing: dict[str, str] = {}
    for source, each in found:
        for name, text in each.texts.items():
            texts[name] = cut(texts.get(name, "") + text)
        for what, why in each.missing.items():
            missing[what if what == source.name else f"{source.name}: {what}"] = why
    return texts, missing


def _names_here() -> set[str]:
    """Names of this host and of who collects; others are found in what is collected."""
    host = socket.gethostname()
    names = {host, host.partition(".")[0]}
    with contextlib.suppress(OSError, KeyError):
        names.add(getpass.getuser())
    return names


_REASON: Final = "reason"


def _redacted(
    texts: Mapping[str, str],
    missing: Mapping[str, str],
    names: Collection[str],
    seconds: float | None,
) -> Collected:
    """With its reasons redacted, too: they name files, and cite what programs said."""
    reasons = {f"{_REASON} {n}": f"{w}\n{why}" for n, (w, why) in enumerate(missing.items())}
    done = redacted({**texts, **reasons}, names)
    said = (text.partition("\n") for name, text in done.texts.items() if name in reasons)
    return Collected(
        {name: text for name, text in done.texts.items() if name not in reasons},
        {**{what: why for what, _, why in said}, **done.left_out},
        done.replaced,
        seconds,
    )


def redacted_copy(path: Path) -> Collected:
    """What is in an archive that was not redacted, redacted.

    Raises :class:`CollectError` where it is none, or is redacted already.
    """
    texts = dict(archive.members(path))
    contents = _contents(path.name, texts.pop(archive.CONTENTS, None))
    if contents.get("redaction") == REDACTED:
        raise CollectError(f"{path.name}: it is redacted already")
    if not texts:
        raise CollectError(f"{path.name}: no file of a collection is in it")
    found = contents.get("missing")
    missing = found if isinstance(found, dict) else {}
    seconds = contents.get("seconds")
    return _redacted(
        texts,
        {str(what)[:200]: str(why)[:500] for what, why in list(missing.items())[:200]},
        (),
        seconds if isinstance(seconds, int | float) else None,
    )


def _contents(name: str, text: str | None) -> dict[str, Any]:
    """The list of contents; empty where there is none, as an archive of a shell has."""
    if text is None:
        return {}
    try:
        found = files.parse_json(text)
    except ValueError as error:
        raise CollectError(f"{name}: {archive.CONTENTS} is no JSON", str(error)[:100]) from None
    return found if isinstance(found, dict) else {}
