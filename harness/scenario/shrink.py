"""Makes a scenario smaller, as long as something holds of it: delta debugging on its YAML data.

After "Simplifying and Isolating Failure-Inducing Input" (Zeller and Hildebrandt, IEEE TSE 28(2),
2002), on a tree instead of a list, and with many candidates asked about at the same time: one boot
of the probe executes many scenarios.  In a lab a boot takes as long as some hundred steps, so that
there are few rounds, and the first ones ask only which parts of the steps can go.
"""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, TypeAlias

Data: TypeAlias = dict[str, Any]
"""A scenario as YAML has it."""
Path: TypeAlias = tuple[str | int, ...]
Holds: TypeAlias = Callable[[Sequence[Data]], Awaitable[Sequence[bool]]]
"""Of which candidates it holds, asked about all at once."""
Report: TypeAlias = Callable[[int, Data], None]
"""Called after each round: how many candidates there were, and what is left."""

KEPT: Final = frozenset({"about", "machines", "model"})
"""Keys of a scenario that say what it is, and not what it does."""
_PARTS: Final = 8
_NUMBERS: Final = frozenset({"times", "count", "cpus", "limit"})
"""Keys whose number may be made smaller."""


@dataclass(frozen=True)
class Edit:
    """One simplification: nodes taken away, or one replaced by something smaller."""

    removed: frozenset[Path] = frozenset()
    at: Path | None = None
    value: Any = None


async def shrink(data: Data, holds: Holds, report: Report) -> Data:
    """A smaller ``data`` of which ``holds`` is still true, and is not after any single edit more.

    Every round asks about single edits, then about more and more of the good ones together.  First
    they are parts of the steps, then single steps, then everything else.
    """
    asked = _Memory(holds)
    for edits_of in (_parts, _steps, simplifications):
        while True:
            edits = [edit for edit in edits_of(data) if _keeps_time(data, edit)]
            candidates = [edited(data, [edit]) for edit in edits]
            answers = await asked.about(candidates)
            good = [
                (size(data) - size(candidate), edit)
                for edit, candidate, holds_of in zip(edits, candidates, answers, strict=True)
                if holds_of
            ]
            if not good:
                report(len(edits), data)
                break
            chosen = _disjoint(edit for _, edit in sorted(good, key=lambda item: -item[0]))
            together = [edited(data, chosen[:count]) for count in range(1, len(chosen) + 1)]
            answers = await asked.about(together)
            data = [one for one, holds_of in zip(together, answers, strict=True) if holds_of][-1]
            report(len(edits) + len(together), data)
    return data


def _keeps_time(data: Data, edit: Edit) -> bool:
    """Whether a step is left the time that it takes, where no model says how much it needs.

    What a device does in time is not seen if it is looked at earlier, and would be the machine's
    speed.  A whole step may go.
    """
    if "model" not in data:
        return True
    touched = [{path[-1]: _at(data, path)} for path in edit.removed if len(path) > 2]
    if edit.at is not None:
        if edit.at[-1] == "times":
            touched.append(_at(data, edit.at[:-1]))
        elif isinstance(edit.value, dict) and "repeat" in _at(data, edit.at):
            touched.append(edit.value)
    return not any(map(_has_delay, touched))


def _at(node: Any, path: Path) -> Any:
    for key in path:
        node = node[key]
    return node


def _has_delay(node: Any) -> bool:
    if isinstance(node, dict):
        return "delay_us" in node or any(map(_has_delay, node.values()))
    return isinstance(node, list) and any(map(_has_delay, node))


class _Memory:
    """What was asked before is not asked again."""

    def __init__(self, holds: Holds) -> None:
        self._holds = holds
        self._answers: dict[str, bool] = {}

    async def about(self, candidates: Sequence[Data]) -> list[bool]:
        """The answer to each."""
        texts = [json.dumps(candidate, default=str) for candidate in candidates]
        new = {
            text: candidate
            for text, candidate in zip(texts, candidates, strict=True)
            if text not in self._answers
        }
        if new:
            answers = await self._holds(list(new.values()))
            self._answers |= dict(zip(new, answers, strict=True))
        return [self._answers[text] for text in texts]


