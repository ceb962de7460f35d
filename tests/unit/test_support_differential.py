"""The reducer that the differential tests lean on."""

from contextlib import nullcontext

import pytest

from support.differential import Step, assert_agree, first_disagreement, reduce_steps


class Counter:
    """Adds; one that is ``broken`` forgets an add of 7 once 3 has been added."""

    def __init__(self, *, broken):
        self.broken, self.seen, self.sum = broken, set(), 0

    def add(self, number):
        self.seen.add(number)
        if not (self.broken and number == 7 and 3 in self.seen):
            self.sum += number
        return self.sum % 2

    def observe(self):
        return {"sum": bytes([self.sum % 256])}


def open_pair():
    return nullcontext((Counter(broken=False), Counter(broken=True)))


def explain(part, kernel, model):
    return [f"{part}: kernel {kernel[0]}, model {model[0]}"]


def adds(*numbers):
    return [Step("add", (number,)) for number in numbers]


def test_steps_on_which_subjects_agree_have_no_disagreement():
    assert first_disagreement(adds(7, 1, 3, 4), open_pair, explain) is None


def test_disagreement_names_the_step_the_result_and_the_part():
    found = first_disagreement(adds(1, 3, 5, 7, 9), open_pair, explain)

    assert found.index == 3
    assert found.what == ["result: kernel 0, model 1", "sum: kernel 16, model 9"]


def test_reducer_keeps_only_the_steps_that_matter_in_order():
    steps = adds(*range(10), *range(10))

    assert reduce_steps(steps, lambda s: first_disagreement(s, open_pair, explain)) == adds(3, 7)


def test_assert_agree_on_disagreement_prints_the_minimal_steps():
    with pytest.raises(AssertionError) as raised:
        assert_agree(adds(*range(200)), open_pair, explain)

    assert str(raised.value).splitlines() == [
        "kernel and model disagree after 8 steps; 2 suffice:",
        "    add(3)",
        "    add(7)",
        "result: kernel 0, model 1",
        "sum: kernel 10, model 3",
    ]


def test_step_is_printed_as_the_call_that_it_is_with_hexadecimal_numbers():
    assert repr(Step("load", (1, ((0x80, 0x31), (9, 10)), None))) == (
        "load(1, ((0x80, 0x31), (9, 0xa)), None)"
    )
