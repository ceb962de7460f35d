"""Checks that fail in every lab that TCG runs, for a fault of the lab that is known."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace

from harness.analyse.blame import GOOD
from harness.base.versions import Version, parse_version
from harness.model.lab_faults import LabFault
from harness.model.manifest import CaseFile
from harness.model.verdict import Blame, PartResult


def explained(
    parts: Iterable[PartResult], case: CaseFile | None, faults: Sequence[LabFault]
) -> tuple[PartResult, ...]:
    """``parts`` of ``case``; a failure by a known fault of its lab is as expected, and the lab's.

    What the configuration expects of a part comes first.
    """
    parts = tuple(parts)
    if case is None or case.lab_qemu is None:
        return parts
    qemu, linux = _version(case.lab_qemu), _version(case.linux)
    there = [fault for fault in faults if fault.is_of(qemu, linux)]
    return tuple(_explained(part, case.guest, there) for part in parts)


def _explained(part: PartResult, guest: str, faults: Iterable[LabFault]) -> PartResult:
    if part.verdict in GOOD or not part.was_reached:
        return part
    fault = next((each for each in faults if each.fails(guest, part.id)), None)
    if fault is None:
        return part
    return replace(
        part,
        blame=Blame.LAB,
        expected=part.expected or part.verdict,
        detail="; ".join(filter(None, (part.detail, str(fault)))),
    )


def _version(text: str | None) -> Version | None:
    try:
        return None if text is None else parse_version(text)
    except ValueError:
        return None
