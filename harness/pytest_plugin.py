"""The pytest plugin: scenarios as tests, on every interrupt controller that is asked for.

A test that takes the fixture ``irqchip_result`` runs once for each scenario of its marker and each
backend of the command line::

    @pytest.mark.irqchip_scenarios("my-scenarios/*.yaml", only="msi-*")
    def test_my_scenarios(irqchip_result):
        irqchip_result.check()

    pytest --irqchip on,split,tcg

All scenarios that a session selects are run together before the first of their tests, in one boot
for each backend and number of CPUs.  Described in ``docs/pytest.md``.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

import pytest

if TYPE_CHECKING:
    from harness.config.config import RunConfig
    from harness.model.verdict import CaseResult, PartResult
    from harness.scenario.program import Scenario

# What runs guests is imported where it is used: pytest loads a plugin in every session.

IRQCHIPS: Final = ("on", "split", "off", "tcg", "pychip-on", "pychip-split", "pychip-off")
MARKER: Final = "irqchip_scenarios"
FIXTURE: Final = "irqchip_result"


@dataclass(frozen=True)
class ScenarioResult:
    """One scenario on one backend.

    ``verdict`` and ``detail`` as ``irqmatrix run`` gives them; ``log`` is what was seen, one
    event on each line; ``directory`` holds everything that was recorded.
    """

    scenario: str
    backend: str
    verdict: str
    detail: str
    log: str
    directory: Path

    def check(self) -> None:
        """Pass where the backend did what the Python chips predict; skip, or fail and say where."""
        __tracebackhide__ = True
        if self.verdict == "skip":
            pytest.skip(self.detail)
        if self.verdict != "pass":
            pytest.fail(f"{self.verdict}: {self.detail}\nrecorded in {self.directory}", False)


def pytest_addoption(parser: pytest.Parser) -> None:
    """The options of the group ``irqmatrix``."""
    group = parser.getgroup("irqmatrix", "interrupt controllers under test")
    group.addoption(
        "--irqchip",
        default="tcg",
        metavar="LIST",
        help=f"backends for {FIXTURE}: some of {', '.join(IRQCHIPS)} (default: tcg)",
    )
    group.addoption(
        "--irqchip-host",
        default="lab",
        choices=("lab", "local"),
        help="where KVM is: the virtual lab (default), or this machine",
    )
    group.addoption("--irqchip-kernel", default="default", help="the lab's kernel: its KVM")
    group.addoption("--irqchip-qemu", default="system", help="system, a version, or a path")
    group.addoption("--irqchip-machine", default="q35", choices=("q35", "pc", "microvm"))
    group.addoption("--irqchip-cpu", default="qemu64", help="QEMU's CPU model")


def pytest_configure(config: pytest.Config) -> None:
    """Make the marker known, and refuse a backend that does not exist."""
    config.addinivalue_line(
        "markers", f"{MARKER}(*files, only=()): the scenarios of the fixture {FIXTURE}"
    )
    unknown = sorted(set(_irqchips(config)) - set(IRQCHIPS))
    if unknown or not _irqchips(config):
        raise pytest.UsageError(
            f"--irqchip: {', '.join(unknown) or 'nothing'} is not a backend; there are "
            f"{', '.join(IRQCHIPS)}"
        )
    config.stash[_RUNS] = {}


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """A test for each backend and scenario; :class:`pytest.UsageError` without a marker."""
    if FIXTURE not in metafunc.fixturenames:
        return
    marker = metafunc.definition.get_closest_marker(MARKER)
    if marker is None:
        where = metafunc.definition.nodeid
        raise pytest.UsageError(f"{where}: {FIXTURE} needs @pytest.mark.{MARKER}(...)")
    only = marker.kwargs.get("only", ())
    group = _Group(
        tuple(marker.args),
        (only,) if isinstance(only, str) else tuple(only),
        metafunc.definition.path,
    )
    scenarios = _scenarios(group)
    metafunc.parametrize(
        FIXTURE,
        [
            pytest.param(_Wanted(group, irqchip, scenario.name), id=f"{irqchip}-{scenario.name}")
            for irqchip in _irqchips(metafunc.config)
            for scenario in scenarios
        ],
        indirect=True,
    )


@pytest.fixture
def irqchip_result(request: pytest.FixtureRequest) -> ScenarioResult:
    """The scenario of this test on the backend of this test, run and judged.

    The test fails where the scenarios could not be run, and is skipped on another machine type.
    """
    wanted: _Wanted = request.param
    runs = request.config.stash[_RUNS]
    if wanted.group not in runs:
        base: Path = request.getfixturevalue("tmp_path_factory").mktemp("irqmatrix")
        selected = tuple(_selected(request.session.items, wanted.group))
        runs[wanted.group] = _run(request.config, wanted.group, selected, base)
    found = runs[wanted.group].get((wanted.irqchip, wanted.scenario))
    if found is None:
        pytest.skip(f"not for machine {request.config.getoption('--irqchip-machine')}")
    return found


@dataclass(frozen=True)
class _Group:
    """What one marker asks for; scenarios of one group are run together."""

    files: tuple[str, ...]
    only: tuple[str, ...]
    test: Path


@dataclass(frozen=True)
class _Wanted:
    """The parameter of one test."""

    group: _Group
    irqchip: str
    scenario: str


_Results = Mapping[tuple[str, str], ScenarioResult]
_RUNS: Final = pytest.StashKey[dict[_Group, _Results]]()


def _irqchips(config: pytest.Config) -> tuple[str, ...]:
    text = str(config.getoption("--irqchip"))
    return tuple(dict.fromkeys(word.strip() for word in text.split(",") if word.strip()))


def _scenarios(group: _Group) -> tuple[Scenario, ...]:
    from harness.base.errors import ConfigError
    from harness.scenario import choice

    try:
        return choice.selected(choice.load(_files(group)), group.only)
    except ConfigError as error:
        raise pytest.UsageError(str(error)) from None


def _files(group: _Group) -> list[Path]:
    from harness.scenario import choice

    paths: list[Path] = []
    for pattern in group.files:
        found = choice.find(pattern, group.test.parent)
        if not found:
            raise pytest.UsageError(f"{group.test}: no file of scenarios matches {pattern!r}")
        paths += found
    return paths


def _selected(items: Iterable[pytest.Item], group: _Group) -> Iterable[_Wanted]:
    """What the session's tests want of ``group``, after all deselection."""
    for item in items:
        if isinstance(item, pytest.Function) and hasattr(item, "callspec"):
            wanted = item.callspec.params.get(FIXTURE)
            if isinstance(wanted, _Wanted) and wanted.group == group:
                yield wanted


