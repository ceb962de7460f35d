"""irqmatrix diff on recorded cases of all modes, whole, altered and damaged."""

import json
import shutil
from itertools import combinations

import pytest

from harness.analyse.case_evidence import read_case
from harness.base.errors import CollectError, StoreError
from harness.cli import main
from harness.compare.diff import Status
from harness.compare.known import KnownDifferences
from harness.compare.recordings import diff_recorded, pair_up
from harness.model.layout import CaseDir
from harness.model.verdict import Verdict
from harness.report.text.diff_report import diff_json
from support.recorded_cases import CASES, MODES, case_folder, events_of, removed, replaced

SHIPPED = KnownDifferences.shipped()
NOTHING = KnownDifferences(())


@pytest.fixture
def folder(tmp_path):
    """Make the case of a mode in one of two runs, ``a`` and ``b``."""
    return lambda run, mode, **changes: case_folder(tmp_path / run, mode, **changes)


def only_pair(a, b, known=SHIPPED):
    (pair,) = diff_recorded(a, b, known).pairs
    return pair


def where(mode, name, nth=0, **fields):
    found = [
        place
        for place, event in enumerate(events_of(mode))
        if event.name == name and all(event.arg(key) == value for key, value in fields.items())
    ]
    return found[nth]


# --- Two cases ----------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", MODES)
def test_case_and_itself_have_nothing_that_differs(folder, mode):
    pair = only_pair(folder("a", mode), folder("b", mode))

    assert pair.exit_status == 0
    assert pair.alignment.partings == ()
    assert pair.findings == ()
    assert pair.first is None
    assert pair.warnings == ()
    assert len(pair.alignment.same) > 40
    assert pair.a.ledger.balanced


@pytest.mark.parametrize(("a", "b"), [*combinations(MODES, 2)])
def test_modes_differ_in_nothing_that_is_not_explained(folder, a, b):
    pair = only_pair(folder("a", a), folder("b", b))

    assert pair.of(Status.UNEXPLAINED) == ()
    assert pair.exit_status == 0
    assert pair.comparison.workloads == ("block-intx", "block-msix")


def test_on_and_split_part_in_the_version_registers_only(folder):
    pair = only_pair(folder("a", "on"), folder("b", "split"))

    assert {parting.subject for parting in pair.alignment.partings} == {"ioapic/VER", "lapic/LVR"}
    assert pair.first.parting.subject == "lapic/LVR"
    assert pair.first.finding.rule == "guest-reads-lapic-directed-eoi"


def test_off_and_tcg_have_the_same_chips_and_the_same_guest(folder):
    assert only_pair(folder("a", "off"), folder("b", "tcg")).alignment.partings == ()


def test_difference_that_no_rule_knows_is_unexplained(folder):
    pair = only_pair(folder("a", "on"), folder("b", "split"), NOTHING)

    assert pair.exit_status == 1
    assert "guest/ioapic/VER" in {finding.part for finding in pair.of(Status.UNEXPLAINED)}


@pytest.mark.parametrize("mode", ["off", "tcg"])
def test_lvt_that_qemu_does_not_mask_is_the_known_bug(folder, mode):
    pair = only_pair(folder("a", "on"), folder("b", mode))

    assert pair.of(Status.KNOWN_BUG)[0].rule == "guest-reads-lvt-unmasked-after-software-disable"


@pytest.mark.parametrize("slow", ["on", "split", "off"])
def test_ticks_through_pics_of_a_slow_boot_only_are_by_design(folder, slow):
    def without_ticks(events):
        return [event for event in events if event.name != "pic_interrupt"]

    pair = only_pair(folder("a", slow), folder("b", "tcg", alter=without_ticks))

    by_design = {finding.part: finding.rule for finding in pair.of(Status.BY_DESIGN)}
    rule = "guest-takes-pit-ticks-through-pics-only-while-booting"
    assert by_design["guest/cpu0/pic irq0"] == rule
    assert "guest/cpu0/pic irq0" not in {finding.part for finding in pair.of(Status.UNEXPLAINED)}


# --- Altered by one event -----------------------------------------------------------------------


