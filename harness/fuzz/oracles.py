"""Who says that something is wrong with a program's log.

=========  =================================================================================
chips      the Python chips of the backend's versions predict something else
backends   another backend logs something else, of a program that has no prediction
laws       the log breaks a law of the architecture (:mod:`harness.fuzz.laws`)
twice      the same program on the same backend logs something else the second time
ends       the program does not come to its end: it stops the probe, or ends QEMU or the lab
=========  =================================================================================
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from harness.fuzz import laws
from harness.fuzz.runner import Ran
from harness.scenario.compare import unordered_steps
from harness.scenario.finding import LogFinding, What, findings
from harness.scenario.log import Log
from harness.scenario.program import Scenario


class Oracle(StrEnum):
    """Who says it."""

    CHIPS = "chips"
    BACKENDS = "backends"
    LAWS = "laws"
    TWICE = "twice"
    ENDS = "ends"


@dataclass(frozen=True)
class Difference:
    """What an oracle says of one program on one backend; of several differences the first.

    ``side`` and ``against`` are written as on the command line; ``against`` is ``model`` for the
    chips, and empty where nothing was compared.  ``blame``: whose fault it looks like, where the
    program did not come to its end.
    """

    oracle: Oracle
    number: int
    program: str
    grammar: str
    side: str
    against: str
    finding: LogFinding
    blame: str = ""

    @property
    def kind(self) -> tuple[str, str, str, str]:
        """What differences of one cause most likely have in common; not the bits of a value."""
        event = self.finding.event.partition(" ")[0]
        detail = "" if event == "read" and self.oracle is not Oracle.LAWS else self.finding.detail
        return (self.oracle.value, self.finding.what.value, event, detail)

    def as_json(self) -> dict[str, Any]:
        """For the journal."""
        finding = self.finding
        return {
            "oracle": self.oracle.value,
            "number": self.number,
            "program": self.program,
            "grammar": self.grammar,
            "side": self.side,
            "against": self.against,
            "what": finding.what.value,
            "event": finding.event,
            "detail": finding.detail,
            "step": finding.step,
            "text": finding.text,
            "blame": self.blame,
        }

    @classmethod
    def of_json(cls, data: dict[str, Any]) -> Difference:
        """What :meth:`as_json` gave; :class:`KeyError`, :class:`ValueError` for anything else."""
        finding = LogFinding(
            What(data["what"]), data["event"], data["detail"], data["step"], data["text"]
        )
        oracle, number, program = Oracle(data["oracle"]), data["number"], data["program"]
        sides = data["side"], data["against"]
        return cls(oracle, number, program, data["grammar"], *sides, finding, data["blame"])


def compared(scenario: Scenario, expected: Log | None, found: Log | None) -> tuple[LogFinding, ...]:
    """The differences of a program's logs; none where one of them is missing."""
    if expected is None or found is None:
        return ()
    unordered = unordered_steps(scenario.program)
    return findings(expected, found, unordered=unordered, steps=scenario.steps)


def of_one(
    scenario: Scenario, expected: Log | None, ran: Ran
) -> Iterator[tuple[Oracle, LogFinding, str]]:
    """What can be said of one backend's log by itself: oracle, finding, blame."""
    if ran.trouble is not None:
        step = max((event.step for event in ran.log.events), default=0) if ran.log else 0
        event = f"{ran.trouble.verdict.value}"
        text = f"step {step}: {ran.trouble.what}"
        blame = "" if ran.trouble.blame is None else ran.trouble.blame.value
        yield Oracle.ENDS, LogFinding(What.BREAKS_OFF, event, "", step, text), blame
        return
    if ran.whole is None:
        return
    differing = compared(scenario, expected, ran.whole)
    if differing:
        yield Oracle.CHIPS, differing[0], ""
    breaking = laws.broken(scenario.program, ran.whole)
    if breaking:
        yield Oracle.LAWS, breaking[0], ""
