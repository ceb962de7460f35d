"""docs/reliability.md names the test that keeps each promise."""

import re

from support import golden

DOCUMENT = golden.TESTS.parent / "docs" / "reliability.md"


def test_promises_are_kept_by_tests_that_exist():
    text = DOCUMENT.read_text(encoding="utf-8")
    named = set(re.findall(r"`(test_\w+)`", text))
    sources = [path.read_text(encoding="utf-8") for path in golden.TESTS.rglob("test_*.py")]
    there = {name for source in sources for name in re.findall(r"def (test_\w+)\(", source)}

    assert len(named) > 20
    assert named <= there
    for path in re.findall(r"`(tests/[\w/.]+)`", text):
        assert (DOCUMENT.parents[1] / path).exists(), path
