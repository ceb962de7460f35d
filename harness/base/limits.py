"""How much of what comes from outside is taken: one limit each, settable in the environment.

``IRQMATRIX_LIMITS="trace_mib=512 console_mib=64"`` raises two of them. What is cut says so, and
names its limit. The table is in ``docs/reliability.md``.
"""

from __future__ import annotations

import functools
import os
import re
from dataclasses import dataclass, fields, replace
from typing import Final

from harness.base import suggest
from harness.base.errors import ConfigError

VARIABLE: Final = "IRQMATRIX_LIMITS"
MIB: Final = 1 << 20


@dataclass(frozen=True)
class Limits:
    """Every limit and its default. What is over one is refused, or cut where it says so."""

    yaml_mib: int = 16
    """A configuration, or another YAML file."""
    yaml_nodes: int = 1_000_000
    """Its values, each counted as often as an alias repeats it."""
    yaml_depth: int = 100
    """How deep they are nested."""
    json_mib: int = 512
    """A JSON file that is read whole."""
    cases: int = 100_000
    """Of one configuration, repetitions included."""
    image_mib: int = 1024
    """A flat image."""
    trace_mib: int = 128
    """QEMU's own trace, of one boot: cut."""
    console_mib: int = 16
    """A guest's console, of one boot: the guest is ended."""
    stderr_kib: int = 256
    """What QEMU says on standard error: cut in the middle."""
    archive_mib: int = 256
    """A case's folder as it comes from another machine, compressed: the case is an error."""
    unpacked_mib: int = 4096
    """The same, unpacked."""
    worker_s: int = 60
    """How long a case waits for a worker of a cluster that can run it: ``skip``, or ``error``."""
    judging_s: int = 900
    """For judging a case that was recorded: verdict ``error``."""
    detail_characters: int = 2000
    """The detail of a verdict: cut in the middle."""
    line_characters: int = 300
    """A console line in a detail: cut in the middle."""


def current() -> Limits:
    """The limits of this process; :class:`ConfigError` where the variable sets no limit."""
    return parsed(os.environ.get(VARIABLE, ""))


@functools.lru_cache(maxsize=8)
def parsed(text: str) -> Limits:
    """The limits with those that ``text`` sets: ``name=number``, separated by blanks or commas.

    :class:`ConfigError` for a name that is no limit's, or a number that is not positive.
    """
    names = [each.name for each in fields(Limits)]
    given: dict[str, int] = {}
    for word in re.split(r"[\s,]+", text.strip()) if text.strip() else ():
        name, _, number = word.partition("=")
        if name not in names:
            raise ConfigError(f"{VARIABLE}: no limit {name!r}", None, suggest.nearest(name, names))
        if re.fullmatch(r"[1-9][0-9]{0,11}", number, re.ASCII) is None:
            raise ConfigError(f"{VARIABLE}: {word!r}", "expected a positive whole number")
        given[name] = int(number)
    return replace(Limits(), **given)


def hint(name: str) -> str:
    """What to do about the limit ``name``."""
    return f"{VARIABLE}={name}=N sets another limit"
