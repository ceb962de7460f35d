"""Grammars: what their files say, and what is said of mistakes in them."""

import os
import subprocess
import sys

import pytest

from harness.base.errors import ConfigError
from harness.fuzz import grammar

MINIMAL = """\
version: 1
about: a grammar for tests
steps: [1, 3]
values: {vector: [0x51, 0x61], flag: {false: 3, true: 1}}
actions:
  - {weight: 2, do: {ipi: {vector: $vector, shorthand: self}}}
"""


@pytest.fixture
def load(tmp_path):
    def of(text):
        path = tmp_path / "mine.yaml"
        path.write_text(text, encoding="utf-8")
        return grammar.load(path)

    return of


def test_grammar_has_its_files_name_and_values_with_their_weights(load):
    found = load(MINIMAL)

    assert found.name == "mine"
    assert found.values["vector"] == grammar.Choice((0x51, 0x61), (1.0, 1.0))
    assert found.values["flag"] == grammar.Choice((False, True), (3.0, 1.0))
    assert [action.weight for action in found.actions] == [2]


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("$vector", "$vektor", r"mine.yaml:6: there is no value \$vektor .did you mean 'vector'"),
        ("weight: 2", "weight: 0", "generates nothing"),
        ("true: 1", "true: 0", "weights are numbers above 0"),
        ("[0x51, 0x61]", "[]", "nothing to choose from"),
        ("steps:", "setps: 1\nsteps:", "unknown key 'setps'"),
    ],
)
def test_grammar_with_a_mistake_is_refused_with_its_place(load, old, new, message):
    with pytest.raises(ConfigError, match=message):
        load(MINIMAL.replace(old, new))


def test_grammar_that_is_not_there_is_named_with_the_nearest():
    with pytest.raises(ConfigError, match=r"no grammar 'mixt'.*'mixed'"):
        grammar.selected("mixt")


def test_grammar_may_be_a_file_of_ones_own(load, tmp_path):
    load(MINIMAL)
    assert [one.name for one in grammar.selected(str(tmp_path / "mine.yaml"))] == ["mine"]


def test_shipped_grammars_cover_every_chip():
    names = {one.name for one in grammar.shipped()}
    assert names == {
        *("cpus", "devices", "ioapic", "ioapic2", "lapic", "mixed", "msi", "pic", "pit", "timer"),
        "x2apic",
    }


@pytest.mark.parametrize(("machine", "has_it"), [("q35", False), ("pc", False), ("microvm", True)])
def test_grammar_of_one_machine_is_no_part_of_what_a_seed_means_on_others(machine, has_it):
    names = [one.name for one in grammar.selected(None, machine)]
    assert ("ioapic2" in names) is has_it
    assert "mixed" in names


def test_digest_changes_with_a_value(load):
    assert grammar.digest([load(MINIMAL)]) != grammar.digest(
        [load(MINIMAL.replace("0x61", "0x62"))]
    )


def test_placeholders_are_found_in_keys_and_values():
    template = [{"ioapic.redir.$pin": {"vector": "$vector"}}, "$word"]
    assert grammar.placeholders(template) == {"pin", "vector", "word"}


def test_digest_is_the_same_in_every_process():
    code = "from harness.fuzz import grammar; print(grammar.digest(grammar.shipped()))"
    found = {
        subprocess.run(
            [sys.executable, "-c", code],
            env={**os.environ, "PYTHONHASHSEED": seed},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for seed in ("1", "2")
    }
    assert len(found) == 1
