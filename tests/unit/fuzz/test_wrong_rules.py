"""Random programs tell the chips from those with one wrong rule, within 500 programs."""

from __future__ import annotations

from functools import cache

import pytest

from harness.base.errors import PredictionError
from harness.fuzz import grammar
from harness.fuzz.programs import Program, Source
from harness.scenario.log import Log
from harness.scenario.predict import predict
from support.mutants import MUTANTS, Mutant
from userspace_chip.profile import Profile

PROGRAMS = 500
SEED = 2


@cache
def source(subject: Profile) -> Source:
    return Source(SEED, grammar.selected(None), (subject,))


@cache
def program(subject: Profile, number: int) -> Program | None:
    return source(subject).program(number)


def log_of(one: Program, subject: Profile) -> Log | None:
    try:
        return predict(one.scenario.program, subject)
    except PredictionError:
        return None


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.name)
def test_wrong_rule_changes_the_log_of_a_random_program(mutant: Mutant):
    subject, number, found = mutant.subject, 0, 0
    while found < PROGRAMS:
        one = program(subject, number)
        number += 1
        if one is None:
            continue
        found += 1
        with mutant.alive() as wrong:
            if log_of(one, wrong) != one.predicted[subject]:
                return
    pytest.fail(f"none of {PROGRAMS} programs shows it")
