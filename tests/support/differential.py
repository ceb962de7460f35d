"""Run the same steps against two subjects, and reduce a disagreement to the steps that matter.

A :class:`Step` names a method that both subjects have.  After every step its two results and the
two :meth:`Subject.observe` are compared.  A seeded generator with a small reducer does here what
Hypothesis does elsewhere, because a step costs 50 microseconds and a run has hundreds of thousands
of them: Hypothesis' bookkeeping alone would take minutes, and its shrinker (thousands of tries
over a choice sequence) is of no more use than deleting steps, since steps do not depend on each
other's results.
"""

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from typing import Any, NamedTuple, Protocol


class Step(NamedTuple):
    """A call of the method ``name`` of both subjects."""

    name: str
    args: tuple[Any, ...] = ()

    def __repr__(self) -> str:
        return f"{self.name}({', '.join(_text(arg) for arg in self.args)})"


def _text(arg: Any) -> str:
    if type(arg) is tuple:
        return f"({', '.join(_text(item) for item in arg)})"
    return hex(arg) if type(arg) is int and arg > 9 else repr(arg)


class Subject(Protocol):
    def observe(self) -> Mapping[str, bytes]:
        """The state of every part, by name, in the kernel's layout."""


class Disagreement(NamedTuple):
    """Where two subjects parted: after ``index`` equal steps."""

    index: int
    what: list[str]


OpenPair = Callable[[], AbstractContextManager[tuple[Subject, Subject]]]
Explain = Callable[[str, bytes, bytes], list[str]]
"""(part, kernel, model) where they differ -> what differs; nothing where it is allowed to."""


def first_disagreement(
    steps: list[Step], open_pair: OpenPair, explain: Explain
) -> Disagreement | None:
    """Run ``steps`` on a fresh pair; None where both agree to the end."""
    with open_pair() as (kernel, model):
        for index, step in enumerate(steps):
            ours = getattr(model, step.name)(*step.args)
            theirs = getattr(kernel, step.name)(*step.args)
            what = [] if ours == theirs else [f"result: kernel {theirs!r}, model {ours!r}"]
            expected, found = kernel.observe(), model.observe()
            if expected != found:
                for part in expected:
                    if expected[part] != found[part]:
                        what += explain(part, expected[part], found[part])
            if what:
                return Disagreement(index, what)
    return None


def reduce_steps(steps: list[Step], fails: Callable[[list[Step]], bool]) -> list[Step]:
    """Delete ever smaller runs of steps as long as the rest still fails."""
    size = max(len(steps) // 2, 1)
    while True:
        start = 0
        while start < len(steps):
            candidate = steps[:start] + steps[start + size :]
            if candidate and fails(candidate):
                steps = candidate
            else:
                start += size
        if size == 1:
            return steps
        size = (size + 1) // 2


def assert_agree(steps: list[Step], open_pair: OpenPair, explain: Explain) -> None:
    """Fail with a minimal list of steps where the subjects disagree."""
    found = first_disagreement(steps, open_pair, explain)
    if found is None:
        return

    def fails(candidate: list[Step]) -> bool:
        return first_disagreement(candidate, open_pair, explain) is not None

    minimal = reduce_steps(steps[: found.index + 1], fails)
    left = first_disagreement(minimal, open_pair, explain)
    count = f"{len(minimal)} suffice" if left else "but not every time"
    raise AssertionError(
        "\n".join(
            [
                f"kernel and model disagree after {found.index + 1} steps; {count}:",
                *(f"    {step!r}" for step in minimal),
                *(left or found).what,
            ]
        )
    )
