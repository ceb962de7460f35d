"""The virtual lab: a real KVM under TCG, its guests, its death, and Linux under every mode."""

from __future__ import annotations

import asyncio
import itertools
import json
import os
import signal
import subprocess
import tempfile
from pathlib import Path

import pytest

from harness.base.errors import ImageError
from harness.compare.diff import Status
from harness.compare.known import KnownDifferences
from harness.compare.recordings import diff_recorded
from harness.images import ImageCache
from harness.ledger import ledger
from harness.model.verdict import Blame, Verdict
from harness.replay.replay import ReplayOutcome, replay_case
from harness.run import scheduler
from harness.store.result import RunResult
from support import flat_image
from support.live import execute, flat, write_config

pytestmark = [pytest.mark.live, pytest.mark.lab, pytest.mark.slow, pytest.mark.timeout(900)]

LAB = {"host": "lab", "irqchip": ["on", "split", "off"]}
PATIENT = {"timeout_s": 200}
SCENARIOS = Path(__file__).parents[2] / "configs" / "scenarios"
RETRIES = 1
"""Of hundreds of nested Linux boots one hangs, in code that is not ours: docs/configuration.md."""


@pytest.fixture(scope="module")
def linux_run(tmp_path_factory: pytest.TempPathFactory) -> tuple[RunResult, Path]:
    """Linux under every irqchip mode, and under TCG."""
    folder = tmp_path_factory.mktemp("linux")
    path = write_config(
        folder,
        [{"kind": "linux", "workloads": ["idle", "block-intx", "block-msix"]}],
        matrix=LAB,
        include=[{"host": "local", "accel": "tcg"}],
        defaults=PATIENT,
        retries=RETRIES,
    )
    return execute(folder, path)


def test_nmi_and_exceptions_in_a_lab_of_a_new_kernel_reach_the_guest(tmp_path):
    """KVM 6.14 and later stopped the guest there: docs/lab-faults.md."""
    kernel = next((name for name in ("6.18", "7") if is_cached(name)), None)
    if kernel is None:
        pytest.skip("no kernel of 6.18 or later in the cache")
    scenarios = SCENARIOS / "nmi-smi.yaml"
    path = write_config(
        tmp_path,
        [{"kind": "probe", "scenarios": [str(scenarios)], "only": ["nmi-past-everything"]}],
        matrix=LAB | {"irqchip": ["on", "split"]},
        lab={"kernel": [kernel]},
        defaults=PATIENT,
    )

    result, _ = execute(tmp_path, path)

    assert [case.verdict for case in result.cases] == [Verdict.PASS, Verdict.PASS]


def is_cached(kernel: str) -> bool:
    try:
        ImageCache(offline=True).kernel(kernel)
    except ImageError:
        return False
    return True


def test_linux_passes_in_every_mode_with_nothing_unexplained(linux_run):
    result, _ = linux_run

    assert {case.backend: case.verdict for case in result.cases} == {
        "lab-kvm-on": Verdict.PASS,
        "lab-kvm-split": Verdict.PASS,
        "lab-kvm-off": Verdict.PASS,
        "local-tcg": Verdict.PASS,
    }
    assert result.of(Status.UNEXPLAINED) == ()
    assert result.summary.exit_status == 0


def test_linux_every_case_is_replayed_by_the_python_chips(linux_run):
    result, out = linux_run

    assert [
        case.id for case in result.cases if "replay: 0 divergences in" not in case.full_detail
    ] == []
    for case in result.cases:
        replayed = replay_case(out / case.dir)
        chips = 1 + 1 + 2  # a local APIC, the IOAPIC, and the PICs, after each workload
        assert (replayed.outcome, replayed.looks) == (ReplayOutcome.AGREED, 3 * chips)


def test_linux_every_case_has_a_ledger_that_balances(linux_run):
    result, out = linux_run

    assert [case.id for case in result.cases if "ledger: balances, " not in case.full_detail] == []
    for case in result.cases:
        account = ledger.load((out / case.dir / "ledger.json").read_text())
        assert account.balanced
        assert account.findings == account.warnings == ()
        assert {law.status for law in account.laws} <= {"balanced", "not observable"}
        closed = [law for law in account.laws if "the guest handles" in law.name]
        assert [law.name.partition(":")[0] for law in closed] == [
            "idle",
            "block-intx",
            "block-msix",
        ]
        assert all(0 < law.left <= law.right for law in closed)


