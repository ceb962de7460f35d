from dataclasses import fields

import pytest

from harness.base import limits
from harness.base.errors import ConfigError


def test_limits_variable_sets_the_named_ones_only():
    found = limits.parsed("trace_mib=7, console_mib=9")
    assert (found.trace_mib, found.console_mib) == (7, 9)
    assert found.cases == limits.Limits().cases


@pytest.mark.parametrize("text", ["trace=1", "trace_mib", "trace_mib=0", "trace_mib=-1", "x y"])
def test_limits_variable_that_sets_none_is_refused(text):
    with pytest.raises(ConfigError, match="IRQMATRIX_LIMITS"):
        limits.parsed(text)


@pytest.mark.parametrize("name", [each.name for each in fields(limits.Limits)])
def test_limits_are_documented_with_their_defaults(name):
    from pathlib import Path

    text = Path("docs/configuration.md").read_text(encoding="utf-8")
    assert f"| `{name}` | {getattr(limits.Limits(), name)} |" in text
