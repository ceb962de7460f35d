"""Known differences, looked at from the other side: which were due in a run, and which showed.

A rule is due where a backend that it speaks of was compared with one that it does not mean on the
same side: then the difference has to show, unless the rule says that it shows only sometimes.  A
known bug that was due and did not show is an unexpected success (XPASS): it is fixed here, or the
tool no longer sees it.  A difference by design that was due and did not show is stale.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from harness.compare.diff import Pair
from harness.compare.known import CheckMatch, Kind, KnownDifferences, Rule, Scope


@dataclass(frozen=True)
class RuleResult:
    """A known difference in one backend: in how many comparisons it was due, in how many met."""

    rule: str
    kind: Kind
    always: bool
    link: str
    backend: str
    due: int
    met: int

    @property
    def xpass(self) -> bool:
        """A known bug that no longer shows."""
        return self.always and not self.met and self.kind is Kind.KNOWN_BUG

    @property
    def stale(self) -> bool:
        """A difference by design that should have shown, and did not."""
        return self.always and not self.met and self.kind is Kind.BY_DESIGN


def rules_due(known: KnownDifferences, pairs: Sequence[Pair]) -> tuple[RuleResult, ...]:
    """What became of every rule that was due somewhere, for each backend it was due in."""
    return tuple(result for rule in known.rules for result in _of_rule(rule, pairs))


def _of_rule(rule: Rule, pairs: Sequence[Pair]) -> Iterable[RuleResult]:
    met: dict[str, list[bool]] = {}
    for pair in pairs:
        backend = _due(rule, pair)
        if backend is not None:
            met.setdefault(backend, []).append(rule.id in pair.rules)
    for backend, shown in met.items():
        yield RuleResult(
            rule.id, rule.kind, rule.always, rule.link, backend, len(shown), sum(shown)
        )


def _due(rule: Rule, pair: Pair) -> str | None:
    """The backend in which ``rule`` has to show here, or None where it need not."""
    for workload in _matched(rule, pair):
        scope = Scope(*pair.facts, pair.guest, workload)
        as_told, swapped = rule.means(scope), rule.means(scope.swapped)
        if as_told is not swapped:  # where both are meant, both may be alike
            return pair.a if as_told else pair.b
    return None


def _matched(rule: Rule, pair: Pair) -> Iterable[str]:
    """The workloads that ``rule`` may speak of; a check has none."""
    if not isinstance(rule.what, CheckMatch):
        return pair.workloads
    return ("",) if any(map(rule.what.means, pair.checks)) else ()
