"""The one direction of the data flow, as imports: see docs/architecture.md."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

import harness
import userspace_chip

LAYERS = (
    # Words and tools that know no stage.
    {"errors", "resources", "__init__", "suggest", "versions"},
    {"scenario.log", "scenario.expect", "scenario.program"},
    {
        "yamlfile",
        "case",
        "sockets",
        "process",
        "images",
        "guests.linux",
        "guests.flat",
        "guests.probe",
        "guests",
    },
    {"scenario"},
    # Configuration, command lines, hosts.
    {"launch", "config"},
    {"hosts"},
    # What is seen, and in which form.
    {"counters", "eventlog", "guests.console", "migration"},
    {"collect"},
    {"preflight", "recording"},
    {"drive"},
    {"conduct"},
    # What it means.
    {"known", "policy"},
    {"catalogue"},
    {
        "storm",
        "ledger",
        "books",
        "bookkeeper",
        "stimuli",
        "qemustimuli",
        "taking",
        "window",
        "rules",
    },
    {"diff"},
    {"result"},
    {"evidence", "casefile", "looks", "due"},
    {"modelled"},
    {"conformance"},
    {"judge", "compare", "replay", "audit", "guestview", "align"},
    {"recorded"},
    {"casediff"},
    # Who does it all, and what is shown of it.
    {"progress"},
    {"schedule", "doctor"},
    {"export.checks"},
    {"export.junit", "export.tap"},
    {"export"},
    {"subject_table"},
    {"run", "report", "diffreport", "doctor_report", "images_report", "replay_report"},
    {"repro"},
    {"repro_report", "regressions"},
    {"bundle", "bisect"},
    {"bisect_report"},
    {"repro_command", "sides"},
    {"minimise"},
    {"minimise_report"},
    {"cli", "__main__", "pytest_plugin"},
)
RANKS = {name: rank for rank, names in enumerate(LAYERS) for name in names}


def modules(package) -> list[Path]:
    folder = Path(package.__file__).parent
    return sorted(path for path in folder.rglob("*.py") if "data" not in path.parts)


def imports(path: Path) -> set[str]:
    """The modules that a file imports anywhere, by their full names."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module is not None:
            found |= {node.module} | {f"{node.module}.{alias.name}" for alias in node.names}
    return found


def layer_of(module: str) -> str | None:
    """The longest name in the table that ``module`` (without ``harness.``) is or lies below."""
    parts = module.split(".")
    names = (".".join(parts[:end]) for end in range(len(parts), 0, -1))
    return next((name for name in names if name in RANKS), None)


def name_of(path: Path) -> str:
    relative = path.relative_to(Path(harness.__file__).parent).with_suffix("")
    return ".".join(part for part in relative.parts if part != "__init__") or "__init__"


@pytest.mark.parametrize("path", modules(harness), ids=name_of)
def test_module_has_a_layer_and_imports_no_later_one(path):
    own = layer_of(name_of(path))
    assert own is not None, "give the module a place in LAYERS"
    later = {
        imported
        for imported in imports(path)
        if imported.startswith("harness.")
        and (layer := layer_of(imported.removeprefix("harness."))) is not None
        and RANKS[layer] > RANKS[own]
    }
    assert later == set()


@pytest.mark.parametrize("path", modules(userspace_chip), ids=lambda path: path.stem)
def test_chips_import_nothing_of_the_harness(path):
    assert not {name for name in imports(path) if name.split(".")[0] == "harness"}


@pytest.mark.parametrize(
    "path",
    [path for path in modules(userspace_chip) if path.parent.name != "kvm"],
    ids=lambda path: path.stem,
)
def test_chip_knows_no_clock_file_or_log(path):
    impure = {"time", "os", "io", "socket", "threading", "logging", "asyncio", "subprocess"}
    assert not imports(path) & impure
