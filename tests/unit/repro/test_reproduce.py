import asyncio
import dataclasses
import json
from dataclasses import replace

import pytest
from rich.console import Console

from harness.base.errors import CollectError
from harness.ledger.ledger import LawResult, Ledger, Row
from harness.model.case import Irqchip, Vmm
from harness.model.verdict import Verdict
from harness.report.text import repro_report
from harness.repro import catalogue, reproduce
from harness.repro.reproduce import Answer, Unknown
from support.repro_entries import ENTRY, case_result, recorded, run_result, write_case, write_entry
from support.showing import shown


@pytest.fixture
def entry(tmp_path):
    return catalogue.load(write_entry(tmp_path))


def assess(entry, directory, lowered, **versions):
    return reproduce.assess(entry, recorded(entry, directory, lowered, **versions), directory)


def test_assess_signs_that_hold_are_reproduced(entry, tmp_path):
    found = assess(entry, tmp_path / "run", {"on": 1000, "split": 0})
    assert (found.outcome, found.exit_status, found.bisect_status) == (Answer.REPRODUCED, 0, 1)
    assert [item.value for item in found.measured] == [500.0, 0.0]


def test_assess_sign_that_does_not_hold_is_not_reproduced_and_says_why(entry, tmp_path):
    found = assess(entry, tmp_path / "run", {"on": 2, "split": 0})
    assert (found.outcome, found.bisect_status) == (Answer.NOT_REPRODUCED, 0)
    assert found.reason == "lines that go low, a second: on 1 (expected at least 100)"


def test_assess_missing_bug_is_as_expected_in_a_version_that_is_not_affected(entry, tmp_path):
    known = assess(entry, tmp_path / "known", {"on": 0, "split": 0}, qemu="7.2.22")
    gone = assess(entry, tmp_path / "gone", {"on": 0, "split": 0}, qemu="10.0.2")
    assert (known.exit_status, gone.exit_status) == (0, 1)


def test_assess_bug_in_a_version_that_is_not_affected_is_not_as_expected(entry, tmp_path):
    found = assess(entry, tmp_path / "run", {"on": 1000, "split": 0}, qemu="7.2.22")
    assert (found.outcome, found.expected) == (Answer.REPRODUCED, Answer.NOT_REPRODUCED)
    assert found.exit_status == 1


def test_assess_other_mode_that_has_it_too_is_not_reproduced(entry, tmp_path):
    found = assess(entry, tmp_path / "run", {"on": 1000, "split": 1000})
    assert found.outcome is Answer.NOT_REPRODUCED


def test_assess_mode_that_is_not_needed_may_be_missing(entry, tmp_path):
    assert assess(entry, tmp_path / "run", {"on": 1000}).outcome is Answer.REPRODUCED


def test_assess_live_chips_answer_for_the_mode_that_they_have(entry, tmp_path):
    _, split = entry.config().cases
    live = replace(split, backend=replace(split.backend, vmm=Vmm.PYCHIP))
    entry = replace(entry, modes=(Irqchip.SPLIT,))
    found = reproduce.assess(entry, run_result(case_result(live)), tmp_path)
    assert [item.mode for item in found.measured] == [Irqchip.SPLIT]
    assert "nothing was run in mode" not in found.reason


def test_assess_needed_mode_that_is_missing_cannot_be_run(entry, tmp_path):
    found = assess(entry, tmp_path / "run", {"split": 0})
    assert (found.outcome, found.exit_status, found.bisect_status) == (Answer.CANNOT_RUN, 3, 125)


@pytest.mark.parametrize("verdict", [Verdict.SKIP, Verdict.ERROR])
def test_assess_case_without_parts_cannot_be_run_and_says_why(entry, tmp_path, verdict):
    (case, _) = entry.config().cases
    result = run_result(case_result(case, verdict, parts=(), detail="no KVM here"))
    found = reproduce.assess(entry, result, tmp_path)
    assert found.outcome is Answer.CANNOT_RUN
    assert "no KVM here" in found.reason


