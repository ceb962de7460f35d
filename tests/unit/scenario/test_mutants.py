"""Every mutant of the model is told from the true one by a scenario of the repository."""

from functools import cache

import pytest

from harness.scenario.compare import first_divergence, unordered_steps
from harness.scenario.compile import load
from harness.scenario.predict import predict
from support import golden
from support.mutants import DIRECTED_MUTANTS, MUTANTS

FOLDER = golden.TESTS.parent / "configs" / "scenarios"


@cache
def scenarios_of(path):
    return [scenario for scenario in load(path) if scenario.no_model is None]


def predicted(scenario, subject):
    board = "microvm" if scenario.machines == {"microvm"} else "pc"
    return predict(scenario.program, subject, board=board)


truth = cache(predicted)


def tellers(mutant):
    """The scenarios, those that are likely to tell it first, with what they say."""
    paths = sorted(FOLDER.glob("*.yaml"), key=lambda path: not path.name.startswith(mutant.files))
    for path in paths:
        expected = [truth(scenario, mutant.subject) for scenario in scenarios_of(path)]
        with mutant.alive() as subject:
            found = [predicted(scenario, subject) for scenario in scenarios_of(path)]
        for scenario, *logs in zip(scenarios_of(path), expected, found, strict=True):
            unordered = unordered_steps(scenario.program)
            divergence = first_divergence(*logs, unordered=unordered)
            if divergence is not None:
                yield scenario, divergence


@pytest.mark.parametrize("mutant", MUTANTS + DIRECTED_MUTANTS, ids=lambda mutant: mutant.name)
def test_mutant_is_told_by_a_scenario_which_names_the_first_divergent_event(mutant):
    scenario, divergence = next(tellers(mutant), (None, None))
    assert divergence is not None, "no scenario tells this mutant from the true model"
    text = divergence.describe(scenario.steps, names=("model", "mutant"))
    assert text.startswith(f"step {divergence.step} ({scenario.steps[divergence.step]})")
    assert divergence.expected != divergence.found
