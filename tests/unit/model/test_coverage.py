"""Instructions that ran, as lines and functions."""

import json

import pytest

from harness.model.coverage import Executed, Function, LineTable, SourceLine, by_build
from support.covered import IRQCHIP, LAPIC, TABLE, executed


@pytest.mark.parametrize(
    ("offsets", "numbers"),
    [
        ((0,), [10]),
        ((3,), [10]),
        ((4,), [11]),
        ((20,), [11]),
        ((24,), []),
        ((), []),
        ((9, 12), [13, 20]),
    ],
)
def test_line_is_reached_where_an_instruction_begins_in_its_code(offsets, numbers):
    reached = TABLE.reached(executed(*offsets))

    assert sorted(line.number for line in reached.lines) == numbers


def test_function_is_reached_with_any_of_its_code_and_sections_are_apart():
    reached = TABLE.reached(executed(0, section=".text.unlikely"))

    assert reached.functions == {Function(IRQCHIP, 4, "kvm_send")}
    assert reached.lines == {SourceLine(IRQCHIP, 5)}


@pytest.mark.parametrize(
    ("number", "name"),
    [(8, None), (9, "apic_one"), (18, "apic_one"), (19, "apic_two"), (99, "apic_two")],
)
def test_function_of_a_line_is_the_last_one_declared_before_it(number, name):
    found = TABLE.function_at(SourceLine(LAPIC, number))

    assert (found.name if found else None) == name


def test_table_is_the_same_after_it_was_written_as_json():
    again = LineTable.of_json(json.loads(json.dumps(TABLE.as_json())))

    assert (again.kernel, again.build_id) == (TABLE.kernel, TABLE.build_id)
    assert dict(again.lines) == TABLE.lines
    assert dict(again.functions) == TABLE.functions


def test_executed_is_the_same_after_it_was_written_as_json():
    one = executed(0, 7, 1 << 20)

    assert Executed.of_json(json.loads(json.dumps(one.as_json()))) == one


def test_executed_of_one_build_counts_together_and_others_are_apart():
    found = by_build(
        [executed(1), executed(2), executed(5, section=".x"), executed(9, build="other")]
    )

    assert found["78fb9d15"].offsets == {".text": {1, 2}, ".x": {5}}
    assert found["other"].offsets == {".text": {9}}


def test_files_are_in_the_order_of_the_chips():
    assert TABLE.files == (LAPIC, IRQCHIP)
