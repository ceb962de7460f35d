"""What this machine can run, as a person reads it, or as JSON."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterable
from itertools import groupby
from typing import Final

from harness.base.emphasis import Emphasis
from harness.doctor.doctor import Capability
from harness.report.page import Cell, Page, Table, TextLine, columns

_EMPHASIS: Final = {True: Emphasis.GOOD, False: Emphasis.NOTICE, None: Emphasis.FAINT}


def doctor_json(findings: Iterable[Capability]) -> str:
    """The findings as JSON."""
    return json.dumps([dataclasses.asdict(finding) for finding in findings], indent=1)


def doctor_tables(findings: Iterable[Capability]) -> Page:
    """The findings by area; every "no" with its reason and what to do."""
    for area, group in groupby(findings, key=lambda finding: finding.area):
        yield TextLine()
        yield TextLine(area, Emphasis.TITLE)
        rows = ((Cell(), Cell(finding.name), _value(finding)) for finding in group)
        yield Table(columns("", "", ""), tuple(rows))


def _value(finding: Capability) -> Cell:
    words = [finding.value]
    if finding.why:
        words.append(finding.why)
    if finding.fix:
        words.append(f"-> {finding.fix}")
    return Cell("\n".join(words), _EMPHASIS[finding.can])
