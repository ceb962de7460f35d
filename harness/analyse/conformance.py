"""Scenarios on a backend: what the probe logged, against what the Python chips predict."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Final

from harness.analyse.case_evidence import ScenarioLog, read_scenarios
from harness.analyse.ruling import Ruling
from harness.guests import probe
from harness.model.case import ProbeGuest, board_of
from harness.model.manifest import CaseFile
from harness.model.verdict import Verdict
from harness.record.recording import Recording
from harness.replay.profiles import profile_of
from harness.scenario import compare, expect
from harness.scenario.log import Log
from harness.scenario.predict import predict
from harness.scenario.program import Scenario
from userspace_chip.architecture import Board
from userspace_chip.kvm.probe import EMULATING_MODULE
from userspace_chip.profile import Profile

INCONCLUSIVE: Final = (
    f"inconclusive: this KVM ({EMULATING_MODULE}) emulates the guest, and ends interrupts itself"
)


def read_logs(directory: Path, *, conclusive: bool = False) -> Mapping[str, str | None]:
    """The logs of a case by scenario, one event a line; none where the case kept none.

    The log of a scenario that the backend lacks the means for is None; with ``conclusive`` also
    of one that says nothing of the irqchip.
    """
    return {
        name: None if conclusive and found.inconclusive is not None else found.log
        for name, found in read_scenarios(directory).items()
    }


def compared(
    recording: Recording, guest: ProbeGuest, described: CaseFile
) -> Iterator[tuple[str, ScenarioLog, Ruling]]:
    """Each scenario that ran, with its log and what that is, compared with the prediction."""
    profile, _ = profile_of(described)
    logs = probe.parse_logs(recording.console)
    board = board_of(described.machine)
    for index, scenario in enumerate(guest.scenarios):
        if (log := logs.get(index)) is None:
            continue
        expected = _predicted(scenario, profile, board, described.smp)
        ruling = _ruling(scenario, log, expected, described.irqchip.value)
        inconclusive = None
        if described.kvm == EMULATING_MODULE and ruling.verdict in (Verdict.DIVERGED, Verdict.FAIL):
            inconclusive = f"{INCONCLUSIVE}; {ruling.detail}"
            ruling = Ruling(Verdict.SKIP, inconclusive)
        yield scenario.name, _kept(scenario, log, expected, inconclusive), ruling


def _predicted(scenario: Scenario, profile: Profile, board: Board, cpus: int) -> Log | None:
    """None where the Python chips cannot tell."""
    if scenario.no_model is not None:
        return None
    return predict(scenario.program, profile, board=board, cpus=cpus)


def _ruling(scenario: Scenario, log: Log, expected: Log | None, irqchip: str) -> Ruling:
    by_kind = {event.kind: event for event in log.events}
    if (skip := by_kind.get("skip")) is not None:
        return Ruling(Verdict.SKIP, f"the backend lacks a required feature: {' '.join(skip.args)}")
    if (dirty := by_kind.get("dirty")) is not None:
        return Ruling(Verdict.ERROR, f"the reset before it failed: {compare.describe(dirty)}")
    unordered = compare.unordered_steps(scenario.program)
    if expected is not None:
        divergence = compare.first_divergence(expected, log, unordered=unordered)
        if divergence is not None:
            return Ruling(Verdict.DIVERGED, divergence.describe(scenario.steps))
    failures = list(expect.failures(scenario.expect, log, irqchip))
    if failures:
        return Ruling(Verdict.FAIL, "; ".join(failures))
    return Ruling(Verdict.PASS, "")


def _kept(
    scenario: Scenario, log: Log, expected: Log | None, inconclusive: str | None
) -> ScenarioLog:
    if any(event.kind == "skip" for event in log.events):
        return ScenarioLog(None)
    text = as_text(scenario, log)
    predicted = None if expected is None else as_text(scenario, expected)
    return ScenarioLog(text, None if predicted == text else predicted, inconclusive)


def as_text(scenario: Scenario, log: Log) -> str:
    """One event a line, in an order that depends on nothing but what is defined."""
    unordered = compare.unordered_steps(scenario.program)
    places: dict[tuple[int, int], list[str]] = {}
    for event in log.events:
        places.setdefault((event.step, event.cpu), []).append(
            f"step {event.step}, CPU {event.cpu}: {compare.describe(compare.comparable(event))}"
        )
    return "".join(
        f"{line}\n"
        for (step, _), lines in sorted(places.items())
        for line in (sorted(lines) if step in unordered else lines)
    )
