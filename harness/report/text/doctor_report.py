"""What this machine can run, as a person reads it, or as JSON."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterable
from itertools import groupby
from typing import Final

from rich.console import Console
from rich.table import Table
from rich.text import Text

from harness.doctor.doctor import Capability

_FINDING_STYLES: Final = {True: "green", False: "yellow", None: "dim"}


def doctor_json(findings: Iterable[Capability]) -> str:
    """The findings as JSON."""
    return json.dumps([dataclasses.asdict(finding) for finding in findings], indent=1)


def doctor_tables(console: Console, findings: Iterable[Capability]) -> None:
    """The findings by area; every "no" with its reason and what to do."""
    for area, group in groupby(findings, key=lambda finding: finding.area):
        console.print(f"\n{area}", style="bold", markup=False, highlight=False)
        table = Table.grid(padding=(0, 2))
        for finding in group:
            words = [finding.value]
            if finding.why:
                words.append(finding.why)
            if finding.fix:
                words.append(f"-> {finding.fix}")
            table.add_row(
                "", finding.name, Text("\n".join(words), style=_FINDING_STYLES[finding.can])
            )
        console.print(table)