def test_register_that_the_guest_sets_otherwise_is_the_first_divergent_event(folder):
    place = where("on", "kvm_apic", access="write", register="APIC_LVT1", value=0x400)
    event = events_of("on")[place]
    wrong = event._replace(args=("write", "APIC_LVT1", 0x500))
    pair = only_pair(folder("a", "on"), folder("b", "on", alter=replaced(place, wrong)))

    assert pair.exit_status == 1
    assert pair.first.parting.subject == "lapic0/LVT1"
    assert pair.first.parting.values == ("0x400", "0x500")
    assert (pair.first.a.at, pair.first.b.at) == (place, place)
    assert pair.first.b.events[place - pair.first.b.first] == wrong
    assert len(pair.first.a.events) == 21


def test_entry_that_is_not_written_is_the_first_divergent_event(folder):
    place = where("split", "ioapic_mem_write", regsel=0x38, value=0x8026)
    pair = only_pair(folder("a", "split"), folder("b", "split", alter=removed(place)))

    assert pair.exit_status == 1
    assert pair.first.parting.subject == "ioapic/pin20/entry"
    assert pair.first.a.at == place


def test_eoi_that_is_missing_is_found_by_that_ledger(folder):
    place = where("on", "kvm_eoi", 10, vector=38)
    pair = only_pair(folder("a", "on"), folder("b", "on", alter=removed(place)))

    assert pair.exit_status == 1
    found = [finding.part for finding in pair.of(Status.UNEXPLAINED)]
    assert any(part.startswith("ledger/stuck/") for part in found)
    assert not pair.b.ledger.balanced


def test_verdict_that_differs_is_a_difference(folder):
    pair = only_pair(folder("a", "on"), folder("b", "on", verdict={"verdict": "lost"}))

    assert [finding.part for finding in pair.of(Status.UNEXPLAINED)] == ["verdict"]
    assert pair.b.verdict is Verdict.LOST


def parts(**verdicts):
    found = json.loads((CASES / "on" / "verdict.json").read_text())["parts"]
    return [part | {"verdict": verdicts.get(part["id"][-4:], "pass")} for part in found]


def test_verdict_of_a_workload_that_differs_is_a_difference(folder):
    pair = only_pair(folder("a", "on"), folder("b", "on", verdict={"parts": parts(msix="lost")}))

    assert [finding.part for finding in pair.of(Status.UNEXPLAINED)] == ["verdict/block-msix"]


def test_workload_that_one_side_skipped_is_a_warning(folder):
    pair = only_pair(folder("a", "on"), folder("b", "on", verdict={"parts": parts(msix="skip")}))

    assert pair.exit_status == 0
    assert pair.warnings == ("different workloads: block-intx, block-msix; block-intx",)


def test_counter_that_work_determines_is_compared(folder):
    a, b = folder("a", "on"), folder("b", "on")
    path = b / "counters.json"
    counters = json.loads(path.read_text())
    for row in counters["block-intx"]["counters"]:
        if row["stage"] == "handled" and "virtio" in row.get("name", ""):
            row["value"] *= 3
    path.write_text(json.dumps(counters))

    found = {(each.part, each.counter) for each in only_pair(a, b).of(Status.UNEXPLAINED)}

    assert ("block-intx", "handled/ioapic/20:virtio0") in found


def probe_case(folder, run, mode, logs):
    """A case of the probe with these logs of its scenarios."""
    told = [{"id": name, "verdict": "pass"} for name in logs]
    described = {
        "schema": 2,
        "kind": "probe",
        "guest": "probe",
        "subject": "probe/q35",
        "group": "",
    }
    described["backend"] = f"lab-kvm-{mode}"
    path = folder(run, mode, described=described, verdict={"parts": told})
    document = {name: {"log": log} for name, log in logs.items()}
    (CaseDir(path).scenarios).write_text(json.dumps(document))
    return path


def test_logs_of_scenarios_that_both_ran_are_compared(folder):
    a = probe_case(folder, "a", "on", {"one": "step 0\n", "two": "step 0\n", "mine": "step 0\n"})
    b = probe_case(folder, "b", "split", {"one": "step 0\n", "two": "step 1\n"})
    pair = only_pair(a, b)

    found = {each.part: [group.saw for group in each.groups] for each in pair.findings}
    assert found["two"] == ["step 0", "step 1"]
    assert found.keys() & {"one", "mine"} == set()
    assert f"1 scenario was run in {a} only" in pair.warnings


# --- Damaged, old, or no case at all --------------------------------------------------------------