def test_assess_counter_that_nobody_can_see_cannot_be_run(entry, tmp_path):
    (case, _) = entry.config().cases
    write_case(tmp_path, case, 0)
    path = tmp_path / case.directory_name / "counters.json"
    document = json.loads(path.read_text())
    document["idle"]["not_observable"] = [
        {"source": "kvm", "counter": "lowered/*", "reason": "events were lost"}
    ]
    path.write_text(json.dumps(document))
    found = reproduce.assess(entry, run_result(case_result(case)), tmp_path)
    assert (found.outcome, found.reason) == (Answer.CANNOT_RUN, "lab-kvm-on: events were lost")


SIGNS = {
    "metric: count, part: idle": 4.0,
    "metric: word, part: idle": "yes",
    "metric: absent, part: idle": Unknown("idle reports no absent"),
    "verdict: idle": "pass",
    'verdict: "*"': "pass",
    'detail: "*"': "all went well",
    "observation: monitor.ioapic.version": "0x11",
    "observation: monitor.other": Unknown("monitor.other was not observed"),
    "counter: lowered/gsi/0, source: kvm, part: idle": 10.0,
    "counter: lowered/gsi/0, source: kvm, part: idle, per: count": 2.5,
    'counter: lowered/gsi/0, source: kvm, part: idle, per: "lowered/gsi/0 [kvm]"': 1.0,
    "counter: lowered/gsi/0, source: kvm, part: idle, per: word": Unknown("word is 'yes'"),
    "counter: lowered/gsi/0, source: qemu, part: idle": Unknown("qemu was not asked"),
}


@pytest.mark.parametrize("sign", SIGNS)
def test_sign_is_measured(tmp_path, sign):
    head = ENTRY.split("signs:")[0] + "signs:\n"
    text = f'  - {{what: anything at all, {sign}, expect: {{"on": 1}}}}\n'
    tail = "seen:" + ENTRY.split("seen:")[1]
    entry = catalogue.load(write_entry(tmp_path, head + text + tail))
    case = entry.config().cases[0]
    write_case(tmp_path, case, 10)
    result = case_result(
        case, detail="all went well", observations={"monitor.ioapic.version": "0x11"}
    )
    (item,) = reproduce.assess(entry, run_result(result), tmp_path).measured
    assert item.value == SIGNS[sign]


def test_facts_are_those_of_the_case_file(entry, tmp_path):
    case = entry.config().cases[0]
    write_case(tmp_path, case, 0, qemu="9.1.0", linux="6.1.192")
    facts = reproduce.facts_of(tmp_path / case.directory_name)
    assert (facts.qemu, facts.linux) == ((9, 1, 0), (6, 1, 192))


def reproduction(entry, directory, lowered):
    result = recorded(entry, directory, lowered)
    assessment = reproduce.assess(entry, result, directory)
    return reproduce.Reproduction(entry, entry.config(), result, directory, assessment)


def test_report_has_values_side_by_side_and_the_answer(entry, tmp_path):
    found = reproduction(entry, tmp_path / "run", {"on": 1000, "split": 0})
    text = shown(repro_report.reproduction_report(found, {}))
    assert "500 (expected at least 100)" in text
    assert "0 (expected at most 10)" in text
    assert "small: reproduced: lines that go low, a second: on 500, split 0" in text


def test_report_has_of_each_case_its_ledger_or_why_it_cannot_be_read(entry, tmp_path):
    found = reproduction(entry, tmp_path / "run", {"on": 1000, "split": 0})
    on, split = found.result.cases
    law = LawResult("every line", "balanced", 1, 1, 0, "")
    row = Row("ioapic", 4, None, {"raised": 1})
    ledger = Ledger(Irqchip.ON, 1, (row,), (law,), (), 0, ())
    ledgers = {on.id: ledger, split.id: CollectError("it is cut off")}

    lines = shown(repro_report.reproduction_report(found, ledgers)).splitlines()

    assert "  1 of 1 laws of the ledger are observable and hold" in lines
    assert "  its ledger cannot be read: it is cut off" in lines


def test_report_answer_against_the_catalogue_is_said_loudly(entry, tmp_path):
    found = reproduction(entry, tmp_path / "run", {"on": 0, "split": 0})
    text = shown(repro_report.answer(found))
    assert "not reproduced here" in text
    assert "NOT what the catalogue says" in text


def test_report_json_has_measured_values_and_reasons(entry, tmp_path):
    document = json.loads(
        repro_report.reproduction_json(reproduction(entry, tmp_path / "run", {"on": 1000}))
    )
    assert document["outcome"] == "reproduced"
    assert [row["value"] for row in document["measured"]] == [500.0]


