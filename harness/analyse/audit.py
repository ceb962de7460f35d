"""What a ledger says of its case: a line for the report, and a verdict where it is sure.

A finding becomes a verdict only where the account is complete, in versions that the ledger's rules
were taken from, of a Linux guest in a lab or under TCG.  Elsewhere it is only reported: a
flat image may break the rules on purpose, and where threads trace concurrently the order of two
events that are close says little (:mod:`harness.analyse.order`).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Final

from harness.analyse.order import unordered
from harness.base.versions import parse_version
from harness.guests.kinds.table import kind_of
from harness.ledger.ledger import LAWS, STAGES, Kind, LawResult, Ledger, LedgerFinding
from harness.model.case import Case, Irqchip
from harness.model.manifest import CaseFile
from harness.model.verdict import Verdict
from harness.replay.profiles import not_modelled
from userspace_chip.profile import LINUX_VERSIONS, QEMU_VERSIONS

VERDICTS: Final[Mapping[Kind, Verdict]] = {
    "lost": Verdict.LOST,
    "stuck": Verdict.STUCK,
    "misrouted": Verdict.MISROUTED,
    "storm": Verdict.STORM,
    "spurious": Verdict.DIVERGED,
}
"""``spurious`` (an event without a cause, an interrupt delivered twice) has no verdict of its own:
what happened is not what the chips may do, which is ``diverged``."""

_LAWS: Final = frozenset(law.name for law in LAWS)


@dataclass(frozen=True)
class Audit:
    """``text`` is a line for the report; ``verdict`` what the case is called, or None."""

    text: str
    verdict: Verdict | None = None


def audit(ledger: Ledger, case: Case, recorded: CaseFile | None) -> Audit:
    """What ``ledger`` says of ``case``, whose versions are in ``recorded`` (None: not known)."""
    text = f"ledger: {summary(ledger)}"
    if incomplete(ledger) is not None or ledger.balanced:
        return Audit(text)
    doubt = _doubt(ledger, case, recorded)
    if doubt is not None:
        return Audit(f"{text}; no verdict: {doubt}")
    # What follows the first finding may be its consequence.
    kinds = [finding.kind for finding in ledger.findings]
    return Audit(text, VERDICTS[kinds[0]] if kinds else Verdict.DIVERGED)


def summary(ledger: Ledger) -> str:
    """In a few words: the totals where it balances, else what is wrong, or why it is unknown."""
    if ledger.findings:
        return _found(ledger.findings, ledger.suppressed)
    if (why := incomplete(ledger)) is not None:
        return f"cannot be closed: {why}"
    if (law := _broken(ledger)) is not None:
        return f"does not balance: {law.name}: {law.left} {law.relation} {law.right}: {law.reason}"
    return f"balances, {', '.join(_totals(ledger))}"


def state(ledger: Ledger) -> str:
    """In one or two words, for a table."""
    if ledger.findings:
        count = len(ledger.findings) + ledger.suppressed
        return f"{count} finding{'s' if count > 1 else ''}"
    if incomplete(ledger) is not None:
        return "incomplete"
    return "balances" if ledger.balanced else "broken"


def incomplete(ledger: Ledger) -> str | None:
    """Why the laws could not be checked, or None where they were."""
    unchecked = (law for law in ledger.laws if law.name in _LAWS and law.status == "not checkable")
    return next((law.reason for law in unchecked), None)


def unmodelled(recorded: CaseFile) -> str | None:
    """The version that the rules were not taken from, or None."""
    if not _is_known(recorded.qemu, QEMU_VERSIONS):
        return f"QEMU {recorded.qemu} is not modelled"
    if recorded.linux is not None and not _is_known(recorded.linux, LINUX_VERSIONS):
        return f"Linux {recorded.linux} is not modelled"
    return None


def _is_known(text: str, known: Iterable[str]) -> bool:
    try:
        version = parse_version(text)
    except ValueError:
        return False
    bounds = map(parse_version, known)
    return any(version[: len(bound)] == bound for bound in bounds)


def _doubt(ledger: Ledger, case: Case, recorded: CaseFile | None) -> str | None:
    if not kind_of(case.guest).keeps_rules:
        return "only a Linux guest is known to keep the rules itself"
    if recorded is None:
        return "the versions are not known"
    if (why := unordered(case, recorded)) is not None:
        return why
    if (what := not_modelled(recorded) or unmodelled(recorded)) is not None:
        return what
    return ledger.warnings[0] if ledger.warnings else None


def _found(findings: tuple[LedgerFinding, ...], suppressed: int) -> str:
    more = len(findings) - 1 + suppressed
    return f"{findings[0]}" + (f" (and {more} more)" if more else "")


def _broken(ledger: Ledger) -> LawResult | None:
    return next((law for law in ledger.laws if law.status == "broken"), None)


def _totals(ledger: Ledger) -> list[str]:
    """In the order of an interrupt's life."""
    lines = sum(row.counts.get("raised", 0) for row in ledger.rows if row.kind == "ioapic")
    vectors = [row for row in ledger.rows if row.kind == "vector"]
    totals = {s: sum(row.counts.get(s, 0) for row in vectors) for s in STAGES}
    words = [f"{lines} lines raised", f"{totals['accepted']} accepted"]
    words += [f"{totals[s]} {s}" for s in ("merged", "dropped") if totals[s]]
    if ledger.irqchip is not Irqchip.TCG or totals["injected"]:
        words.append(f"{totals['injected']} injected")
    words.append(f"{totals['eoi']} ended")
    windows = [law for law in ledger.laws if law.name not in _LAWS]
    if windows:
        words.append(f"{sum(law.left for law in windows)} handled in the workloads")
    return words
