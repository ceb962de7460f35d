"""``result.json`` of schema 2, which had a list of differences for each pair of backends.

Its pairs are put together again: backends that differ from each other in a thing are in different
groups of one finding.  What a pair did not list was the same, or could not be seen.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import asdict
from typing import Any, Final

from harness.base.files import Document
from harness.compare import partition
from harness.compare.diff import Comparison, Status
from harness.compare.finding import Finding, Group, Member
from harness.compare.partition import Axes

_LISTS: Final = {
    "unexplained": Status.UNEXPLAINED,
    "known_bugs": Status.KNOWN_BUG,
    "by_design": Status.BY_DESIGN,
    "informational": Status.INFORMATIONAL,
}


def from_schema_2(data: Document) -> Document:
    """The same run as schema 3 has it."""
    diffs, summary = data.pop("diffs"), data["summary"]
    axes = {(case["subject"], case["backend"]): _axes(case["axes"]) for case in data["cases"]}
    found = [
        _finding(subject, thing, pairs, axes)
        for subject, of_subject in _by(diffs, "subject").items()
        for thing, pairs in _things(of_subject).items()
    ]
    unexplained = sum(finding.status is Status.UNEXPLAINED for finding in found)
    summary = {**summary, "unexplained_findings": unexplained}
    for case in data["cases"]:
        case.setdefault("family", _family(case))
    return data | {
        "comparisons": [asdict(each) for each in _comparisons(diffs)],
        "findings": [asdict(finding) for finding in found],
        "nowhere": {"parts": [], "is_error": False},
        "summary": summary,
    }


def _by(rows: Iterable[Document], key: str) -> dict[str, list[Document]]:
    found: dict[str, list[Document]] = {}
    for row in rows:
        found.setdefault(row[key], []).append(row)
    return found


def _family(case: Document) -> str:
    """Schema 2 said what a case is in its id alone; the subject stands for it."""
    return str(case["subject"])


def _axes(axes: Document) -> Axes:
    return {
        "irqchip": str(axes.get("irqchip", "-")),
        "QEMU": str(axes.get("qemu", "-")),
        "Linux": str(axes.get("lab_kernel") or "-"),
        "host": str(axes.get("host", "-")),
    }


_Key = tuple[str, str, str | None]


def _things(diffs: Iterable[Document]) -> dict[_Key, list[tuple[Document, Document]]]:
    """The differences of each thing, with the pair that each is of."""
    found: dict[_Key, list[tuple[Document, Document]]] = {}
    for diff in diffs:
        for name, status in _LISTS.items():
            for difference in diff[name]:
                key = difference["workload"], difference["what"], difference["source"]
                found.setdefault(key, []).append((diff, {**difference, "status": status}))
    return found


def _finding(
    subject: str,
    thing: _Key,
    pairs: list[tuple[Document, Document]],
    axes: dict[tuple[str, str], Axes],
) -> Finding:
    workload, what, source = thing
    values: dict[str, str] = {}
    apart: set[frozenset[str]] = set()
    for diff, difference in pairs:
        apart.add(frozenset((diff["a"], diff["b"])))
        values[diff["a"]], values[diff["b"]] = map(_text, (difference["a"], difference["b"]))
    groups = _groups(values, apart)
    separation = partition.separate(
        [[axes.get((subject, backend), {}) for backend in group] for group in groups]
    )
    gravest = min(
        (difference for _, difference in pairs), key=lambda d: [*Status].index(d["status"])
    )
    ruled = [each for _, each in pairs if each["rule"]]
    rules = tuple(dict.fromkeys(each["rule"] for each in ruled))
    return Finding(
        subject,
        subject,
        workload or what,
        what if workload else None,
        source,  # type: ignore[arg-type]
        tuple(
            Group(label, values[group[0]], tuple(Member(subject, backend) for backend in group))
            for label, group in zip(separation.labels, groups, strict=True)
        ),
        separation.text,
        gravest["status"],
        gravest["reason"],
        rules[0] if rules else None,
        rules,
        ruled[0]["link"] if ruled else None,
        first=any(difference["first"] for _, difference in pairs),
    )


def _text(values: Iterable[Any]) -> str:
    return ", ".join(map(str, values))


def _groups(values: Iterable[str], apart: set[frozenset[str]]) -> list[list[str]]:
    """Backends that differ from none of their group, each in the first group that it fits."""
    groups: list[list[str]] = []
    for backend in values:
        for group in groups:
            if not any(frozenset((backend, other)) in apart for other in group):
                group.append(backend)
                break
        else:
            groups.append([backend])
    return groups


def _comparisons(diffs: Iterable[Document]) -> Iterator[Comparison]:
    for subject, pairs in _by(diffs, "subject").items():
        backends = dict.fromkeys(name for pair in pairs for name in (pair["a"], pair["b"]))
        yield Comparison(
            subject,
            subject,
            tuple(backends),
            max(pair["compared"] for pair in pairs),
            tuple(dict.fromkeys(name for pair in pairs for name in pair["workloads"])),
            tuple(dict.fromkeys(name for pair in pairs for name in pair["checks"])),
        )
