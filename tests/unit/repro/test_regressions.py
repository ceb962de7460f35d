"""Reproducers as regression tests: what is planned, and what their answers make of a run."""

from __future__ import annotations

import asyncio
import dataclasses
from pathlib import Path
from types import SimpleNamespace

import pytest
from rich.console import Console

from harness.base.errors import ConfigError
from harness.config import config
from harness.model.verdict import Verdict
from harness.repro import catalogue, regressions
from support.repro_entries import case_result, run_result, write_case, write_entry

CONFIG = """
version: 1
matrix: {host: local, accel: tcg}
guests: [{kind: linux, workloads: [idle]}]
repro:
  entries: [ENTRIES]
  lanes:
    - {kernel: "6.1", qemu: "7.2"}
    - {kernel: "6.12", qemu: "10.0"}
"""


@pytest.fixture
def loaded(tmp_path, monkeypatch):
    """A configuration that names reproducers, of which there is one."""
    entry = write_entry(tmp_path)
    monkeypatch.setattr(catalogue, "shipped", lambda: {"small": entry})

    def load(entries: str = "sm*"):
        path = tmp_path / "nightly.config"
        path.write_text(CONFIG.replace("ENTRIES", entries))
        return config.load(path)

    return load


def judged(planned, directory: Path, lowered: int, **versions: str):
    """A run in which the entry's one decisive case lowered GSI 0 so often."""
    (regression,) = planned
    (case,) = regression.cases
    write_case(directory, case, lowered, **versions)
    found = run_result(dataclasses.replace(case_result(case), as_expected=False))
    return regressions.judged(found, planned, directory)


def test_planned_reproducers_are_cases_of_their_own_for_each_pair_of_versions(loaded):
    planned = regressions.planned(loaded())
    assert [case.id for regression in planned for case in regression.cases] == [
        "repro-small/linux/q35/qemu64/smp1/lab-kvm-on-qemu7.2-linux6.1",
        "repro-small/linux/q35/qemu64/smp1/lab-kvm-on-qemu10.0-linux6.12",
    ]


def test_planned_reproducer_that_there_is_not_is_refused(loaded):
    with pytest.raises(ConfigError, match="no reproducer matches 'large'"):
        regressions.planned(loaded("large"))


def test_planned_config_without_reproducers_has_none(loaded):
    plain = dataclasses.replace(loaded(), repro=None)
    assert regressions.planned(plain) == ()


def test_judged_bug_that_shows_where_it_should_is_as_expected(loaded, tmp_path):
    planned = regressions.planned(loaded())[1:]
    found = judged(planned, tmp_path / "run", 1000)
    (case,) = found.cases
    assert case.as_expected
    assert case.parts[-1].id == "small"
    assert case.parts[-1].detail.startswith("reproduced: ")
    assert found.summary.exit_status == 0


def test_judged_bug_that_no_longer_shows_fails_and_is_called_xpass(loaded, tmp_path):
    planned = regressions.planned(loaded())[1:]
    found = judged(planned, tmp_path / "run", 0)
    (case,) = found.cases
    assert not case.as_expected
    assert case.parts[-1].verdict is Verdict.FAIL
    assert case.parts[-1].detail.startswith("XPASS")
    assert found.summary.not_as_expected == (case.id,)


@pytest.mark.parametrize("shows", [True, False])
def test_again_bug_that_shows_the_second_time_is_as_expected_and_unsteady(
    loaded, tmp_path, monkeypatch, shows
):
    planned = regressions.planned(loaded())[:1]
    first = judged(planned, tmp_path / "first", 0)
    second = judged(planned, tmp_path / "second", 1000 if shows else 0)
    (case,) = planned[0].cases

    async def reproduce(request, console, *, quiet):
        run = dataclasses.replace(second, cases=(case_result(case),))
        assessment = regressions.assess(request.entry, run, tmp_path / "second")
        return SimpleNamespace(assessment=assessment)

    monkeypatch.setattr(regressions, "reproduce", reproduce)
    again = regressions._again(first, planned[0], 1, tmp_path, Console(quiet=True))
    final = asyncio.run(again)

    (found,) = final.cases
    assert (found.as_expected, found.flaky) == (shows, shows)
    assert found.first_time.startswith("fail: XPASS")
    assert len(found.parts) == len(first.cases[0].parts)
    assert final.summary.exit_status == (0 if shows else 1)


def test_judged_bug_in_a_version_that_should_not_have_it_fails(loaded, tmp_path):
    planned = regressions.planned(loaded())[:1]
    found = judged(planned, tmp_path / "run", 1000, qemu="7.2.22", linux="6.1.192")
    assert "should not show" in found.cases[0].parts[-1].detail
    assert found.summary.exit_status == 1


def test_judged_run_that_left_a_reproducer_out_is_as_it_was(loaded, tmp_path):
    planned = regressions.planned(loaded())
    found = run_result()
    assert regressions.judged(found, planned, tmp_path).cases == ()
