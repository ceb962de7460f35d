"""Shrinking on data: what is kept is what it hangs on, and nothing is asked twice."""

import asyncio

import pytest

from harness.scenario.shrink import Edit, edited, shrink, simplifications, size


def shrunk(data, condition):
    """The result, the candidates of each round, and the sizes that were told."""
    rounds, told = [], []

    async def holds(candidates):
        rounds.append(list(candidates))
        return [condition(candidate) for candidate in candidates]

    result = asyncio.run(shrink(data, holds, lambda number, left: told.append(size(left))))
    return result, rounds, told


def steps_with(*wanted):
    return lambda data: set(wanted) <= {str(step) for step in data.get("steps", ())}


def test_shrink_keeps_just_the_steps_that_it_hangs_on():
    data = {"about": "x", "steps": [f"s{number}" for number in range(40)]}

    result, rounds, _ = shrunk(data, steps_with("s3", "s17", "s38"))

    assert result == {"about": "x", "steps": ["s3", "s17", "s38"]}
    assert len(rounds) <= 12


def test_shrink_asks_nothing_twice_and_never_gets_bigger():
    data = {"steps": [{"do": ["a", "b", "c"]}, "d", "e", "f"]}

    _, rounds, told = shrunk(data, lambda data: "b" in str(data["steps"]))

    asked = [repr(candidate) for candidates in rounds for candidate in candidates]
    assert len(asked) == len(set(asked))
    assert told == sorted(told, reverse=True)


def test_shrink_takes_fields_actions_handlers_and_cpus_away():
    data = {
        "about": "x",
        "cpus": 4,
        "handlers": {
            0x51: {"eoi": "after", "first": {"times": 3, "do": ["x", {"line": {14: "low"}}]}},
            0x61: {"eoi": "before"},
        },
        "steps": [{"cpu": 1, "ioapic.redir.14": {"vector": 0x51, "trigger": "level"}}],
    }

    def condition(data):
        first = data.get("handlers", {}).get(0x51, {}).get("first", {})
        step = (data.get("steps") or [{}])[0]
        return {"line": {14: "low"}} in first.get("do", []) and "vector" in step.get(
            "ioapic.redir.14", {}
        )

    assert shrunk(data, condition)[0] == {
        "about": "x",
        "handlers": {0x51: {"first": {"do": [{"line": {14: "low"}}]}}},
        "steps": [{"ioapic.redir.14": {"vector": 0x51}}],
    }


@pytest.mark.parametrize(
    ("step", "smaller"),
    [
        ({"do": ["sti"]}, "sti"),
        ({"cpu": 1, "do": ["sti"]}, {"cpu": 1, "sti": None}),
        ({"do": [{"line": {14: "high"}}]}, {"line": {14: "high"}}),
        ({"repeat": {"times": 5, "do": ["sti", "cli"]}}, {"do": ["sti", "cli"]}),
        ({"repeat": {"times": 5, "do": ["sti"]}}, {"repeat": {"times": 2, "do": ["sti"]}}),
    ],
)
def test_simplifications_of_a_group_offer_what_is_in_it(step, smaller):
    data = {"steps": [step]}

    assert {"steps": [smaller]} in [edited(data, [edit]) for edit in simplifications(data)]


def test_simplifications_leave_what_the_scenario_is_said_to_be():
    data = {"about": "x", "machines": ["microvm"], "model": "why", "steps": ["a"]}

    assert [edited(data, [edit]) for edit in simplifications(data)] == [{**data, "steps": []}]


def test_edited_takes_places_as_they_were_before_all_edits():
    data = {"steps": ["a", "b", {"do": ["c"]}, "d"]}
    edits = [Edit(frozenset({("steps", 0), ("steps", 3)})), Edit(at=("steps", 2), value="c")]

    assert edited(data, edits) == {"steps": ["b", "c"]}


def test_shrink_of_edits_that_exclude_each_other_takes_one_of_them():
    data = {"steps": ["a", "b", "c"]}

    result, _, _ = shrunk(data, lambda data: len(set(data["steps"]) & {"a", "b"}) > 0)

    assert result["steps"] in (["a"], ["b"])


@pytest.mark.parametrize("model", [{}, {"model": "compared between backends"}])
def test_shrink_leaves_a_step_its_time_where_no_model_says_how_much_it_needs(model):
    data = {
        **model,
        "steps": [
            {"delay_us": 5},
            {"do": ["x", {"delay_us": 7}, "y", "seen"]},
            {"repeat": {"times": 3, "do": [{"delay_us": 9}, "again"]}},
        ],
    }

    def condition(data):
        repeats = [step["repeat"] for step in data["steps"] if "repeat" in step]
        return "seen" in str(data["steps"]) and all({"times", "do"} <= {*one} for one in repeats)

    result, _, _ = shrunk(data, condition)
    assert result["steps"] == ([{"do": [{"delay_us": 7}, "seen"]}] if model else ["seen"])


@pytest.mark.parametrize(("model", "times"), [({}, 1), ({"model": "compared"}, 3)])
def test_shrink_repeats_a_delay_as_often_as_before_where_no_model_knows(model, times):
    group = {"repeat": {"times": 3, "do": [{"delay_us": 9}, "again"]}}

    def condition(data):
        return (
            set(data["steps"][0].get("repeat", ())) == {"times", "do"} if data["steps"] else False
        )

    result, _, _ = shrunk({**model, "cpus": 2, "steps": [group]}, condition)
    assert result["steps"][0]["repeat"]["times"] == times
