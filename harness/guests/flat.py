"""What a flat image says: the conventions of kvm-unit-tests (``lib/report.c``, ``x86/run``).

A check is a line ``RESULT: label`` on the serial console; the exit device's value ``v`` becomes
QEMU's exit status ``(v << 1) | 1``.  Labels repeat, and may contain numbers that vary from run to
run: a check's id is its label with numbers as ``N``, and a count where the same label comes again.
"""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass
from enum import StrEnum
from typing import Final


class Result(StrEnum):
    """What a check says of itself."""

    PASS = "PASS"
    FAIL = "FAIL"
    SKIP = "SKIP"
    XFAIL = "XFAIL"
    """It failed, as it was expected to."""
    XPASS = "XPASS"
    """It passed, and was expected to fail."""
    KFAIL = "KFAIL"
    """It failed, as it is known to."""

    @property
    def is_failure(self) -> bool:
        """Whether it counts as unexpected, as ``report_summary()`` counts it."""
        return self in (Result.FAIL, Result.XPASS)


@dataclass(frozen=True)
class Check:
    """One line of result; ``id`` is stable from run to run, ``label`` is what it said."""

    id: str
    result: Result
    label: str


@dataclass(frozen=True)
class Summary:
    """The image's own count, from its line ``SUMMARY:``."""

    tests: int
    unexpected: int


_CHECK: Final = re.compile(r"^(PASS|FAIL|SKIP|XFAIL|XPASS|KFAIL): (.*)$", re.MULTILINE)
_SUMMARY: Final = re.compile(
    r"^SUMMARY: (\d+) tests?(?:, (\d+) unexpected failures?)?", re.MULTILINE
)
_NUMBER: Final = re.compile(r"(?<![A-Za-z_])(?:0x[0-9a-fA-F]+|\d+)|(?<=[A-Za-z_])\d{3,}")

STATUS_PASS: Final = 1
STATUS_SKIP: Final = 77


def normalised(label: str) -> str:
    """``label`` with what may vary from run to run as ``N``: numbers that stand by themselves.

    Numbers that are part of a name (``IRQ4``, ``x2apic``) stay, unless they have three digits.
    """
    return _NUMBER.sub("N", label.strip())


def checks(console: str) -> tuple[Check, ...]:
    """The checks in the text of a console, in their order."""
    seen: Counter[str] = Counter()
    found = []
    for match in _CHECK.finditer(console.replace("\r", "")):
        label = match[2].strip()
        key = normalised(label)
        seen[key] += 1
        number = f"~{seen[key]}" if seen[key] > 1 else ""
        found.append(Check(f"{key}{number}", Result(match[1]), label))
    return tuple(found)


def summary(console: str) -> Summary | None:
    """The last ``SUMMARY:`` line, or None where the image did not get that far."""
    found = _SUMMARY.findall(console.replace("\r", ""))
    if not found:
        return None
    tests, unexpected = found[-1]
    return Summary(int(tests), int(unexpected or 0))
