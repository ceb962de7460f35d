"""Which scenarios a configuration means: files by pattern, scenarios by name, a boot by CPUs."""

from __future__ import annotations

import fnmatch
from collections.abc import Iterable, Sequence
from pathlib import Path

from harness.base import paths, resources
from harness.base.errors import ConfigError
from harness.scenario import compile as scenario_compile
from harness.scenario.program import Scenario


def find(pattern: str, beside: Path) -> tuple[Path, ...]:
    """The files that ``pattern`` means, in the order of their names.

    A relative one is looked for below the folder ``beside``, then below the working directory,
    then, with or without ``configs/`` before it, among those that ship with irqmatrix.
    :class:`HarnessError` where that cannot be done.
    """
    if found := paths.matching(pattern, (beside, Path())):
        return found
    shipped = pattern.removeprefix("configs/")
    return paths.matching(shipped, (resources.configs(),)) if shipped else ()


def load(files: Iterable[Path]) -> tuple[Scenario, ...]:
    """The scenarios of ``files``, each file once; :class:`ConfigError` for a name given twice."""
    found: dict[str, Scenario] = {}
    for path in dict.fromkeys(path.resolve() for path in files):
        for scenario in scenario_compile.load(path):
            if (other := found.get(scenario.name)) is not None:
                raise ConfigError(
                    f"duplicate scenario {scenario.name!r}",
                    f"the other one is in {other.path}",
                    "a scenario's name is its id in every report",
                    path=path,
                )
            found[scenario.name] = scenario
    return tuple(found.values())


def selected(scenarios: Iterable[Scenario], names: Sequence[str]) -> tuple[Scenario, ...]:
    """Those whose name matches one of the globs ``names``; all where there are none."""
    return tuple(
        scenario
        for scenario in scenarios
        if not names or any(fnmatch.fnmatchcase(scenario.name, name) for name in names)
    )


def by_cpus(scenarios: Iterable[Scenario]) -> dict[int, tuple[Scenario, ...]]:
    """For a boot each: the scenarios that need this number of CPUs, no more and no fewer."""
    groups: dict[int, list[Scenario]] = {}
    for scenario in scenarios:
        groups.setdefault(scenario.program.cpus, []).append(scenario)
    return {cpus: tuple(groups[cpus]) for cpus in sorted(groups)}
