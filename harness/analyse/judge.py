"""From a recording to the verdict of its case: what each part did, and what the case is called."""

from __future__ import annotations

import re
import signal
from dataclasses import dataclass
from typing import Any, Final

from harness.analyse import audit, lab_checks, motion
from harness.analyse.blame import Facts, assigned
from harness.analyse.case_evidence import CaseEvidence
from harness.analyse.order import unordered
from harness.analyse.results.base import Results
from harness.analyse.results.table import results_of
from harness.analyse.ruling import Ruling, busy
from harness.base.errors import (
    GuestCrash,
    GuestError,
    GuestFlood,
    GuestHang,
    HarnessError,
    LabDied,
    MonitorError,
)
from harness.guests import last_words
from harness.guests.kinds.table import kind_of
from harness.model import lab_faults
from harness.model.case import (
    WHOLE_CASE,
    Accel,
    Case,
    Host,
    Irqchip,
    Vmm,
)
from harness.model.verdict import (
    Blame,
    CaseResult,
    PartResult,
    Verdict,
    judged,
    of_case,
)
from harness.record.recording import Recording
from harness.replay.replay import Replayed, ReplayOutcome

MAX_STDERR_CHARACTERS: Final = 300
KVM_GAVE_UP: Final = "KVM internal error"
"""What QEMU says then, before it shows the registers (``accel/kvm/kvm-all.c``)."""


def judge(
    recording: Recording, evidence: CaseEvidence, replayed: Replayed | HarnessError | None
) -> CaseResult:
    """The result of the case that was recorded, from what its sources say.

    ``replayed``: what a replay of its events found, or why there was none; see
    :func:`is_replayed`.
    """
    case = recording.case
    results = results_of(recording)
    failure = _failure(recording, evidence, results)
    parts = results.parts(evidence, failure)
    parts = lab_checks.explained(parts, evidence.described, lab_faults.shipped())
    verdict, detail, blame = _verdict(parts, failure, evidence)
    notes: list[str] = []
    if (account := _audited(recording, evidence)) is not None:
        if account.verdict is not None and verdict is Verdict.PASS:
            verdict, detail = account.verdict, account.text
        else:
            notes.append(account.text)
    if replayed is not None:
        said = _replayed(replayed, evidence, case)
        if said.diverged and verdict is Verdict.PASS:
            verdict, detail = Verdict.DIVERGED, said.text
        else:
            notes.append(said.text)
    expected = results.expected(WHOLE_CASE)
    result = of_case(
        case,
        verdict,
        detail,
        recording.duration_s,
        parts=parts,
        observations={} if evidence.sources is None else evidence.sources.observations,
        status=recording.status,
        notes=tuple(notes),
        # What belongs to a reproducer is judged by that, when all of its cases have ended.
        as_expected=bool(case.group) or _as_expected(parts, verdict, expected, failure),
        expected=expected,
        blame=blame,
    )
    return assigned(result, facts_of(recording))


_ASSERTION: Final = re.compile(r"assert", re.IGNORECASE)
_COMPLAINT: Final = re.compile(
    r"irq \d+: nobody cared|8254 timer not connected to IO-APIC|IO-APIC \+ timer doesn't work"
)


def facts_of(recording: Recording) -> Facts:
    """What is known of how the case ended, for the blame."""
    case, failure = recording.case, recording.failure
    killed_by = _signal(recording)
    ended = failure is None and killed_by is None and recording.status is not None
    words = _stderr(recording)
    refused = ended and recording.status != 0 and bool(words)
    return Facts(
        in_lab=case.backend.host is Host.LAB,
        probe=kind_of(case.guest).asks_only_chips,
        lab_died=isinstance(failure, LabDied),
        killed_by=killed_by,
        refused=refused,
        asserted=_ASSERTION.search(words) is not None,
        kvm_error=KVM_GAVE_UP in words,
        complains=_COMPLAINT.search(recording.console) is not None,
        live=case.backend.vmm is Vmm.PYCHIP,
        starved=recording.cpu_share is not None and recording.cpu_share.is_small,
        deaf="last look" in recording.missing,
        by_guest=ended and not refused and bool(recording.console.strip()),
    )


def _audited(recording: Recording, evidence: CaseEvidence) -> audit.Audit | None:
    """What the ledger says; of a guest that may break the rules itself, only what is wrong."""
    account = evidence.ledger
    if account is None or evidence.damage is not None or not evidence.is_traced:
        return None
    if not kind_of(recording.case.guest).keeps_rules and not account.findings:
        return None
    return audit.audit(account, recording.case, evidence.described)