def test_linux_cases_compared_from_their_folders_differ_in_nothing_unexplained(linux_run):
    result, out = linux_run
    known = KnownDifferences.shipped()
    folders = [out / case.dir for case in result.cases]

    for a, b in itertools.combinations(folders, 2):
        (pair,) = diff_recorded(a, b, known).pairs
        assert (pair.of(Status.UNEXPLAINED), pair.warnings) == ((), ())
        assert len(pair.alignment.same) > 40


def counted(linux_run: tuple[RunResult, Path], workload: str) -> dict[str, dict[str, list]]:
    """``{backend: {source: [counter, ...]}}`` of a workload."""
    result, out = linux_run
    found: dict[str, dict[str, list]] = {}
    for case in result.cases:
        document = json.loads((out / case.dir / "counters.json").read_text())
        for counter in document[workload]["counters"]:
            found.setdefault(case.backend, {}).setdefault(counter["source"], []).append(counter)
    return found


def test_linux_every_case_has_guest_monitor_and_trace_counters(linux_run):
    found = counted(linux_run, "block-intx")

    assert set(found["lab-kvm-on"]) == {"guest", "qmp", "kvm"}
    assert set(found["lab-kvm-split"]) == {"guest", "qmp", "kvm", "qemu"}
    assert set(found["lab-kvm-off"]) == {"guest", "qmp", "kvm", "qemu"}
    assert set(found["local-tcg"]) == {"guest", "qmp", "qemu"}


@pytest.mark.parametrize("backend", ["lab-kvm-on", "lab-kvm-split", "lab-kvm-off", "local-tcg"])
def test_linux_200_reads_are_200_interrupts_of_the_level_line(linux_run, backend):
    disk = [
        counter["value"]
        for counter in counted(linux_run, "block-intx")[backend]["guest"]
        if counter["stage"] == "handled" and "virtio" in counter.get("name", "")
    ]
    assert sum(disk) == 200


def test_linux_ioapic_version_differs_by_design(linux_run):
    result, _ = linux_run
    (found,) = [each for each in result.findings if each.part == "monitor.ioapic.version"]
    assert (found.axis, found.rule) == ("irqchip: on | split, off, tcg", "ioapic-version")


def test_linux_what_a_source_cannot_see_is_said_with_the_reason(linux_run):
    result, out = linux_run
    (case,) = [case for case in result.cases if case.backend == "local-tcg"]
    document = json.loads((out / case.dir / "counters.json").read_text())
    reasons = {spot["reason"] for spot in document["idle"]["not_observable"]}
    assert "there is no KVM under TCG" in reasons


def test_lab_command_by_hand_shows_the_same_console(tmp_path, flats):
    result, out = execute(tmp_path, write_config(tmp_path, [flat(flats["passing"])], matrix=LAB))
    folder = out / result.cases[1].dir
    by_hand = subprocess.run(
        ["sh", folder / "command.txt"],
        capture_output=True,
        text=True,
        timeout=300,
        stdin=subprocess.DEVNULL,
        check=False,
    )
    assert result.summary.exit_status == 0
    assert (folder / "console.log").read_text() in by_hand.stdout.replace("\r", "")
    assert "irqmatrix: QEMU ended with status 1" in by_hand.stdout


def test_lab_of_another_qemu_runs_the_qemu_under_test(tmp_path, flats):
    path = write_config(
        tmp_path,
        [flat(flats["passing"])],
        matrix={"host": "lab", "irqchip": "split"},
        lab={"qemu": "10.0"},
    )
    result, _ = execute(tmp_path, path)

    (case,) = result.cases
    assert case.verdict == "pass"
    assert result.environment["lab_qemu"].startswith("10.0")
    assert list(result.environment["qemu"]) == ["system"]


