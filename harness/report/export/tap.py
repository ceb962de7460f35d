"""TAP version 14 (testanything.org): a subtest a group, a test point a check.

``not ok`` without a directive is what makes the run fail.  ``not ok ... # TODO`` is what fails as
expected; ``ok ... # TODO`` is TAP's word for a known bug that no longer shows.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import Final

from harness.report.checks import FAILING, Check, CheckGroup, Outcome

_DIRECTIVES: Final = {
    Outcome.SKIP: "SKIP",
    Outcome.XFAIL: "TODO",
    Outcome.STALE: "TODO",
    Outcome.XPASS: "TODO",
    Outcome.FLAKY: "TODO",
    Outcome.BASELINE: "TODO",
}
_NOT_OK: Final = FAILING | {Outcome.XFAIL, Outcome.STALE, Outcome.BASELINE}


def render(groups: Sequence[CheckGroup]) -> str:
    """The document."""
    lines = ["TAP version 14", f"1..{len(groups)}"]
    for number, group in enumerate(groups, 1):
        name = _escaped(group.name)
        lines.append(f"# Subtest: {name}")
        lines += (f"    {line}" for line in _subtest(group.checks))
        lines.append(f"{'not ok' if group.failed else 'ok'} {number} - {name}")
    return "\n".join(lines) + "\n"


def _subtest(checks: Sequence[Check]) -> Iterator[str]:
    yield f"1..{len(checks)}"
    for number, check in enumerate(checks, 1):
        status = "not ok" if check.outcome in _NOT_OK else "ok"
        line = f"{status} {number} - {_escaped(check.name)}"
        directive = _DIRECTIVES.get(check.outcome)
        if directive is not None:
            line = f"{line} # {directive} {_escaped(check.message)}".rstrip()
        yield line
        yield from _diagnostic(check)


def _diagnostic(check: Check) -> Iterator[str]:
    """The YAML block of a check that has more to say than its line.

    A literal block: what reads TAP often knows no more of YAML.
    """
    failing = check.outcome in FAILING
    if not failing and not check.lines and check.state is None:
        return
    yield "  ---"
    if check.kind:
        yield f"  severity: {check.kind}"
    if check.blame is not None:
        yield f"  blame: {check.blame}"
    if check.state is not None:
        yield f"  baseline: {check.state}"
        yield f"  since: {_flat(check.since)}"
    yield "  message: |"
    yield f"    {_flat(check.message) or '-'}"
    yield from (f"    - {_flat(line)}" for line in check.lines)
    yield "  ..."


def _flat(text: str) -> str:
    """``text`` on one line, and without what neither TAP nor YAML can hold."""
    return re.sub(r"[\s\x00-\x1f\x7f-\x9f\ud800-\udfff\ufffe\uffff]+", " ", text).strip()


def _escaped(text: str) -> str:
    """``text`` on one line, with what TAP would take for the begin of a directive escaped."""
    return re.sub(r"([\\#])", r"\\\1", _flat(text))
