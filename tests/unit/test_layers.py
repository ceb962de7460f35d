"""The one direction of the data flow, as imports: see docs/architecture.md."""

from __future__ import annotations

import ast
import re
from functools import cache
from pathlib import Path

import pytest

import harness
import userspace_chip
from support.sources import nodes_of
from userspace_chip import architecture

ROOMS = (
    {"base"},
    {"scenario"},
    {"model"},
    {"images", "ledger"},
    {"guests"},
    {"backends"},
    {"record"},
    {"replay"},
    {"analyse"},
    {"compare"},
    {"store"},
    {"config", "doctor"},
    {"run"},
    {"cluster"},
    {"repro"},
    {"coverage"},
    {"fuzz"},
    {"collect", "explain"},
    {"report"},
    {"commands"},
)
"""The folders of harness/, from the ground up: a room uses those before it."""
TOP = {"__init__", "__main__", "cli", "pytest_plugin"}
"""What lies beside the rooms, above all of them."""
RANKS = {name: rank for rank, names in enumerate(ROOMS) for name in names}


def modules(package) -> list[Path]:
    folder = Path(package.__file__).parent
    return sorted(path for path in folder.rglob("*.py") if "data" not in path.parts)


@cache
def imports(path: Path) -> set[str]:
    """The modules that a file imports anywhere, by their full names."""
    found = set()
    for node in nodes_of(path):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module is not None:
            found |= {node.module} | {f"{node.module}.{alias.name}" for alias in node.names}
    return found


def room_of(module: str) -> str:
    """The first folder of a module's name without ``harness.``; its own name where it lies flat."""
    return module.split(".")[0]


def name_of(path: Path) -> str:
    relative = path.relative_to(Path(harness.__file__).parent).with_suffix("")
    return ".".join(part for part in relative.parts if part != "__init__") or "__init__"


def back_imports(own: str, imported: set[str]) -> set[str]:
    """Those of ``imported`` that are of a room after ``own``'s, or beside the rooms."""
    rank = RANKS.get(room_of(own), len(ROOMS))
    names = {name.removeprefix("harness.") for name in imported if name.startswith("harness.")}
    names -= {"__version__"}
    return {name for name in names if RANKS.get(room_of(name), len(ROOMS)) > rank}


def circles(graph: dict[str, set[str]]) -> set[str]:
    """The modules that import each other, directly or over others."""
    while leaves := {name for name, needed in graph.items() if not needed & graph.keys()}:
        graph = {name: needed for name, needed in graph.items() if name not in leaves}
    return set(graph)


@pytest.mark.parametrize("path", modules(harness), ids=name_of)
def test_module_lies_in_a_room_and_imports_no_later_one(path):
    own = name_of(path)
    assert room_of(own) in RANKS or own in TOP, "give its folder a place in ROOMS"
    assert back_imports(own, imports(path)) == set()


def test_rooms_are_the_folders_of_the_harness():
    folder = Path(harness.__file__).parent
    found = {path.parent.name for path in folder.glob("*/__init__.py")}
    assert found == RANKS.keys()


ARCHITECTURE = Path(harness.__file__).parents[1] / "docs/architecture.md"


def test_picture_of_the_architecture_is_the_list_of_folders():
    picture = ARCHITECTURE.read_text(encoding="utf-8").split("```")[1]
    drawn = re.findall(r"^  (\w+)/ ", picture, re.MULTILINE)
    assert sorted(drawn) == sorted(RANKS)
    assert [RANKS[name] for name in drawn] == sorted(RANKS.values())


def test_modules_and_folders_that_the_architecture_names_are_there():
    root = ARCHITECTURE.parents[1]
    named = set(re.findall(r"`([\w/]+(?:\.py|/))`", ARCHITECTURE.read_text(encoding="utf-8")))
    bases = [root, root / "harness", *(root / "harness" / room for room in RANKS)]
    bases += [root / "userspace_chip", root / "harness/record/collectors"]
    assert len(named) > 20
    assert {name for name in named if not any((base / name).exists() for base in bases)} == set()


def test_layer_test_with_a_planted_back_import_finds_it():
    planted = {"harness.store.result", "harness.model.case", "harness.cli"}
    assert back_imports("analyse.judge", planted) == {"store.result", "cli"}


def graph_of(package) -> dict[str, set[str]]:
    """By module, those of the same package that its import runs: packages on the way, too."""
    root = Path(package.__file__).parent
    paths = {
        ".".join((package.__name__, *path.relative_to(root).with_suffix("").parts)): path
        for path in modules(package)
    }
    paths = {name.removesuffix(".__init__"): path for name, path in paths.items()}
    return {name: run_by(name, imports(path)) & paths.keys() for name, path in paths.items()}


def run_by(own: str, imported: set[str]) -> set[str]:
    """What is run by these imports in module ``own``, whose own packages run already."""
    return {each for name in imported for each in ways(name)} - ways(own)


def ways(name: str) -> set[str]:
    """A module and the packages that it is in."""
    parts = name.split(".")
    return {".".join(parts[:count]) for count in range(1, len(parts) + 1)}


@pytest.mark.parametrize("package", [harness, userspace_chip], ids=lambda package: package.__name__)
def test_modules_import_each_other_in_no_circle(package):
    assert circles(graph_of(package)) == set()


def test_circle_test_with_a_planted_import_finds_it():
    graph = graph_of(userspace_chip)
    graph["userspace_chip.architecture"] = {"userspace_chip.irqchip"}
    assert {"userspace_chip.architecture", "userspace_chip.irqchip"} <= circles(graph)


def test_circle_test_with_a_planted_import_of_a_package_finds_it():
    planted = run_by("a.view", {"a.export.checks"})
    assert planted == {"a.export", "a.export.checks"}
    assert circles({"a.view": planted, "a.export": {"a.view"}}) == {"a.view", "a.export"}


@cache
def numbers(path: Path) -> set[int]:
    """The integers that a file's code has as literals."""
    return {
        node.value
        for node in nodes_of(path)
        if isinstance(node, ast.Constant) and type(node.value) is int
    }


@pytest.mark.parametrize("package", [harness, userspace_chip], ids=lambda package: package.__name__)
def test_addresses_and_msrs_are_written_in_one_file_only(package):
    named = {
        architecture.APIC_WINDOW,
        *architecture.IOAPIC_BASES,
        architecture.ELCR,
        architecture.MSR_TSC_DEADLINE,
        architecture.MSR_KVM_PV_EOI,
    }
    home = Path(architecture.__file__)
    assert named <= numbers(home)
    found = {path.name for path in modules(package) if path != home and numbers(path) & named}
    assert found == set(), "import it from userspace_chip.architecture"


@pytest.mark.parametrize("path", modules(userspace_chip), ids=lambda path: path.stem)
def test_chips_import_nothing_of_the_harness(path):
    assert not {name for name in imports(path) if name.split(".")[0] == "harness"}


@pytest.mark.parametrize(
    "path",
    [path for path in modules(userspace_chip) if "kvm" not in path.parts],
    ids=lambda path: path.stem,
)
def test_chip_knows_no_clock_file_or_log(path):
    impure = {"time", "os", "io", "socket", "threading", "logging", "asyncio", "subprocess"}
    assert not imports(path) & impure
