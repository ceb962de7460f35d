"""Known differences and reproducers that may be the same as a finding: they touch the same things.

It is where to look first, and explains nothing.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from functools import cache
from typing import Any

from harness.base import resources, yamlfile
from harness.compare.known import CheckMatch, KnownDifferences, Rule
from harness.fuzz.touched import words
from harness.guests.kinds.table import kind_of
from harness.repro import catalogue
from harness.scenario.shrink import Data

_COMMON = frozenset({"sti", "cli", "eoi", "delay_us", "line"})
"""What says nothing by itself."""
_MOST = 3


@dataclass(frozen=True)
class Resembling:
    """Ids of rules, and of entries of the catalogue."""

    rules: tuple[str, ...]
    entries: tuple[str, ...]


def of(data: Data, known: KnownDifferences) -> Resembling:
    """What resembles the scenario ``data``."""
    wanted = frozenset(words(data)) - _COMMON
    if not wanted:
        return Resembling((), ())
    alike = {name: len(touched) for name, touched in _shipped().items() if wanted <= touched}
    nearest = sorted(alike, key=lambda name: alike[name])
    rules = [rule.id for name in nearest for rule in known.rules if _is_about(rule, name)]
    entries = [id_ for name in nearest for id_, names in _of_entries().items() if name in names]
    return Resembling(tuple(dict.fromkeys(rules))[:_MOST], tuple(dict.fromkeys(entries))[:_MOST])


def _is_about(rule: Rule, scenario: str) -> bool:
    """Whether a rule names the scenario, and does not just mean all of them."""
    return isinstance(rule.what, CheckMatch) and any(
        glob.strip("*") and fnmatchcase(scenario, glob) for glob in rule.what.checks
    )


@cache
def _shipped() -> Mapping[str, frozenset[str]]:
    """What each scenario that ships with irqmatrix touches."""
    return dict(_all_words())


def _all_words() -> Iterator[tuple[str, frozenset[str]]]:
    for path in sorted((resources.configs() / "scenarios").glob("*.yaml")):
        data: Any = yamlfile.load(path).data
        for name, scenario in data["scenarios"].items():
            yield name, frozenset(words(scenario))


@cache
def _of_entries() -> Mapping[str, frozenset[str]]:
    """The scenarios of each entry of the catalogue; controls are about nothing that goes wrong."""
    found: dict[str, frozenset[str]] = {}
    for name, path in catalogue.shipped().items():
        entry = catalogue.load(path)
        if entry.kind is catalogue.EntryKind.CONTROL:
            continue
        kinds = [kind_of(case.guest) for case in entry.config().cases]

        found[name] = frozenset(one.name for kind in kinds for one in kind.scenarios)
    return found
