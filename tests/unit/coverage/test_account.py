"""What runs reached, beside the floor, another run, and what cannot be reached."""

import pytest

from harness.base.errors import ConfigError, StoreError
from harness.coverage import account
from harness.coverage.cannot_reach import Condition
from harness.model.coverage import SourceLine
from harness.model.layout import CaseDir
from support.covered import IRQCHIP, LAPIC, executed, run_in, tables

AVIC = Condition("avic", "AVIC in hardware", "no lab has it")


@pytest.fixture(autouse=True)
def beyond(monkeypatch):
    """Two lines that no lab can reach."""
    both = {SourceLine(LAPIC, 20): AVIC, SourceLine(LAPIC, 10): AVIC}
    monkeypatch.setattr(account.cannot_reach, "shipped", lambda table: both)


def test_cases_and_runs_and_the_floor_count_together(tmp_path):
    one = run_in(tmp_path / "one", executed(4), executed(8), floor=executed(0))
    other = run_in(tmp_path / "other", executed(0, section=".text.unlikely"))

    (build,) = account.account([one, other], None, tables)

    counts = build.lines()
    assert (counts.all, counts.reached, counts.floor) == (5, 4, 1)
    assert build.lines(IRQCHIP).reached == 1
    assert build.functions(LAPIC).reached == 1


def test_line_that_was_reached_is_not_beyond_reach(tmp_path):
    (build,) = account.account([run_in(tmp_path, executed(0, 4))], None, tables)

    assert set(build.cannot) == {SourceLine(LAPIC, 20)}
    assert list(build.missing) == [SourceLine(LAPIC, 13), SourceLine(IRQCHIP, 5)]
    assert build.lines().share == 2 / 5
    assert build.lines().share_of_reachable == 2 / 4
    assert build.functions(LAPIC).beyond == 1, "of apic_two no line can be reached"


def test_difference_of_two_runs_has_both_directions(tmp_path):
    one = run_in(tmp_path / "one", executed(0, 4))
    other = run_in(tmp_path / "other", executed(4, 8))

    (build,) = account.account([one], other, tables)

    assert list(build.gained) == [SourceLine(LAPIC, 10)]
    assert list(build.lost) == [SourceLine(LAPIC, 13)]
    assert build.lines().gained == 1
    assert build.lines().floor is None


def test_run_without_coverage_is_refused(tmp_path):
    with pytest.raises(ConfigError, match="--coverage records it"):
        account.account([tmp_path], None, tables)


def test_file_of_another_kind_is_refused(tmp_path):
    run = run_in(tmp_path, executed(0))
    CaseDir(run / "case-0").executed.write_bytes(b"nothing")
    with pytest.raises(StoreError, match="says nothing of coverage"):
        account.account([run], None, tables)