def _disjoint(edits: Iterable[Edit]) -> list[Edit]:
    """Without those that only do again what others before them do."""
    chosen: list[Edit] = []
    touched: set[Path] = set()
    for edit in edits:
        paths = edit.removed if edit.at is None else frozenset({edit.at})
        if any(path[:end] in touched for path in paths for end in range(1, len(path) + 1)):
            continue
        touched |= paths
        chosen.append(edit)
    return chosen


def edited(data: Data, edits: Iterable[Edit]) -> Data:
    """``data`` after all ``edits``, whose places are those before any of them."""
    edits = list(edits)
    removed = frozenset[Path]().union(*(edit.removed for edit in edits))
    replaced = {edit.at: edit.value for edit in edits if edit.at is not None}
    result = _rebuilt(data, (), removed, replaced)
    assert isinstance(result, dict)
    return result


def _rebuilt(node: Any, at: Path, removed: frozenset[Path], replaced: Mapping[Path, Any]) -> Any:
    if at in replaced:
        return replaced[at]
    if isinstance(node, dict):
        return {
            key: _rebuilt(value, (*at, key), removed, replaced)
            for key, value in node.items()
            if (*at, key) not in removed
        }
    if isinstance(node, list):
        return [
            _rebuilt(value, (*at, index), removed, replaced)
            for index, value in enumerate(node)
            if (*at, index) not in removed
        ]
    return node


def size(node: Any) -> int:
    """How many words and numbers there are in it."""
    if isinstance(node, dict):
        return sum(1 + size(value) for value in node.values())
    if isinstance(node, list):
        return 1 + sum(map(size, node))
    return 1


def _parts(data: Data) -> Iterator[Edit]:
    """The halves, quarters and eighths of the steps."""
    length = len(data["steps"])
    return (edit for edit in _steps(data) if len(edit.removed) >= max(1, length // _PARTS))


def _steps(data: Data) -> Iterator[Edit]:
    return _chunks(len(data["steps"]), ("steps",))


def simplifications(data: Data) -> Iterator[Edit]:
    """Every single edit; not all of them leave a scenario that makes sense."""
    for key in data:
        if key not in KEPT:
            yield from _of_node(data[key], (key,))
            if key != "steps":
                yield Edit(frozenset({(key,)}))


def _of_node(node: Any, at: Path) -> Iterator[Edit]:
    if isinstance(node, list):
        yield from _chunks(len(node), at)
        for index, value in enumerate(node):
            yield from _of_node(value, (*at, index))
    elif isinstance(node, dict):
        if (inner := _unwrapped(node)) is not None:
            yield Edit(at=at, value=inner)
        for key, value in node.items():
            yield Edit(frozenset({(*at, key)}))
            yield from _of_node(value, (*at, key))
    elif isinstance(node, int) and at[-1] in _NUMBERS:
        yield from (
            Edit(at=at, value=less) for less in sorted({1, node // 2, node - 1}) if 0 < less < node
        )


def _chunks(length: int, at: Path) -> Iterator[Edit]:
    """The halves of a list, their halves, and so on to its single elements."""
    chunk = length
    while chunk:
        for first in range(0, length, chunk):
            indices = range(first, min(first + chunk, length))
            yield Edit(frozenset((*at, index) for index in indices))
        chunk = chunk // 2


def _unwrapped(node: Mapping[Any, Any]) -> Any | None:
    """A group of one without the group, a repetition without the repeating."""
    rest = {key: value for key, value in node.items() if key not in ("do", "repeat")}
    if set(rest) <= {"cpu", "label"}:
        match node:
            case {"repeat": {"do": actions}}:
                return {**rest, "do": actions}
            case {"do": [{**action}]}:
                return {**rest, **action}
            case {"do": [str(word)]}:
                return {**rest, word: None} if rest else word
    return None
