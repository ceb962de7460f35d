"""The author of random scenarios."""

import pytest

from harness.fuzz import grammar
from harness.fuzz.author import write

HEAD = """\
version: 1
about: a grammar for tests
steps: [5, 5]
"""


@pytest.fixture
def scenario(tmp_path):
    def of(text, number=0):
        path = tmp_path / "mine.yaml"
        path.write_text(HEAD + text, encoding="utf-8")
        return write(1, number, [grammar.load(path)]).data

    return of


def test_scenario_of_a_number_is_always_the_same():
    grammars = grammar.shipped()
    assert write(3, 17, grammars) == write(3, 17, grammars)


def test_scenarios_of_other_seeds_are_others():
    grammars = grammar.selected("mixed")
    assert write(3, 17, grammars).data != write(4, 17, grammars).data


def test_value_that_is_drawn_counts_for_the_whole_action(scenario):
    data = scenario(
        "values: {pin: [3, 4, 5]}\n"
        "actions: [{do: [{line: {$pin: high}}, {line: {$pin: low}}], where: [steps]}]"
    )
    for step in data["steps"]:
        rise, fall = step["do"]
        assert list(rise["line"]) == list(fall["line"])


def test_value_in_a_word_is_decimal_for_pins_and_hexadecimal_for_addresses(scenario):
    data = scenario(
        "values: {pin: [14], address: [0xfed00000]}\n"
        "actions: [{do: {read: [ioapic.redir.$pin, mem.$address]}, where: [steps]}]"
    )
    assert data["steps"][0] == {"read": ["ioapic.redir.14", "mem.0xfed00000"]}


def test_value_may_be_a_template(scenario):
    data = scenario(
        "values: {entry: [{vector: $v}], v: [0x51]}\n"
        "actions: [{do: {ioapic.redir.3: $entry}, where: [steps]}]"
    )
    assert data["steps"][0] == {"ioapic.redir.3": {"vector": 0x51}}


def test_handlers_say_no_cpu_and_have_only_what_may_stand_there(scenario):
    data = scenario(
        "values: {vector: [0x51]}\n"
        "handlers: {probability: 1, actions: 4, sti: 0}\n"
        "actions:\n"
        "  - {do: {cpu: $cpu, eoi: }, where: [handlers]}\n"
        "  - {do: {delay_us: 1}, where: [steps]}"
    )
    assert data["handlers"][0x51]["do"] == ["eoi"] * 4
    assert data["steps"] == [{"delay_us": 1}] * 5


def test_action_of_a_mode_follows_the_changes_of_mode(scenario):
    data = scenario(
        "actions:\n"
        "  - {do: {lapic.base: {enable: true, x2apic: true}}, modes: [xapic], becomes: x2apic,"
        " where: [steps]}\n"
        "  - {do: {read: msr.0x802}, modes: [x2apic], where: [steps]}"
    )
    assert data["steps"][0] == {"lapic.base": {"enable": True, "x2apic": True}}
    assert data["steps"][1:] == [{"read": "msr.0x802"}] * 4


def test_action_for_more_cpus_than_there_are_does_not_come(scenario):
    data = scenario(
        "actions:\n"
        "  - {do: {ipi: {vector: 0x51, dest: 1}}, cpus: 2, where: [steps]}\n"
        "  - {do: cli, where: [steps]}"
    )
    assert data["steps"] == ["cli"] * 5


def test_first_and_last_steps_are_always_there(scenario):
    data = scenario("begin: [cli]\nend: [sti]\nactions: [{do: eoi, where: [steps]}]")
    assert (data["steps"][0], data["steps"][-1]) == ("cli", "sti")
    assert len(data["steps"]) == 7