def test_list_shows_symptom_and_what_was_seen(entry):
    text = shown(repro_report.catalogue_table([entry]))
    assert "a symptom that fits on one line" in text
    assert "QEMU 10.0.2, Linux 6.12.95: on 500/s; split 0/s" in text
    assert json.loads(repro_report.catalogue_json([entry]))[0]["affected"] == "QEMU >=9.1"


class Runs:
    """Stands for the runs of a reproducer: one number of lowered lines after the other."""

    def __init__(self, *lowered: int) -> None:
        self.lowered = list(lowered)
        self.jobs = []

    async def run(self, job, console, *, quiet):
        self.jobs.append(job)
        directory = job.out
        directory.mkdir(parents=True)
        results = []
        for case in job.config.cases:
            write_case(directory, case, self.lowered[0] if "-on" in case.backend.name else 0)
            results.append(case_result(case))
        self.lowered.pop(0)
        return run_result(*results), directory


@pytest.mark.parametrize(
    ("lowered", "outcome"),
    [
        ((1000,), Answer.REPRODUCED),
        ((0, 1000), Answer.REPRODUCED),
        ((0, 0), Answer.NOT_REPRODUCED),
    ],
)
def test_reproduce_tries_again_only_where_it_should_show_and_does_not(
    tmp_path, monkeypatch, lowered, outcome
):
    again = 'again: [{guests: [{kind: linux, workloads: [idle], append: "more"}]}]\n'
    entry = catalogue.load(write_entry(tmp_path, ENTRY + again))
    runs = Runs(*lowered)
    monkeypatch.setattr(reproduce.pipeline, "run", runs.run)
    request = reproduce.ReproRequest(entry, out=tmp_path / "out", decisive_only=True)
    found = asyncio.run(reproduce.reproduce(request, Console(quiet=True), quiet=True))

    assert (found.assessment.outcome, len(runs.jobs)) == (outcome, len(lowered))
    assert {case.backend.irqchip for case in found.config.cases} == {"on"}


LOG = """step 1, CPU 0: irq 0x51
step 1, CPU 1: irq 0x51
step 4, CPU 1: irq 0x51
step 4, CPU 1: read 0x10
step 4, CPU 1: read 0x0
step 14, CPU 1: read 0x1
"""


@pytest.mark.parametrize(
    ("quantity", "value"),
    [
        ('log: "CPU 1: irq"', 2.0),
        ('log: "CPU 2"', 0.0),
        ("read: 4", "0x10 0x0"),
        ("read: 1", "nothing"),
    ],
)
def test_sign_of_a_scenarios_log_is_measured(tmp_path, quantity, value):
    head = ENTRY.split("signs:")[0] + "signs:\n"
    text = f'  - {{what: entries on CPU 1, {quantity}, part: idle, expect: {{"on": {{min: 2}}}}}}\n'
    tail = "seen:" + ENTRY.split("seen:")[1]
    entry = catalogue.load(write_entry(tmp_path, head + text + tail))
    case = entry.config().cases[0]
    write_case(tmp_path, case, 0)
    kept = {"idle": {"log": LOG}}
    (tmp_path / case.directory_name / "scenarios.json").write_text(json.dumps(kept))
    (item,) = reproduce.assess(entry, run_result(case_result(case)), tmp_path).measured
    assert item.value == value


@pytest.mark.parametrize(
    ("here", "outcome"), [("kvm_pvm", Answer.REPRODUCED), ("kvm_amd", Answer.CANNOT_RUN)]
)
def test_assess_entry_about_one_kvm_of_this_machine_cannot_be_run_on_another(
    tmp_path, here, outcome
):
    entry = catalogue.load(write_entry(tmp_path, ENTRY + "host_kvm: kvm_pvm\n"))
    directory = tmp_path / "run"
    result = recorded(entry, directory, {"on": 1000, "split": 0})
    result = dataclasses.replace(result, environment={"kvm": here})
    found = reproduce.assess(entry, result, directory)
    assert found.outcome is outcome
    assert ("kvm_pvm" in found.reason) is (outcome is Answer.CANNOT_RUN)