@pytest.mark.parametrize(
    "damage",
    ['{"ns": 1, "source": "harness", "name": "lost", "vcpu": null, "text": '
     '"7 events lost on CPU 0"}\n', '{"ns": 1, "source": "kvm", "name": "kvm_eoi"}\n', '{"ns": 1'],
    ids=["lost", "damaged", "cut off"],
)  # fmt: skip
def test_recording_with_gaps_is_not_aligned_and_says_so(folder, damage):
    place = where("on", "kvm_eoi", 10, vector=38)
    a, b = folder("a", "on"), folder("b", "on", alter=removed(place))
    with (b / "events.jsonl").open("a") as file:
        file.write(damage)
    pair = only_pair(a, b)

    assert pair.exit_status == 0
    assert pair.alignment.same == pair.alignment.partings == ()
    assert "the guests are not aligned" in pair.warnings[0]
    assert pair.b.damage is not None


def test_case_without_measurements_is_compared_without_counters(folder):
    a, b = folder("a", "on"), folder("b", "split")
    old = json.loads((b / "verdict.json").read_text())
    old["parts"] = [{k: v for k, v in part.items() if k != "metrics"} for part in old["parts"]]
    del old["observations"]
    (b / "verdict.json").write_text(json.dumps(old))
    pair = only_pair(a, b)

    assert pair.exit_status == 0
    assert pair.comparison.workloads == ()
    assert "older irqmatrix" in pair.warnings[0]


def test_case_of_another_schema_is_refused(folder):
    a, b = folder("a", "on"), folder("b", "on", described={"schema": 99})

    with pytest.raises(StoreError, match="99"):
        diff_recorded(a, b, SHIPPED)


def test_log_of_another_version_is_refused(folder):
    a, b = folder("a", "on"), folder("b", "on")
    (b / "events.jsonl").write_text('{"schema": "irqmatrix-events", "version": 99}\n')

    with pytest.raises(CollectError, match="version 99"):
        diff_recorded(a, b, SHIPPED)


def test_verdict_that_cannot_be_read_is_refused(folder):
    a, b = folder("a", "on"), folder("b", "on", verdict={"verdict": "splendid"})

    with pytest.raises(StoreError, match="is not a verdict"):
        diff_recorded(a, b, SHIPPED)


@pytest.mark.parametrize("name", ["events.jsonl", "verdict.json"])
def test_folder_without_a_file_that_it_needs_is_refused(folder, name):
    a, b = folder("a", "on"), folder("b", "on")
    (b / name).unlink()

    with pytest.raises(StoreError, match=name):
        diff_recorded(a, b, SHIPPED)


def test_folder_that_is_no_case_and_no_run_is_refused(folder, tmp_path):
    empty = tmp_path / "empty"
    empty.mkdir()

    with pytest.raises(StoreError, match="is neither a run nor a case"):
        diff_recorded(folder("a", "on"), empty, SHIPPED)


def test_folder_that_is_not_there_is_refused(folder, tmp_path):
    with pytest.raises(StoreError, match="there is no directory"):
        diff_recorded(folder("a", "on"), tmp_path / "nowhere", SHIPPED)


def test_case_against_a_run_is_refused(folder):
    with pytest.raises(StoreError, match="is a case and"):
        diff_recorded(folder("a", "on"), folder("b", "on").parent, SHIPPED)


# --- Two runs -----------------------------------------------------------------------------------


def test_runs_are_compared_by_case_id_and_then_by_subject(folder):
    a = folder("a", "on").parent
    folder("a", "off")
    b = folder("b", "on").parent
    folder("b", "split")
    found = diff_recorded(a, b, SHIPPED)

    assert [(pair.a.id[-4:], pair.b.id[-4:]) for pair in found.pairs] == [
        ("m-on", "m-on"),
        ("-off", "plit"),
    ]
    assert (found.alone, found.exit_status) == ((), 0)


def test_finding_of_several_pairs_of_two_runs_is_one_and_says_where(folder):
    for mode in MODES:
        verdict = {"verdict": "lost"} if mode in ("on", "split") else {}
        a, b = folder("a", mode), folder("b", mode, verdict=verdict)
    found = diff_recorded(a.parent, b.parent, SHIPPED)

    (finding,) = found.findings
    assert (finding.part, finding.axis) == ("verdict", "run: A | B, only in on, split")
    assert found.exit_status == 1


def test_case_without_a_partner_is_named(folder):
    folder("a", "on")
    other = folder("a", "split", described={"id": "linux/pc/qemu64/smp1/lab-kvm-split"})
    found = diff_recorded(other.parent, folder("b", "on").parent, SHIPPED)

    assert [pair.a.id for pair in found.pairs] == ["linux/q35/qemu64/smp1/lab-kvm-on"]
    assert found.alone == (str(other),)


