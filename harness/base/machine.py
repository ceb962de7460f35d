"""This machine and its clock, as reports and the store name them."""

from __future__ import annotations

import re
import time
from pathlib import Path


def timestamp() -> str:
    """The time now: ISO 8601 with the zone."""
    return time.strftime("%Y-%m-%dT%H:%M:%S%z")


def cpu_model(cpuinfo: Path = Path("/proc/cpuinfo")) -> str | None:
    """The model of the CPU as Linux names it; None where it does not."""
    try:
        text = cpuinfo.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return None
    found = re.search(r"^model name\s*:\s*(.+)$", text, re.MULTILINE)
    return None if found is None else found[1].strip()
