"""Reproducers in a run that is judged anew: by their entries, as the run did."""

from harness.commands.judge import _assessed, _regressions
from harness.config.lanes import Lane
from harness.repro import catalogue
from harness.repro.regressions import _regression
from support import runs

ENTRY = catalogue.load(next(iter(catalogue.shipped().values())))


def test_cases_of_a_reproducer_are_the_regression_that_the_run_had():
    lanes = Lane("default", "system"), Lane("6.12", "10.0")
    planned = [_regression(ENTRY, lane) for lane in lanes]
    cases = [case for regression in planned for case in regression.cases]

    found = list(_regressions(cases))

    assert [(one.entry.id, one.cases) for one in found] == [
        (one.entry.id, one.cases) for one in planned
    ]


def test_run_without_reproducers_stays_as_it_is(tmp_path):
    assert _assessed(runs.EVERYTHING, {}, tmp_path) == runs.EVERYTHING
