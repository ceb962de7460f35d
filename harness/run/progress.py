"""What a run shows while it goes on: a live table on a terminal, plain lines elsewhere."""

from __future__ import annotations

import os
import time
from types import TracebackType
from typing import Protocol

from rich.console import Console
from rich.live import Live
from rich.table import Table

from harness.base.emphasis import Emphasis
from harness.base.terminal import STYLES
from harness.model.verdict import CaseResult, Verdict


class Progress(Protocol):
    """Shows everything that goes on in a run."""

    def __enter__(self) -> Progress:
        """Begin to show."""

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Stop showing."""

    def note(self, text: str) -> None:
        """Something that belongs to no case."""

    def step(self, case_id: str, text: str) -> None:
        """What a case is doing."""

    def done(self, result: CaseResult) -> None:
        """A case has its verdict."""


class PlainProgress:
    """One line for each thing that happened; none for the steps of a case."""

    def __init__(self, console: Console, total: int, *, expects: bool = True) -> None:
        self._console = console
        self._expects = expects
        self._total = total
        self._done = 0

    def __enter__(self) -> PlainProgress:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def note(self, text: str) -> None:
        """Print it."""
        self._print(text)

    def step(self, case_id: str, text: str) -> None:
        """Steps are for terminals."""

    def done(self, result: CaseResult) -> None:
        """Print the verdict."""
        self._done += 1
        self._total = max(self._total, self._done)  # some run again
        self._print(f"[{self._done}/{self._total}] {verdict_line(result, expects=self._expects)}")

    def _print(self, text: str) -> None:
        self._console.print(text, markup=False, highlight=False, soft_wrap=True)


class LiveProgress:
    """The running cases in a table that changes in place, the finished ones above it."""

    def __init__(self, console: Console, total: int, *, expects: bool = True) -> None:
        self._console = console
        self._expects = expects
        self._total = total
        self._done = 0
        self._started = time.monotonic()
        self._running: dict[str, tuple[float, str]] = {}
        self._live = Live(
            console=console, get_renderable=self._render, refresh_per_second=8, transient=True
        )

    def __enter__(self) -> LiveProgress:
        self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._live.stop()

    def note(self, text: str) -> None:
        """Print it above the table."""
        self._console.print(text, markup=False, highlight=False, style="dim")

    def step(self, case_id: str, text: str) -> None:
        """Change the case's row."""
        started, _ = self._running.get(case_id, (time.monotonic(), ""))
        self._running[case_id] = (started, text)

    def done(self, result: CaseResult) -> None:
        """Move the case from the table to what is finished."""
        self._running.pop(result.id, None)
        self._done += 1
        self._total = max(self._total, self._done)
        is_alarm = self._expects and not result.as_expected
        style = STYLES[Emphasis.ALARM if is_alarm else result.verdict.emphasis]
        line = verdict_line(result, expects=self._expects)
        self._console.print(line, markup=False, highlight=False, style=style)

    def _render(self) -> Table:
        now = time.monotonic()
        table = Table.grid(padding=(0, 2))
        for case_id, (started, text) in self._running.items():
            table.add_row(f"{now - started:5.1f} s", case_id, text)
        table.add_row(f"{now - self._started:5.1f} s", f"{self._done} of {self._total} cases", "")
        return table


def verdict_line(result: CaseResult, *, expects: bool = True) -> str:
    """One finished case on one line; of what is as expected the report says the rest.

    Without ``expects`` it says what was seen: who looks for a fault expects no verdict.
    """
    if result.as_expected and result.verdict is not Verdict.SKIP:
        return f"{result.verdict.value:<9} {result.duration_s:6.1f} s  {result.id}"
    unexpected = "" if result.as_expected or not expects else "  <- not as expected"
    blame = "" if result.blame is None else f"  (looks like {result.blame})"
    detail = f"  {result.detail}" if result.detail else ""
    what = f"{result.verdict.value:<9} {result.duration_s:6.1f} s  {result.id}"
    return f"{what}{blame}{detail}{unexpected}"


def for_console(console: Console, total: int, *, expects: bool = True) -> Progress:
    """The display that fits ``console``; plain where it is no terminal, or with ``NO_COLOR``.

    ``expects`` is as of :func:`verdict_line`.
    """
    is_live = console.is_terminal and not os.environ.get("NO_COLOR")
    return (LiveProgress if is_live else PlainProgress)(console, total, expects=expects)


class Silent:
    """Shows nothing: for ``--json``."""

    def __enter__(self) -> Silent:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def note(self, text: str) -> None:
        """Say nothing."""

    def step(self, case_id: str, text: str) -> None:
        """Say nothing."""

    def done(self, result: CaseResult) -> None:
        """Say nothing."""