def test_case_of_a_run_that_never_ran_is_named_and_not_compared(folder):
    a, b = folder("a", "on"), folder("b", "on")
    broken = folder("a", "split")
    (broken / "events.jsonl").unlink()
    found = diff_recorded(a.parent, b.parent, SHIPPED)

    assert (len(found.pairs), found.alone) == (1, (str(broken),))


@pytest.mark.parametrize("mode", MODES)
def test_recording_in_which_a_tracer_was_silent_is_not_aligned(folder, mode):
    silent = {"split": "kvm"}.get(mode, events_of(mode)[-1].source)
    others = folder("b", mode, alter=lambda events: [e for e in events if e.source != silent])
    pair = only_pair(folder("a", mode), others)

    assert pair.alignment.partings == ()
    assert f"no events of {silent}" in pair.warnings[0]


def test_runs_with_nothing_in_common_are_refused(folder):
    other = folder("b", "on", described={"id": "linux/pc/qemu64/smp1/lab-kvm-on"})

    with pytest.raises(StoreError, match="nothing in common"):
        diff_recorded(folder("a", "on").parent, other.parent, SHIPPED)


def test_repetitions_are_paired_with_each_other(folder, tmp_path):
    first = read_case(folder("a", "on"))
    shutil.copytree(first.directory, tmp_path / "a" / "again")
    again = read_case(case_folder(tmp_path / "c", "on", described={"id": f"{first.id}#2"}))

    assert pair_up([first, again], [again, first]) == [(first, first), (again, again)]


def test_json_has_the_same_as_the_text(folder):
    found = diff_recorded(folder("a", "on"), folder("b", "split"), SHIPPED)
    document = json.loads(diff_json(found))

    (pair,) = document["pairs"]
    assert pair["first"]["subject"] == "lapic/LVR"
    assert {finding["status"] for finding in pair["findings"]} >= {"by_design"}
    assert all(finding["rule"] for finding in pair["findings"] if finding["status"] == "by_design")
    assert document["exit_status"] == 0


# --- The command --------------------------------------------------------------------------------


@pytest.fixture
def irqmatrix(monkeypatch, capsys):
    """Run the command line; its status and what it printed."""

    def run(*arguments):
        monkeypatch.setattr("sys.argv", ["irqmatrix", *map(str, arguments)])
        with pytest.raises(SystemExit) as ended:
            main()
        said = capsys.readouterr()
        return ended.value.code, said.out, said.err

    return run


def test_command_on_explained_differences_is_status_0_and_shows_both_sides(folder, irqmatrix):
    status, out, _ = irqmatrix("diff", folder("a", "on"), folder("b", "split"))

    assert status == 0
    assert "first divergent event: lapic/LVR (by design: guest-reads-lapic-directed-eoi)" in out
    assert ">     " in out
    assert "ledger: balances, " in out
    assert "0 unexplained" in out


def test_command_on_unexplained_difference_is_status_1_and_says_where(folder, irqmatrix, tmp_path):
    (tmp_path / "known").mkdir()
    (tmp_path / "known" / "none.yaml").write_text("version: 1\nrules: []\n")
    arguments = ("diff", folder("a", "on"), folder("b", "split"), "--known", tmp_path / "known")
    status, out, _ = irqmatrix(*arguments)

    assert status == 1
    assert "first divergent event: lapic/LVR (UNEXPLAINED)" in out


def test_command_on_two_runs_has_a_line_a_pair(folder, irqmatrix):
    a, b = folder("a", "on").parent, folder("b", "on").parent
    folder("a", "tcg")
    folder("b", "tcg")
    status, out, _ = irqmatrix("diff", a, b)

    assert status == 0
    assert len([line for line in out.splitlines() if line.startswith("linux/q35")]) == 2


def test_command_on_no_case_is_status_2_with_a_message(folder, irqmatrix, tmp_path):
    status, _, error = irqmatrix("diff", folder("a", "on"), tmp_path / "nowhere")

    assert status == 2
    assert "there is no directory" in error


def test_command_with_json_prints_only_json(folder, irqmatrix):
    status, out, _ = irqmatrix("diff", folder("a", "on"), folder("b", "split"), "--json")

    assert (status, json.loads(out)["exit_status"]) == (0, 0)