def _run(config: pytest.Config, group: _Group, selected: Sequence[_Wanted], base: Path) -> _Results:
    """Run what is ``selected``; results by irqchip word and scenario."""
    import asyncio

    from harness.analyse.conformance import read_logs
    from harness.base.errors import HarnessError
    from harness.base.terminal import Printer
    from harness.run.pipeline import RunRequest, run

    try:
        job = RunRequest(_matrix(config, group, selected), base, only=None, jobs=1)
        result, out = asyncio.run(run(job, Printer(quiet=True), quiet=True))
    except HarnessError as error:
        pytest.fail(f"the scenarios could not be run: {error}", False)
    results: dict[tuple[str, str], ScenarioResult] = {}
    for case in result.cases:
        folder = out / case.dir
        logs = read_logs(folder)
        for part in case.parts or _of_skipped(case, selected):
            results[str(case.axes["irqchip"]), part.id] = ScenarioResult(
                part.id,
                case.backend,
                part.verdict,
                part.detail,
                logs.get(part.id) or "",
                folder,
            )
    return results


def _of_skipped(case: CaseResult, selected: Iterable[_Wanted]) -> list[PartResult]:
    """A case that could not be run says so of each of its scenarios."""
    from harness.model.verdict import PartResult

    return [
        PartResult(wanted.scenario, case.verdict, case.detail)
        for wanted in selected
        if wanted.irqchip == case.axes["irqchip"]
    ]


def _matrix(config: pytest.Config, group: _Group, selected: Sequence[_Wanted]) -> RunConfig:
    """The configuration that a matrix file would have for this."""
    import yaml

    from harness.base import yamlfile
    from harness.config.config import expand

    host = str(config.getoption("--irqchip-host"))
    cells = [
        {"host": "local", "accel": "tcg"}
        if irqchip == "tcg"
        else {"host": host, "accel": "kvm", "irqchip": irqchip}
        for irqchip in dict.fromkeys(wanted.irqchip for wanted in selected)
    ]
    axes = {name: config.getoption(f"--irqchip-{name}") for name in ("machine", "cpu")}
    names = list(dict.fromkeys(wanted.scenario for wanted in selected))
    files = [str(path) for path in _files(group)]
    document = {
        "version": 1,
        "name": "pytest",
        "matrix": cells[0] | axes,
        "include": cells[1:],
        "lab": {"kernel": config.getoption("--irqchip-kernel")},
        "qemu": config.getoption("--irqchip-qemu"),
        "guests": [{"kind": "probe", "scenarios": files, "only": names}],
    }
    return expand(yamlfile.parse(yaml.safe_dump(document), group.test))
