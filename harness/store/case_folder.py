"""What is written of a case beside its recording: events, counters, ledger and all other evidence,
and the verdict."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path

from harness.analyse import case_evidence
from harness.analyse.analyse import analyse
from harness.analyse.case_evidence import CaseEvidence
from harness.base.errors import StoreError
from harness.base.files import write_json, write_text
from harness.ledger import ledger
from harness.model.layout import CaseDir
from harness.model.manifest import CaseFile
from harness.model.verdict import CaseResult, PartResult
from harness.record.eventlog import dump_events
from harness.record.recording import Recording
from harness.replay import snapshots
from userspace_chip.events import Event


def analysed(recording: Recording, described: CaseFile, directory: Path) -> CaseEvidence:
    """Analyse ``recording``, and write the evidence to ``directory`` as it comes.

    Errors are those of :func:`harness.analyse.analyse.analyse`; :class:`StoreError` where a file
    cannot be written.
    """
    path = CaseDir(directory).events
    partial = path.with_name(path.name + ".partial")

    def take(events: Iterable[Event]) -> None:
        with partial.open("w", encoding="utf-8") as out:
            out.writelines(dump_events(events))

    try:
        evidence = analyse(recording, described, take)
        partial.replace(path)
    except OSError as error:
        raise StoreError(f"cannot write {path}", error.strerror, "free some space") from None
    finally:
        partial.unlink(missing_ok=True)
    _write(directory, evidence)
    return evidence


def _write(directory: Path, evidence: CaseEvidence) -> None:
    """Write all of ``evidence`` but its events."""
    folder = CaseDir(directory)
    sets = {name: found.to_json() for name, found in evidence.counters.items()}
    write_json(folder.counters, sets | {"missing": dict(evidence.missing)})
    snapshots.write(directory, evidence.looks)
    if evidence.ledger is not None:
        write_text(folder.ledger, ledger.dump(evidence.ledger))
    if evidence.moving:
        text = "".join(dump_events(evidence.moving))
        write_text(folder.moving, text)
    if evidence.scenarios:
        logs = {name: _log_json(asdict(found)) for name, found in evidence.scenarios.items()}
        write_json(folder.scenarios, logs)
    if evidence.sources is not None:
        document = case_evidence.sources_document(evidence.sources)
        write_json(folder.evidence, document)


def _log_json(found: dict[str, str | None]) -> dict[str, str | None]:
    """A scenario's log without what is empty."""
    return {name: text for name, text in found.items() if name == "log" or text is not None}


def write_verdict(directory: Path, outcome: CaseResult) -> None:
    """Write ``verdict.json``; :class:`StoreError` where that cannot be."""
    write_json(
        CaseDir(directory).verdict,
        {"id": outcome.id, "verdict": outcome.verdict, "detail": outcome.full_detail}
        | {"blame": outcome.blame}
        | {"observations": dict(outcome.observations)}
        | {"parts": [_part_json(part) for part in outcome.parts]},
    )


def _part_json(part: PartResult) -> dict[str, object]:
    return {
        "id": part.id,
        "verdict": part.verdict,
        "detail": part.detail,
        "blame": part.blame,
        "metrics": dict(part.metrics),
    }
