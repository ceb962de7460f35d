"""Scenarios on a backend: what the probe logged, against what the Python chips predict.

The logs are kept in the case's folder, ``scenarios.json``: every backend's can be compared with
every other's, and read without the probe.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Final

from pydantic import TypeAdapter

from harness.base import files
from harness.base.errors import CollectError, GuestHang
from harness.base.files import read_json
from harness.guests import probe
from harness.model import manifest
from harness.model.case import Machine, ProbeGuest
from harness.model.verdict import PartResult, Verdict
from harness.record.recording import Recording
from harness.replay.profiles import profile_of
from harness.scenario import compare, expect
from harness.scenario.execution import Board
from harness.scenario.log import Log
from harness.scenario.predict import predict
from harness.scenario.program import Scenario
from userspace_chip.kvm.probe import EMULATING_MODULE
from userspace_chip.profile import Profile

NAME: Final = "scenarios.json"
INCONCLUSIVE: Final = (
    f"inconclusive: this KVM ({EMULATING_MODULE}) emulates the guest, and ends interrupts itself"
)


_LOGS: Final = TypeAdapter(dict[str, str | None])


def read_logs(directory: Path, *, conclusive: bool = False) -> Mapping[str, str | None]:
    """The logs of a case by scenario, one event a line; none where the case kept none.

    The log of a scenario that the backend has not the means for is None; with ``conclusive`` also
    of one that says nothing of the irqchip.
    """
    path = directory / NAME
    try:
        logs = read_json(path)
        found = {
            name: None if conclusive and "inconclusive" in entry else entry["log"]
            for name, entry in logs.items()
        }
        return _LOGS.validate_python(found)
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise CollectError(f"cannot read {path}", str(error)) from None


def parts_of(recording: Recording, guest: ProbeGuest) -> tuple[PartResult, ...]:
    """A part for each scenario of ``guest``; writes ``scenarios.json``."""
    case = manifest.read(recording.directory)
    profile, _ = profile_of(case)
    logs = probe.parse_logs(recording.console)
    board: Board = "microvm" if recording.case.machine is Machine.MICROVM else "pc"
    parts: list[PartResult] = []
    kept: dict[str, dict[str, str | None]] = {}
    for index, scenario in enumerate(guest.scenarios):
        log = logs.get(index)
        wanted = guest.expect.get(scenario.name)
        required = None if wanted is None else Verdict(wanted)
        if log is None:
            said = _stalled(recording, index, "") or _unreached(recording)
            parts.append(PartResult(scenario.name, *said, required))
            continue
        expected = _predicted(scenario, profile, board, recording.case.smp)
        kept[scenario.name] = _kept(scenario, log, expected)
        verdict, detail = _verdict(scenario, log, expected, case.irqchip.value)
        if case.kvm == EMULATING_MODULE and verdict in (Verdict.DIVERGED, Verdict.FAIL):
            verdict, detail = Verdict.SKIP, f"{INCONCLUSIVE}; {detail}"
            kept[scenario.name]["inconclusive"] = detail
        verdict, detail = _stalled(recording, index, detail) or (verdict, detail)
        parts.append(PartResult(scenario.name, verdict, detail, required))
    files.write_json(recording.directory / NAME, kept)
    return tuple(parts)


def _predicted(scenario: Scenario, profile: Profile, board: Board, cpus: int) -> Log | None:
    """None where the Python chips cannot tell."""
    if scenario.no_model is not None:
        return None
    return predict(scenario.program, profile, board=board, cpus=cpus)


def _verdict(
    scenario: Scenario, log: Log, expected: Log | None, irqchip: str
) -> tuple[Verdict, str]:
    by_kind = {event.kind: event for event in log.events}
    if (skip := by_kind.get("skip")) is not None:
        return Verdict.SKIP, f"the backend has not what it needs: {' '.join(skip.args)}"
    if (dirty := by_kind.get("dirty")) is not None:
        return Verdict.ERROR, f"the reset before it failed: {compare.describe(dirty)}"
    unordered = compare.unordered_steps(scenario.program)
    if expected is not None:
        divergence = compare.first_divergence(expected, log, unordered=unordered)
        if divergence is not None:
            return Verdict.DIVERGED, divergence.describe(scenario.steps)
    failures = list(expect.failures(scenario.expect, log, irqchip))
    if failures:
        return Verdict.FAIL, "; ".join(failures)
    return Verdict.PASS, ""


def _stalled(recording: Recording, index: int, detail: str) -> tuple[Verdict, str] | None:
    """What to say of a scenario that a boot of the probe ended in; None of others."""
    error = recording.stalled.get(index)
    if error is None:
        return None
    verdict = Verdict.HANG if isinstance(error, GuestHang) else Verdict.CRASH
    return verdict, f"{error}; {detail}" if detail else str(error)


def _unreached(recording: Recording) -> tuple[Verdict, str]:
    why = "" if recording.failure is None else f": {recording.failure}"
    return Verdict.ERROR, f"not reached{why}"


def _kept(scenario: Scenario, log: Log, expected: Log | None) -> dict[str, str | None]:
    if any(event.kind == "skip" for event in log.events):
        return {"log": None}
    kept: dict[str, str | None] = {"log": as_text(scenario, log)}
    if expected is not None and (predicted := as_text(scenario, expected)) != kept["log"]:
        kept["predicted"] = predicted
    return kept


def as_text(scenario: Scenario, log: Log) -> str:
    """One event a line, in an order that hangs on nothing but what is defined."""
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
