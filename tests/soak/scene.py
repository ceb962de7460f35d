"""What a soak runs: small matrices of each kind of guest, and where they run."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import yaml

from harness.base import resources
from harness.config import config
from support import flat_image

LOCAL: Final = {"host": "local", "accel": "tcg"}
TRACED: Final = {"host": "local", "accel": "kvm", "irqchip": "on"}
LAB: Final = {"host": ["lab"], "accel": ["kvm"], "irqchip": ["on", "split"]}
PASSING: Final = "PASS: one\nPASS: two\nSUMMARY: 2 tests\n"
FAILING: Final = "PASS: one\nFAIL: two\nSUMMARY: 2 tests, 1 unexpected failures\n"


@dataclass(frozen=True)
class Matrix:
    """A configuration with its cases; ``verdicts`` is what each has to give without a fault."""

    name: str
    path: Path
    verdicts: Mapping[str, str]
    limit_s: float
    """How long a run of it may take, with a fault or without."""


def flat_matrix(folder: Path, name: str, count: int) -> Matrix:
    """``count`` repetitions of an image that passes, and one that fails."""
    good = flat_image.build(folder, "good", PASSING)
    bad = flat_image.build(folder, "bad", FAILING, 1)
    guests = [
        {"kind": "flat", "path": str(good), "timeout_s": 10},
        {"kind": "flat", "path": str(bad), "timeout_s": 10, "expect": {"two": "fail"}},
    ]
    return _matrix(folder, name, {"matrix": LOCAL, "guests": guests, "repeat": count}, 60 + count)


def matrices(folder: Path, *, with_labs: bool) -> list[Matrix]:
    """The matrices of a soak, from the quickest to the slowest."""
    scenarios = resources.configs() / "scenarios" / "pic.yaml"
    probe = {"kind": "probe", "scenarios": [str(scenarios)]}
    found = [
        flat_matrix(folder, "flat", 4),
        _matrix(folder, "probe", {"matrix": LOCAL, "guests": [probe]}, 120),
    ]
    if os.access("/dev/kvm", os.R_OK | os.W_OK):
        traced = {"matrix": TRACED, "guests": [probe | {"trace": True}]}
        found.append(_matrix(folder, "traced", traced, 120))
    if with_labs:
        linux = {"kind": "linux", "workloads": ["idle"], "timeout_s": 60}
        found += [
            _matrix(folder, "linux", {"matrix": LOCAL, "guests": [linux]}, 180),
            _matrix(folder, "lab", {"matrix": LAB, "guests": [probe]}, 300),
        ]
    return found


def _matrix(folder: Path, name: str, content: dict[str, Any], limit_s: float) -> Matrix:
    path = folder / f"{name}.yaml"
    path.write_text(yaml.safe_dump({"version": 1, "name": name} | content))
    cases = config.load(path).cases
    verdicts = {case.id: "fail" if "flat-bad" in case.id else "pass" for case in cases}
    return Matrix(name, path, verdicts, limit_s)