def is_replayed(recording: Recording, evidence: CaseEvidence) -> bool:
    """Whether a case is judged by a replay, too: its guest keeps the rules, and was traced.

    In ``pychip-on`` a replay is what compares KVM's chips with ours, whatever the guest does.
    """
    case = recording.case
    is_told = kind_of(case.guest).keeps_rules or case.backend.is_shadowed
    return is_told and evidence.is_traced


@dataclass(frozen=True)
class _Said:
    """What a replay says of a case."""

    text: str
    diverged: bool = False


def _replayed(found: Replayed | HarnessError, evidence: CaseEvidence, case: Case) -> _Said:
    """What the Python chips say of the events.

    It is called a divergence only in versions that the chips model, where nothing is missing, and
    where the events have one order: in QEMU's trace, which one lock orders, and in a lab with one
    CPU whose kernel does not preempt itself.  Elsewhere threads run into each other in ways that
    KVM's trace does not tell.
    """
    if isinstance(found, HarnessError):
        return _Said(f"replay: not possible: {found}")
    divergence, compared = found.divergence, f"{found.compared} events"
    if divergence is None:
        exits = f" and after {found.snapshots} exits" * (found.snapshots > 0)
        preempted = f", preempted {found.reordered} times" * (found.reordered > 0)
        return _Said(
            f"replay: 0 divergences in {'the first ' * found.is_cut}{compared}{exits}{preempted}"
        )
    is_sure = (
        found.outcome is ReplayOutcome.DIVERGED and not found.warnings and evidence.damage is None
    )
    if divergence.recorded is None or not is_sure:
        return _Said(f"replay: incomplete after {compared}")
    place = f"at line {divergence.recorded.number}, {divergence.recorded.event.name}"
    one_lock = divergence.source == "qemu" and case.backend.irqchip is not Irqchip.OFF
    if one_lock:
        return _Said(f"replay: diverged {place}", diverged=True)
    doubt = "more than one CPU took part" if case.smp > 1 else unordered(case, evidence.described)
    if doubt is not None:
        return _Said(f"replay: disagrees {place}; no verdict: {doubt}")
    return _Said(f"replay: diverged {place}", diverged=True)


def _failure(recording: Recording, evidence: CaseEvidence, results: Results[Any]) -> Ruling | None:
    """What became of the guest as a whole, where it did not end as it should."""
    if recording.failure is not None:
        ruling = _ruling_of(recording, recording.failure, evidence)
        detail = _with_tail(recording, ruling.detail + busy(recording), results)
        return ruling._replace(detail=detail)
    killed_by = _signal(recording)
    if killed_by is not None:
        return Ruling(Verdict.CRASH, f"{_vmm(recording)} was killed by {killed_by}")
    return results.ending(_stderr(recording), _qemu_error(recording))


def _ruling_of(recording: Recording, error: HarnessError, evidence: CaseEvidence) -> Ruling:
    """How ``error`` is reported; of a guest whose time was up, whether it moved."""
    qemu = Blame.QEMU if recording.case.backend.host is Host.LOCAL else None
    if not isinstance(error, GuestHang):
        verdict = Verdict.CRASH if isinstance(error, GuestCrash) else Verdict.ERROR
        if isinstance(error, GuestFlood):
            return Ruling(verdict, str(error), Blame.GUEST)
        return Ruling(verdict, str(error), qemu if isinstance(error, MonitorError) else None)
    if (why := recording.missing.get("last look")) is not None:
        return Ruling(Verdict.HANG, f"{error}; {why}")
    if not recording.last_looks:
        return Ruling(Verdict.HANG, str(error))
    ruling = motion.assess(recording.last_looks, evidence.tail, recording.case.timeout_s)
    if ruling.verdict is Verdict.HANG:
        return ruling._replace(detail=f"{error}: {ruling.detail}")
    return ruling


def _with_tail(recording: Recording, text: str, results: Results[Any]) -> str:
    """The failure, how far the guest got, why QEMU ended if it did, and the last words."""
    error = recording.failure
    if results.reached is not None:
        text += f" after {results.reached}"
    if isinstance(error, GuestCrash):
        killed_by = _signal(recording)
        if killed_by is not None:
            text += f": it was killed by {killed_by}"
        elif recording.status:
            text += f": {_qemu_error(recording)[1]}"
    if not recording.status and (words := _stderr(recording)):
        text += f"; QEMU said: {words}"
    if said := last_words.phrases(recording.console):
        text += f"; the guest said: {' | '.join(said)}"
    elif isinstance(error, GuestError) and error.console_tail:
        text += f"; last console lines: {' | '.join(error.console_tail[-3:])}"
    return text


