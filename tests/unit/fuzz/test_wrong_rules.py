"""Random programs tell the chips from those with one wrong rule, within 500 programs."""

from __future__ import annotations

from functools import cache

import pytest

from harness.fuzz import grammar
from harness.fuzz.programs import Program, Source
from harness.repro.bench import predicted
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
            if predicted(one.scenario, wrong, "pc") != one.predicted[subject]:
                return
    pytest.fail(f"none of {PROGRAMS} programs shows it")