def test_lab_guest_that_moves_in_split_gets_its_interrupts_in_the_other_qemu(tmp_path):
    guest = {"kind": "linux", "workloads": ["serial", "block-intx", "block-msix"], "migrate": True}
    path = write_config(
        tmp_path,
        [guest],
        matrix={"host": "lab", "irqchip": "split"},
        defaults=PATIENT,
        retries=RETRIES,
    )
    result, out = execute(tmp_path, path)

    (case,) = result.cases
    assert case.verdict == "pass"
    assert {part.id: part.metrics["count"] for part in case.parts}["block-intx"] == 200
    moving = (out / case.dir / "moving.jsonl").read_text()
    assert "kvm_irqchip_update_msi_route" in moving


def test_lab_images_of_other_people_end_in_their_own_ways(tmp_path):
    build = flat_image.build
    sotest = "SOTEST VERSION 1 BEGIN 1\nSOTEST SUCCESS\nSOTEST END\n"
    guests = [
        flat(build(tmp_path, "end-line", sotest, flat_image.HANG)),
        flat(build(tmp_path, "power-off", "1..1\nok 1\n", flat_image.POWER_OFF)),
        flat(build(tmp_path, "reset", "1..2\nok 1\n", flat_image.RESET)),
        flat(
            flat_image.assemble(tmp_path, "synic", "synic.S"),
            cpu="qemu64,hv-vpindex,hv-synic,hv-time,hv-stimer",
        ),
    ]
    matrix = LAB | {"irqchip": "split"}
    result, out = execute(tmp_path, write_config(tmp_path, guests, matrix=matrix))

    ends = {case.id.split("/")[0]: (case.verdict.value, case.detail) for case in result.cases}
    assert ends == {
        "flat-end-line": ("pass", ""),
        "flat-power-off": ("pass", ""),
        "flat-reset": ("crash", "reset after 1 of 2 checks"),
        "flat-synic": ("pass", ""),
    }
    (synic,) = [case for case in result.cases if "synic" in case.dir.split("_")[0]]
    account = ledger.load((out / synic.dir / "ledger.json").read_text())
    assert account.balanced
    (row,) = [row for row in account.rows if row.counts.get("by_synic")]
    assert row.counts["by_synic"] == row.counts["accepted"] == row.counts["eoi"] >= 20


def test_lab_hanging_guest_is_hang_and_the_lab_goes_on(tmp_path, flats):
    guests = [flat(flats["hanging"], timeout_s=5), flat(flats["passing"])]
    path = write_config(tmp_path, guests, matrix=LAB | {"irqchip": "split"})
    result, out = execute(tmp_path, path, jobs=1)

    assert [case.verdict for case in result.cases] == [Verdict.HANG, Verdict.PASS]
    assert len(list(out.glob("lab-*.log"))) == 1


def test_lab_that_dies_is_crash_and_the_others_run_in_a_new_one(tmp_path, flats, monkeypatch):
    conduct = scheduler.conduct

    async def conduct_and_kill(session, plan, directory, step):
        if "hanging" in plan.case.id:
            asyncio.get_running_loop().call_later(0, kill_lab)
        return await conduct(session, plan, directory, step)

    def kill_lab() -> None:
        for folder in Path("/proc/self/task").iterdir():
            for pid in (folder / "children").read_text().split():
                if b"irqmatrix-lab" in Path(f"/proc/{pid}/cmdline").read_bytes():
                    os.kill(int(pid), signal.SIGKILL)

    monkeypatch.setattr(scheduler, "conduct", conduct_and_kill)
    guests = [flat(flats["hanging"]), flat(flats["passing"])]
    path = write_config(tmp_path, guests, matrix=LAB | {"irqchip": "on"})
    result, out = execute(tmp_path, path, jobs=1)

    assert [case.verdict for case in result.cases] == [Verdict.CRASH, Verdict.PASS]
    assert [case.blame for case in result.cases] == [Blame.LAB, None]
    assert "the lab died under it: the QEMU that runs the lab was killed from outside: SIGKILL" in (
        result.cases[0].detail
    )
    assert len(list(out.glob("lab-*.log"))) == 2