def _signal(recording: Recording) -> str | None:
    """The signal that ended QEMU; a lab's shell says it as 128 more.

    The exit device could give the same numbers, but nothing that runs here writes 67 or 68 to it.
    """
    status = recording.status
    if status is None:
        return None
    number = -status
    if recording.case.backend.host is Host.LAB:
        number = status - 128
    try:
        return signal.Signals(number).name
    except ValueError:
        return None


_ONLY_KVM: Final = re.compile(r"(^|,)\+?hv[-_]")
"""Hyper-V's features of a CPU, of which TCG has none and refuses some."""


def _qemu_error(recording: Recording) -> Ruling:
    """QEMU refused to start, or gave up."""
    said, case = _stderr(recording), recording.case
    if said and case.backend.accel is Accel.TCG and _ONLY_KVM.search(case.cpu):
        return Ruling(Verdict.SKIP, said)
    why = f": {said}" if said else " and said nothing, nor did the guest"
    whose = Blame.HARNESS if case.backend.vmm is Vmm.PYCHIP else Blame.QEMU
    what = f"{_vmm(recording)} ended with status {recording.status}{why}"
    return Ruling(Verdict.ERROR, what, whose)


def _vmm(recording: Recording) -> str:
    return "the VMM" if recording.case.backend.vmm is Vmm.PYCHIP else "QEMU"


_TIME: Final = re.compile(r"^\d{4}-\d\d-\d\dT[\d:.]+Z ")
"""What QEMU puts before its words with ``-msg timestamp=on``."""


_ENDED: Final = re.compile(r"terminating on signal \d+ from pid \d+")
"""What QEMU says when it is ended from here."""


_DUMP: Final = re.compile(r"(?!Code=)[A-Z][A-Z0-9]{1,4} ?=|extra data\[\d+\]:")
"""How the lines begin that QEMU prints of a guest's registers; of its code there is one."""


def _stderr(recording: Recording) -> str:
    errors = [_TIME.sub("", line.strip()) for line in recording.stderr.splitlines() if line.strip()]
    errors = [line for line in errors if "warning:" not in line and not _ENDED.search(line)]
    if any(line.startswith(KVM_GAVE_UP) for line in errors):
        errors = [line for line in errors if not _DUMP.match(line)]
    return " | ".join(errors)[-MAX_STDERR_CHARACTERS:]


def _verdict(
    parts: tuple[PartResult, ...], failure: Ruling | None, evidence: CaseEvidence
) -> Ruling:
    verdict = judged(parts)
    drowned = verdict is Verdict.STORM and failure is not None and failure.verdict is Verdict.HANG
    if failure is not None and not drowned:
        if (cut := evidence.missing.get("QEMU trace")) is not None:
            return failure._replace(detail=f"{failure.detail}; QEMU trace {cut}")
        return failure
    notable = [part for part in parts if part.verdict is verdict]
    detail = ""
    if verdict is not Verdict.PASS and notable:
        more = f" (and {len(notable) - 1} more)" if len(notable) > 1 else ""
        first = notable[0]
        detail = f"{first.id}: {first.detail}{more}" if first.detail else f"{first.id}{more}"
    if (damage := evidence.damage) is not None:
        damage = evidence.missing.get("QEMU trace", damage)
        detail = f"{detail}; events incomplete: {damage}".lstrip("; ")
    return Ruling(verdict, detail)


def _as_expected(
    parts: tuple[PartResult, ...],
    verdict: Verdict,
    expected: Verdict | None,
    failure: Ruling | None,
) -> bool:
    """A failure of the whole is as expected where a part was expected to end like that.

    Where something is expected of the whole, it counts, and what is expected of single parts.  A
    verdict that no part has is the ledger's or the replay's, and is never expected.
    """
    reached = [part for part in parts if part.was_reached]
    if expected is not None:
        told = all(part.as_expected for part in reached if part.expected is not None)
        return verdict is expected and told
    if failure is not None:
        is_skip = failure.verdict is Verdict.SKIP
        return is_skip or any(part.expected is failure.verdict for part in parts)
    return verdict is judged(parts) and all(part.as_expected for part in reached)
