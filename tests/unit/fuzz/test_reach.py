"""Programs that reach lines of KVM that none had reached: found, kept, and gone on with."""

import asyncio
import json
from dataclasses import dataclass, field

import pytest
import yaml

from harness.fuzz.campaign import Fuzzer, FuzzRequest, campaign_of
from harness.fuzz.journal import NAME, Journal
from harness.fuzz.reach import CORPUS, PARTS, Reach
from harness.model.layout import CaseDir, RunDir
from harness.record import executed_file
from support import golden
from support.covered import executed, tables
from support.model_bench import ModelBench

GRAMMAR = str(golden.TESTS / "support" / "small-grammar.yaml")
FLOOR = executed(0)
OFFSETS = {"lapic.c:11": 4, "lapic.c:13": 8, "lapic.c:20": 12}


@dataclass
class CoveredBench(ModelBench):
    """Its labs log what a program executes the first time, as TCG does."""

    reaches: dict[str, set[int]] = field(default_factory=dict)
    once: set[int] = field(default_factory=set)
    """Offsets that run the first time only, whatever is run again."""
    numbers: int = 0

    async def record(self, cases, ended=lambda _: None):
        self.boots += len(cases)
        self.cases += cases
        seen = set()
        found = []
        for case in cases:
            recording = self._recorded(case)
            self.numbers += 1
            folder = self.folder / f"case-{self.numbers}"
            folder.mkdir()
            ran = {0}.union(*(self.reaches.get(one.name, set()) for one in case.guest.scenarios))
            executed_file.write(CaseDir(folder).executed, [executed(*(ran - seen))])
            self.reaches = {name: each - self.once for name, each in self.reaches.items()}
            seen |= ran
            object.__setattr__(recording, "directory", folder)
            found.append(recording)
            ended(recording)
        return found


@pytest.fixture
def campaign(tmp_path):
    """Runs programs in a lab where some reach lines: the fuzzer, its bench, and what was said."""

    def run(programs=60, reaches=None, once=()):
        folder = tmp_path / "campaign"
        (tmp_path / "work").mkdir(exist_ok=True)
        bench = CoveredBench(tmp_path / "work", reaches=dict(reaches or {}), once=set(once))
        bench.numbers = len(list((tmp_path / "work").iterdir()))
        request = FuzzRequest(sides=("lab:on",), seed=5, only=GRAMMAR)
        journal = (
            Journal.resumed(folder)
            if folder.exists()
            else Journal.begun(folder, campaign_of(request))
        )
        said = []
        reach = Reach(folder, bench, [FLOOR], tables)
        fuzzer = Fuzzer(journal, bench, said.append, reach)
        asyncio.run(fuzzer.run(programs, None))
        return fuzzer, bench, said

    return run


def names_of(fuzzer, count):
    """Programs of the campaign, from all of its length."""
    number, found = 0, []
    while len(found) < count:
        program = fuzzer.source.program(number)
        number += 1
        if program is not None:
            found.append(program.name)
    return found


@pytest.fixture
def names(campaign, tmp_path):
    """The programs of the campaign."""
    request = FuzzRequest(sides=("lab:on",), seed=5, only=GRAMMAR)
    journal = Journal.begun(tmp_path / "names", campaign_of(request))
    return names_of(Fuzzer(journal, ModelBench(tmp_path)), 60)


def corpus(fuzzer):
    return fuzzer.journal.history.corpus


def test_programs_that_reach_new_lines_are_found_and_written(campaign, names, tmp_path):
    fuzzer, _, _ = campaign(reaches={names[7]: {4}, names[41]: {8, 12}})

    assert corpus(fuzzer) == {names[7]: ("lapic.c:11",), names[41]: ("lapic.c:13", "lapic.c:20")}
    written = tmp_path / "campaign" / CORPUS
    assert {path.stem for path in written.iterdir()} == {names[7], names[41]}
    text = (written / f"{names[41]}.yaml").read_text()
    assert "lapic.c:13" in text
    assert list(yaml.safe_load(text)["scenarios"]) == [names[41]]


def test_line_that_several_programs_reach_is_of_the_first(campaign, names):
    fuzzer, _, _ = campaign(reaches={names[30]: {4}, names[50]: {4}})

    assert corpus(fuzzer) == {names[30]: ("lapic.c:11",)}


def test_campaign_that_reaches_nothing_new_boots_no_more_than_its_programs_need(campaign):
    fuzzer, bench, said = campaign()

    assert corpus(fuzzer) == {}
    assert bench.boots == 1
    assert any("1 lines of KVM's chips, corpus 0" in text for text in said)


def test_program_of_a_batch_is_found_with_few_boots(campaign, names):
    _, bench, _ = campaign(reaches={names[7]: {4}})

    assert bench.boots <= 1 + 2 * PARTS


def test_line_that_is_not_reached_again_is_said_and_has_no_program(campaign, names):
    fuzzer, _, said = campaign(reaches={names[7]: {4}}, once=[4])

    assert corpus(fuzzer) == {}
    assert any("reached once, and not again: lapic.c:11" in text for text in said)


def test_campaign_that_goes_on_knows_what_was_reached(campaign, names, tmp_path):
    campaign(30, reaches={names[7]: {4}})
    fuzzer, _, _ = campaign(60, reaches={names[7]: {4}, names[45]: {4, 8}})

    assert corpus(fuzzer) == {names[7]: ("lapic.c:11",), names[45]: ("lapic.c:13",)}
    (whole,) = executed_file.read(CaseDir(tmp_path / "campaign").executed)
    assert whole.offsets == {".text": {0, 4, 8}}
    assert executed_file.read(RunDir(tmp_path / "campaign").floor) == (FLOOR,)


def test_journal_has_each_program_of_the_corpus(campaign, names, tmp_path):
    campaign(reaches={names[7]: {4}})

    records = map(json.loads, (tmp_path / "campaign" / NAME).read_text().splitlines())
    (record,) = (one for one in records if one["kind"] == "reached")
    assert record["program"] == names[7]
    assert record["side"] == "lab:on"
