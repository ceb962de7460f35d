"""Puts the built probe into the wheel, beside its sources, so that its users need no compiler.

Where the wheel is built without a C compiler it has the sources alone; the probe is then built when
it is first wanted.
"""

from __future__ import annotations

import importlib.util
import shutil
import sys
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface


class ProbeBuildHook(BuildHookInterface):
    """Runs before a wheel is packed."""

    PLUGIN_NAME = "probe"

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Build the probe, and have it packed; not for an editable install."""
        cc = shutil.which("cc")
        if version == "editable" or cc is None:
            return
        root = Path(self.root)
        sys.path.insert(0, str(root))
        name = "harness/images/probe.py"
        spec = importlib.util.spec_from_file_location("irqmatrix_probe", root / name)
        assert spec is not None
        assert spec.loader is not None
        builder = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(builder)
        folder = Path(self.directory) / "probe"
        folder.mkdir(parents=True, exist_ok=True)
        target = folder / builder.PREBUILT
        builder.build_probe(cc, root / "images" / "probe", target)
        packed = f"harness/data/images/probe/{builder.PREBUILT}"
        build_data["force_include"][str(target)] = packed
        # It holds machine code of no Python's and no platform's: the wheel stays universal.
        build_data["pure_python"] = True

    def finalize(self, version: str, build_data: dict[str, Any], artifact_path: str) -> None:
        """Leave nothing beside the wheel."""
        shutil.rmtree(Path(self.directory) / "probe", ignore_errors=True)