def test_lab_whose_own_qemu_aborts_says_the_assertion_and_blames_the_lab(
    tmp_path, flats, monkeypatch
):
    """Its temporary folder has a comma in its name, which separates a QEMU option's values."""
    image = flat_image.assemble(tmp_path, "cr8", "cr8.S")
    guests = [flat(image, cpu="qemu64,+cr8legacy"), flat(flats["passing"])]
    path = write_config(
        tmp_path,
        guests,
        matrix=LAB | {"irqchip": "on"},
        include=[{"host": "local", "accel": "tcg"}],
    )
    with tempfile.TemporaryDirectory(prefix="a,b-") as folder:
        monkeypatch.setattr(tempfile, "tempdir", folder)
        result, out = execute(tmp_path, path, jobs=1)

    found = {(case.subject.split("/")[0], case.backend): case for case in result.cases}
    died = found.pop(("flat-cr8", "lab-kvm-on"))
    assert (died.verdict, died.blame) == (Verdict.CRASH, Blame.LAB)
    assert "SIGABRT: ERROR:" in died.detail
    assert "tcg_handle_interrupt: assertion failed" in died.detail
    assert "known fault of labs svm-cr8-window" in died.detail
    assert "tcg_handle_interrupt" in (out / "lab-1.stderr").read_text()
    assert {case.verdict for case in found.values()} == {Verdict.PASS}


def test_check_that_fails_in_all_modes_of_a_lab_and_not_under_tcg_is_blamed_on_the_lab(tmp_path):
    """Where the fault is known it is as expected, too: the one image has the name of those."""
    for name in ("eventinj", "mine"):
        flat_image.assemble(tmp_path, name, "int-n.S")
    path = write_config(
        tmp_path,
        [flat(tmp_path / "eventinj.flat"), flat(tmp_path / "mine.flat")],
        matrix=LAB | {"irqchip": ["on", "split", "pychip-split"]},
        include=[{"host": "local", "accel": "tcg"}],
    )
    result, _ = execute(tmp_path, path, jobs=1)

    found = {
        (case.subject.split("/")[0], case.backend): (case.verdict, case.blame, case.as_expected)
        for case in result.cases
    }
    assert found == {
        ("flat-eventinj", "lab-kvm-on"): (Verdict.FAIL, Blame.LAB, True),
        ("flat-eventinj", "lab-kvm-split"): (Verdict.FAIL, Blame.LAB, True),
        ("flat-eventinj", "lab-kvm-pychip-split"): (Verdict.FAIL, Blame.LAB, True),
        ("flat-eventinj", "local-tcg"): (Verdict.PASS, None, True),
        ("flat-mine", "lab-kvm-on"): (Verdict.FAIL, Blame.LAB, False),
        ("flat-mine", "lab-kvm-split"): (Verdict.FAIL, Blame.LAB, False),
        ("flat-mine", "lab-kvm-pychip-split"): (Verdict.FAIL, Blame.LAB, False),
        ("flat-mine", "local-tcg"): (Verdict.PASS, None, True),
    }
    known = next(case for case in result.cases if case.subject.startswith("flat-eventinj"))
    assert "known fault of labs svm-int-n-again" in known.detail


def test_stuck_line_is_storm_with_its_rate_and_the_quiet_device_is_not(tmp_path):
    path = write_config(
        tmp_path,
        [
            {
                "kind": "linux",
                "workloads": ["edu-quiet", "stuck-line"],
                "expect": {"stuck-line": "storm"},
            }
        ],
        matrix=LAB,
        include=[{"host": "local", "accel": "tcg"}],
        defaults={"timeout_s": 300},
    )
    result, _ = execute(tmp_path, path)

    quiet = {case.backend: case.parts[0].verdict for case in result.cases}
    stuck = {case.backend: case.parts[1] for case in result.cases}
    assert set(quiet.values()) == {Verdict.PASS}
    assert {part.verdict for part in stuck.values()} == {Verdict.STORM}
    assert all("/s)" in part.detail for part in stuck.values())
    assert result.summary.exit_status == 0
