"""The lines of a run that goes on."""

from __future__ import annotations

import io

import pytest
from rich.console import Console

from harness.run import progress
from support.runs import HANGS


@pytest.mark.parametrize("terminal", [False, True])
@pytest.mark.parametrize("expects", [False, True])
def test_case_that_hangs_is_unexpected_only_where_a_verdict_is_expected(expects, terminal):
    text = io.StringIO()
    console = Console(file=text, force_terminal=terminal, width=200, color_system=None)

    with progress.for_console(console, 1, expects=expects) as lines:
        lines.done(HANGS)

    assert "hang" in text.getvalue()
    assert "no answer within 5 s" in text.getvalue()
    assert ("not as expected" in text.getvalue()) is expects
