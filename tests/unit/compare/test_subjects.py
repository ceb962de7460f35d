import json
from dataclasses import replace

import pytest

from harness.compare.known import KnownDifferences
from harness.compare.subjects import Versions, compare
from harness.model.case import Irqchip, ProbeGuest, Vmm
from harness.model.layout import CaseDir
from harness.model.verdict import Blame, CaseResult, PartResult, Verdict, of_case
from support import cases
from support.judging import judge

VERSIONS = Versions({"system": (7, 2, 22)}, {"default": (6, 1, 192)}, (6, 18))
NOTHING_KNOWN = KnownDifferences(())


@pytest.fixture
def run(tmp_path):
    """Judge recordings of one workload by backend: its disk's interrupts for 200 reads."""

    def run(counts, known=NOTHING_KNOWN, reads=200):
        recorded, judged = [], []
        for number, (backend, count) in enumerate(counts):
            case = cases.case(cases.LinuxGuest(("block-intx",)), backend, repeat=number)
            folder = tmp_path / case.directory_name
            folder.mkdir()
            work = cases.workload("block-intx", {}, {"20:virtio0": count}, units=reads)
            recorded.append(case)
            judged.append(judge(cases.recording(folder, case, workloads=(work,))))
        return compare(recorded, judged, VERSIONS, known, tmp_path)

    return run


def test_compare_equal_counts_leave_nothing_unexplained(run):
    found = run([(cases.ON, 200), (cases.SPLIT, 201)])
    (comparison,) = found.comparisons
    assert comparison.backends == ("lab-kvm-on", "lab-kvm-split")
    assert found.findings == ()


def test_compare_counts_that_work_determines_and_that_differ_are_unexplained(run):
    (found,) = run([(cases.ON, 200), (cases.SPLIT, 390)]).findings
    assert (found.part, found.counter) == ("block-intx", "handled/ioapic/20:virtio0")
    assert [(group.label, group.saw) for group in found.groups] == [("on", "200"), ("split", "390")]


def test_compare_all_backends_of_a_subject_are_one_comparison(run):
    (comparison,) = run([(cases.ON, 200), (cases.SPLIT, 200), (cases.TCG, 200)]).comparisons
    assert comparison.backends == ("lab-kvm-on", "lab-kvm-split", "local-tcg")


def test_compare_repeats_are_samples_of_one_backend_and_widen_its_band(run):
    noisy = [(cases.ON, 200), (cases.ON, 330), (cases.SPLIT, 200), (cases.SPLIT, 280)]
    assert run(noisy).findings == ()


def test_compare_one_backend_alone_has_nothing_to_be_compared_with(run):
    assert run([(cases.ON, 200), (cases.ON, 200)]).comparisons == ()


@pytest.mark.parametrize(
    ("qemus", "names"),
    [
        ({"7.2": (7, 2, 22), "10.0": (10, 0, 2)}, ["7.2", "10.0"]),
        ({"7.2": (7, 2, 22), "10.0": (7, 2, 5)}, ["7.2.22", "7.2.5"]),
        ({"7.2": (7, 2, 22), "10.0": (7, 2, 22)}, ["7.2", "10.0"]),
    ],
)
def test_axis_of_a_version_is_as_long_as_it_has_to_be(qemus, names):
    versions = Versions(qemus, {}, None)
    backends = [replace(cases.TCG, qemu=name) for name in qemus]

    assert [versions.axes(backend)["QEMU"] for backend in backends] == names


def test_counters_json_of_a_case_names_what_it_cannot_see(tmp_path):
    case = cases.case(cases.LinuxGuest(("idle",)), cases.TCG)
    judge(cases.recording(tmp_path, case, workloads=(cases.workload("idle"),)))
    document = json.loads((tmp_path / "counters.json").read_text())
    assert {"source": "kvm", "counter": "*", "reason": "there is no KVM under TCG"} in document[
        "idle"
    ]["not_observable"]


def test_compare_scenario_that_one_backend_has_not_the_means_for_is_left_out(tmp_path):
    recorded, judged = [], []
    for backend, logs in (
        (cases.ON, {"both": "step 0\n", "x2apic": "step 0\n"}),
        (cases.SPLIT, {"both": "step 1\n", "x2apic": None}),
    ):
        case = cases.case(ProbeGuest(()), backend)
        folder = tmp_path / case.directory_name
        folder.mkdir()
        document = {name: {"log": log} for name, log in logs.items()}
        (folder / CaseDir.scenarios).write_text(json.dumps(document))
        recorded.append(case)
        judged.append(
            CaseResult(
                id=case.id,
                subject=case.subject,
                backend=backend.name,
                axes=case.axes,
                guest="probe",
                verdict=Verdict.PASS,
                detail="",
                duration_s=1.0,
                dir=case.directory_name,
            )
        )
    found = compare(recorded, judged, VERSIONS, NOTHING_KNOWN, tmp_path).findings
    assert [finding.part for finding in found] == ["both"]


def test_compare_leaves_out_a_case_that_died_with_its_lab(tmp_path):
    """What it reported before says nothing of the irqchip, nor what it did not."""
    both = [cases.case(backend=backend) for backend in (cases.ON, cases.TCG)]
    checks = (PartResult("one", Verdict.PASS),)
    died = of_case(both[0], Verdict.CRASH, "the lab died", 1.0, blame=Blame.LAB)
    passed = of_case(both[1], Verdict.PASS, "", 1.0, parts=checks)
    found = compare(both, [died, passed], VERSIONS, NOTHING_KNOWN, tmp_path)
    assert (found.comparisons, found.findings) == ((), ())


@pytest.mark.parametrize(
    ("vmm", "irqchip", "qemu", "chips"),
    [
        (Vmm.QEMU, Irqchip.SPLIT, (11, 1, 3), (11, 1, 3)),
        (Vmm.PYCHIP, Irqchip.SPLIT, (10, 0, 13), (10, 0)),
        (Vmm.PYCHIP, Irqchip.ON, (7, 2, 22), (7, 2)),
        (Vmm.PYCHIP, Irqchip.OFF, (11, 1, 3), (7, 2)),
        (Vmm.PYCHIP, Irqchip.OFF, None, None),
    ],
)
def test_rules_take_the_live_chips_for_those_of_the_qemu_that_they_mirror(
    vmm, irqchip, qemu, chips
):
    backend = replace(cases.SPLIT, vmm=vmm, irqchip=irqchip)
    versions = Versions({} if qemu is None else {backend.qemu: qemu}, {}, None)
    case = cases.case(cases.LinuxGuest(("block-intx",)), backend)

    assert versions.facts(backend, case).qemu == chips
