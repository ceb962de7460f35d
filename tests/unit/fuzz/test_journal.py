"""The journal of a campaign."""

import json
from collections import Counter

import pytest

from harness.base.errors import CannotRun, ConfigError
from harness.fuzz.journal import NAME, Campaign, Journal
from harness.fuzz.oracles import Difference, Oracle
from harness.scenario.finding import LogFinding, What

CAMPAIGN = Campaign(7, None, ("local:tcg",), "q35", "qemu64", "0123")
FINDING = LogFinding(What.MISSING, "irq 0x51", "", 3, "step 3: irq 0x51 is missing")
DIFFERENCE = Difference(Oracle.CHIPS, 4, "fuzz-7-4", "mixed", "local:tcg", "model", FINDING)


@pytest.fixture
def folder(tmp_path):
    journal = Journal.begun(tmp_path / "campaign", CAMPAIGN)
    journal.difference(DIFFERENCE)
    journal.round(120, 100, Counter({"local:tcg": 113}), 2.5)
    journal.finding("chips-irq-missing-1", {"explained": False, "programs": [["fuzz-7-4", "x"]]})
    return tmp_path / "campaign"


def changed_first(folder, **changes):
    first, *rest = (folder / NAME).read_text().splitlines()
    lines = [json.dumps(json.loads(first) | changes), *rest]
    (folder / NAME).write_text("\n".join(lines) + "\n")


def test_journal_that_is_resumed_says_what_was_written(folder):
    history = Journal.resumed(folder).history
    assert history.campaign == CAMPAIGN
    assert (history.next, history.programs, history.seconds) == (120, 100, 2.5)
    assert history.executed == {"local:tcg": 113}
    assert list(history.differences.values()) == [DIFFERENCE]
    assert next(iter(history.differences.values())).finding.text == FINDING.text
    assert history.finished == {
        "chips-irq-missing-1": {"explained": False, "programs": [["fuzz-7-4", "x"]]}
    }


def test_difference_is_written_once(folder):
    journal = Journal.resumed(folder)
    before = (folder / NAME).read_text()
    assert not journal.difference(DIFFERENCE)
    assert (folder / NAME).read_text() == before


def test_line_that_was_cut_off_is_dropped_and_written_over(folder):
    whole = (folder / NAME).read_text()
    (folder / NAME).write_text(whole + '{"kind": "round", "ne')
    journal = Journal.resumed(folder)
    journal.round(130, 10, Counter(), 1.0)
    assert Journal.resumed(folder).history.next == 130


def test_folder_that_has_a_journal_takes_no_second_one(folder):
    with pytest.raises(ConfigError, match=r"has a journal already.*--resume"):
        Journal.begun(folder, CAMPAIGN)


def test_folder_without_a_journal_cannot_be_resumed(tmp_path):
    with pytest.raises(ConfigError, match="cannot resume"):
        Journal.resumed(tmp_path)


@pytest.mark.parametrize("change", [{"schema": 99}, {"irqmatrix": "0.0.0"}])
def test_journal_of_another_version_cannot_be_resumed(folder, change):
    changed_first(folder, **change)
    with pytest.raises(CannotRun, match="cannot be resumed"):
        Journal.resumed(folder)


@pytest.mark.parametrize("text", ["", "[]\n", '{"kind": "round"}\n', "nonsense\n"])
def test_file_that_is_no_journal_is_refused(tmp_path, text):
    (tmp_path / NAME).write_text(text)
    with pytest.raises(ConfigError, match="is no journal"):
        Journal.resumed(tmp_path)
