"""The scenarios that travel with the project: their names, and what the model says of them."""

from collections import Counter

import pytest

from harness import resources
from harness.scenario import compile, expect
from harness.scenario.authoring import authoring_problems
from harness.scenario.predict import predict
from harness.scenario.program import Scenario
from userspace_chip.profile import Profile, profile

FILES = sorted((resources.configs() / "scenarios").glob("*.yaml"))
SCENARIOS = [scenario for file in FILES for scenario in compile.load(file)]
PROFILES = (
    profile("on", linux="6.1"),
    profile("on", linux="6.12"),
    profile("split", qemu="7.2", linux="6.1"),
    profile("split", qemu="10.0", linux="6.12"),
    profile("off", linux="6.1"),
    profile("tcg", qemu="7.2"),
    profile("tcg", qemu="10.0"),
)
MISTAKES = {"program", "race", "time"}
MODELLED = [scenario for scenario in SCENARIOS if scenario.no_model is None]


def board(scenario: Scenario) -> str:
    return "microvm" if scenario.machines == {"microvm"} else "pc"


def named(scenario: Scenario) -> str:
    return scenario.name


def profile_name(one: Profile) -> str:
    return f"{one.mode}-{one.qemu}-{one.linux}"


def test_scenarios_have_names_of_their_own():
    assert [name for name, times in Counter(map(named, SCENARIOS)).items() if times > 1] == []


def test_scenarios_say_in_their_file_what_editors_check_it_by():
    first = "# yaml-language-server: $schema=schema.json\n"
    assert [f.name for f in FILES if not f.read_text(encoding="utf-8").startswith(first)] == []


@pytest.mark.parametrize("scenario", MODELLED, ids=named)
def test_scenario_does_as_its_file_expects_on_every_profile(scenario):
    failures = [
        f"{profile_name(one)}: {failure}"
        for one in PROFILES
        for log in [predict(scenario.program, one, board=board(scenario))]
        if not any(event.kind == "skip" for event in log.events)
        for failure in expect.failures(scenario.expect, log, one.mode)
    ]
    assert failures == []


@pytest.mark.parametrize("scenario", MODELLED, ids=named)
def test_scenario_does_not_hang_on_speed_or_order(scenario):
    problems = [
        f"{profile_name(one)}: {problem}"
        for one in (PROFILES[1], PROFILES[3], PROFILES[6])
        for problem in authoring_problems(
            scenario.program,
            one,
            predict(scenario.program, one, board=board(scenario)),
            board=board(scenario),
        )
        if problem.kind in MISTAKES
    ]
    assert problems == []
