"""Coverage for lcov, genhtml and what else reads tracefiles (``geninfo(1)``, "FILES").

That an instruction ran is known, and not how often: a count is 0 or 1.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path

from harness.coverage.account import BuildCoverage


def lcov(builds: Iterable[BuildCoverage], source: Path | None = None) -> str:
    """A record for each file of each build; names are those of the kernel's tree in ``source``."""
    return "".join(f"{line}\n" for build in builds for line in _records(build, source))


def _records(build: BuildCoverage, source: Path | None) -> Iterator[str]:
    table, reached = build.table, build.reached
    for file in table.files:
        functions = sorted(each for each in table.functions if each.file == file)
        lines = sorted(each for each in table.lines if each.file == file)
        yield f"TN:{_test_name(table.kernel)}"
        yield f"SF:{file if source is None else source / file}"
        yield from (f"FN:{each.line},{each.name}" for each in functions)
        yield from (f"FNDA:{int(each in reached.functions)},{each.name}" for each in functions)
        yield f"FNF:{len(functions)}"
        yield f"FNH:{sum(each in reached.functions for each in functions)}"
        yield from (f"DA:{each.number},{int(each in reached.lines)}" for each in lines)
        yield f"LF:{len(lines)}"
        yield f"LH:{sum(each in reached.lines for each in lines)}"
        yield "end_of_record"


def _test_name(kernel: str) -> str:
    """Letters, digits and underscores."""
    return "linux_" + "".join(each if each.isalnum() else "_" for each in kernel)
