"""The text of an issue for what is new in a run: its title, an empty line, and its body.

Nothing at all where nothing is new.  What guests, QEMU and files say stands in code blocks.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from typing import Final

from harness.base.text import plain, shortened
from harness.report import views
from harness.report.run_view import RunView
from harness.report.views import ChangeView
from harness.store.baseline import State

SHOWN: Final = 20
"""Number of problems in full; beyond it they are counted."""
TITLE_CHARACTERS: Final = 200


def render(view: RunView) -> str:
    """The issue, or nothing."""
    lines = list(_lines(view))
    return "\n".join(lines) + "\n" if lines else ""


def _lines(view: RunView) -> Iterator[str]:
    """Without a store all that is not as expected is new."""
    if view.baseline is None:
        found = [*(one.headline for one in view.findings), *map(str, view.causes)]
        yield from _issue(view, found, view.conclusion, found)
        return
    new = [each for each in views.change_views(view.baseline, State.NEW) if each.is_regression]
    titles = [f"{each.subject}: {each.what}" for each in new]
    yield from _issue(view, titles, views.baseline_headline(view.baseline), map(_told, new))


def _issue(
    view: RunView, titles: list[str], summary: str, problems: Iterable[str]
) -> Iterator[str]:
    if not titles:
        return
    more = f" and {len(titles) - 1} more" if len(titles) > 1 else ""
    title = f"irqmatrix {view.run.name}: {' '.join(plain(titles[0]).split())}"
    yield shortened(title, TITLE_CHARACTERS) + more
    yield ""
    yield from _block(summary)
    for number, problem in enumerate(problems, start=1):
        if number > SHOWN:
            yield f"\nAnd {len(titles) - SHOWN} more: see the report of the run."
            break
        yield f"\n### {number}\n"
        yield from _block(problem)
    yield "\n### Versions\n"
    yield from _block("\n".join(_versions(view)))


def _told(change: ChangeView) -> str:
    history = "\n".join(f"irqmatrix history {key}" for key in change.keys)
    cases = "\n".join(f"irqmatrix run ... --only '{case}'" for case in change.cases[:1])
    seen = f"{change.subject}  {change.what}\n{change.text}\n{change.since}"
    return "\n".join(filter(None, (seen, history, cases)))


def _versions(view: RunView) -> Iterator[str]:
    environment = view.run.environment
    for name in ("irqmatrix", "kernel", "qemu", "lab_kernel", "lab_qemu"):
        value = environment.get(name)
        if isinstance(value, dict):
            yield from (f"{name} {key}: {version}" for key, version in value.items())
        elif value is not None:
            yield f"{name}: {value}"


def _block(text: str) -> Iterator[str]:
    """A code block, whose fence is longer than any in it."""
    shown = plain(text)
    longest = max((len(run) for run in re.findall(r"`+", shown)), default=0)
    fence = "`" * max(longest + 1, 3)
    yield f"{fence}text"
    yield shown
    yield fence
