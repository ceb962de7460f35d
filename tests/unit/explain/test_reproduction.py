"""What is looked for of an explanation, and what a run in the lab says of it."""

from dataclasses import replace
from pathlib import Path

import pytest

from harness import cli
from harness.base.errors import ConfigError, GuestHang, LaunchError
from harness.commands.explain import ExplainOptions, run
from harness.explain import bands
from harness.explain.nearest.guest import nearest_guest
from harness.explain.nearest.versions import Offered, VersionsHere
from harness.explain.reproduction import ReproduceRequest, check, seen_in_modes, versions_here
from harness.explain.shown import InMode, VmReproduction, Wanted, value_in, wanted_of
from harness.images.cache import ImageCache
from harness.model import manifest
from harness.model.case import Irqchip, LinuxGuest
from harness.report.text.reproduction_report import reproduction_json, reproduction_report
from harness.repro import catalogue
from support import cases, judging, runs

FIELD = Path(__file__).parents[2] / "golden" / "field"
HERE = VersionsHere((Offered("10.0", (10, 0, 13)),), (Offered("6.12", (6, 12, 117)),))
ON, SPLIT, TCG = Irqchip.ON, Irqchip.SPLIT, Irqchip.TCG
GHOST = Wanted(("hpet-ghost-ticks",), ("gsi/0/low",), ())
NOTHING = Wanted((), (), ())


def explained(*files):
    return run(ExplainOptions(tuple(files), (), None, None))


@pytest.fixture(scope="module")
def answer():
    return explained(FIELD / "trace-cmd-on-qemu10.0.txt", FIELD / "cmdline-on-qemu10.0.txt")


def mode(which, *shown, why_not=None):
    return InMode(which, (), (), shown, (), why_not)


def outcome(answer, wanted, *modes, own=ON, entry=None, is_control=False):
    guest = replace(nearest_guest(answer.vm, HERE), own=own)
    return VmReproduction(guest, entry, is_control, wanted, modes, Path("runs/x"))


def test_entry_that_fits_is_looked_for_with_its_rates(answer):
    assert wanted_of(answer) == GHOST


def test_entry_whose_option_an_xml_has_is_looked_for_without_any_rate():
    assert wanted_of(explained(FIELD / "slew.xml")) == Wanted(("rtc-slew-storm",), (), ())


def test_message_of_a_log_is_looked_for():
    wanted = wanted_of(explained(FIELD / "nobody-cared.txt"))

    assert wanted.entries[0] == "stuck-line-storms"
    assert "log/nobody-cared" in wanted.messages


def test_files_without_a_vm_say_what_to_give():
    answer = explained(FIELD / "nobody-cared.txt")

    with pytest.raises(ConfigError, match="neither a QEMU command line nor a libvirt XML"):
        check(answer.evidence)


@pytest.mark.parametrize(
    ("wanted", "modes", "own", "status", "said"),
    [
        (
            GHOST,
            [mode(ON, "x"), mode(SPLIT), mode(TCG)],
            ON,
            1,
            "shows here, too, in on, the VM's mode",
        ),
        (GHOST, [mode(ON, "x"), mode(SPLIT)], ON, 1, "not in split"),
        (GHOST, [mode(ON, "x"), mode(SPLIT, "y")], ON, 1, "and in split"),
        (GHOST, [mode(ON), mode(SPLIT, "x")], ON, 0, "does not show here in on"),
        (GHOST, [mode(ON), mode(SPLIT, "x")], ON, 0, "it shows in split"),
        (GHOST, [mode(ON, why_not="no"), mode(SPLIT, "x")], ON, 3, "gives no answer here: no"),
        (GHOST, [mode(ON), mode(SPLIT, "x")], None, 1, "shows here, too, in split, not in on"),
        (GHOST, [mode(ON), mode(SPLIT)], None, 0, "in any mode that was run (on, split)"),
        (GHOST, [mode(ON, why_not="no")], None, 3, "no answer here: no"),
        (GHOST, [mode(ON, why_not="no"), mode(SPLIT)], None, 0, "in any mode that was run (split)"),
        (NOTHING, [mode(ON), mode(SPLIT)], ON, 0, "and here nothing is unusual in on"),
        (NOTHING, [mode(ON, "x")], ON, 1, "but here something is unusual in on"),
        (
            Wanted((), ("exit/io",), ()),
            [mode(ON)],
            ON,
            0,
            "what the files show does not show here in on",
        ),
    ],
)
def test_verdict_and_status_are_those_of_the_own_mode(wanted, modes, own, status, said, answer):
    found = outcome(answer, wanted, *modes, own=own)

    assert found.exit_status == status
    assert said in found.verdict


def test_entry_whose_work_it_takes_is_said(answer):
    by_work = outcome(answer, GHOST, mode(ON, "x"), entry="hpet-ghost-ticks")
    idle_too = outcome(
        answer, GHOST, replace(mode(ON, "x"), in_idle=True), entry="hpet-ghost-ticks"
    )

    assert "it takes the work of hpet-ghost-ticks" in by_work.notes[0]
    assert idle_too.notes == ()


def test_control_that_shows_is_no_cause(answer):
    shown = outcome(answer, GHOST, mode(ON, "x"), entry="stuck-line-storms", is_control=True)
    not_shown = outcome(answer, GHOST, mode(ON), entry="stuck-line-storms", is_control=True)

    assert "says nothing of why the VM has it" in shown.notes[0]
    assert not_shown.notes == ()


def test_report_and_json_say_verdict_guest_and_what_was_left_out(answer):
    found = outcome(answer, GHOST, mode(ON, "x"), mode(SPLIT, why_not="skip: no"))

    lines = [getattr(each, "text", "") for each in reproduction_report(answer, found)]
    data = reproduction_json(found)

    assert f"  {found.verdict}" in lines
    assert any("split: no answer: skip: no" in line for line in lines)
    assert any("-blockdev: left out" in line for line in lines)
    assert data["exit_status"] == 1
    assert data["guest"]["own_mode"] == "on"
    assert [each["mode"] for each in data["modes"]] == ["on", "split"]
    assert any(each["what"] == "-blockdev" for each in data["guest"]["changes"])


def test_versions_are_those_of_the_lanes_first(tmp_path):
    here = versions_here(ImageCache(tmp_path, offline=True))

    assert [each.name for each in here.kernels] == ["6.12", "6.1", "7"]
    assert [each.name for each in here.qemus][:3] == ["10.0", "7.2", "11"]


@pytest.mark.parametrize(
    ("file", "text", "status", "said"),
    [
        ("dmesg", "[1.0] irq 20: nobody cared (try booting with irqpoll)\n", 2, "virsh dumpxml"),
        ("line", "qemu-system-x86_64 -M virt -accel kvm\n", 3, "no guest near to machine 'virt'"),
    ],
)
def test_command_that_cannot_begin_says_why(
    file, text, status, said, tmp_path, monkeypatch, capsys
):
    (tmp_path / file).write_text(text)
    monkeypatch.setattr("sys.argv", ["irqmatrix", "explain", str(tmp_path / file), "--reproduce"])

    with pytest.raises(SystemExit) as end:
        cli.main()

    assert end.value.code == status
    assert said in capsys.readouterr().err


# --- What a run says ------------------------------------------------------------------------------


def traced(folder, line, backend, per_second=100, label=""):
    """An idle guest that was recorded with such a line again and again; its result."""
    case = cases.case(LinuxGuest(("idle",), label=label), backend)
    own = folder / case.directory_name
    own.mkdir()
    manifest.write(own, manifest.describe(case, qemu="10.0.13", linux="6.12.117"))
    ticks = [(2 + n / per_second, line) for n in range(2 * per_second)]
    marks = [(1, "tracing_mark_write: begin idle"), (9, "tracing_mark_write: end idle")]
    trace = cases.kernel_trace(own / "kernel.trace", sorted([*ticks, *marks]))
    work = cases.workload("idle", {"4:ttyS0": 1}, {"4:ttyS0": 2}, elapsed_ms=2000.0)
    recording = cases.recording(own, case, kernel_trace=trace, workloads=(work,))
    return replace(judging.judge(recording), dir=own.name)


def seen(folder, answer, wanted, *results, entry=None):
    request = ReproduceRequest(answer, catalogue.shipped_entries(), bands.shipped(), None, 1)
    found = seen_in_modes(request, wanted, entry, runs.run_of(*results), folder)
    return {each.mode: each for each in found}


LOW = "kvm_set_irq: gsi 0 level 0 source 0"
SERIAL = "kvm_set_irq: gsi 4 level 1 source 0"


def test_recording_that_explain_names_the_entry_for_shows_it(tmp_path, answer):
    results = [traced(tmp_path, LOW, cases.ON), traced(tmp_path, SERIAL, cases.SPLIT)]

    found = seen(tmp_path, answer, GHOST, *results)

    assert found[ON].shown == ("explain names hpet-ghost-ticks in the part idle",)
    assert (found[SPLIT].shown, found[SPLIT].why_not) == ((), None)
    assert value_in(found[ON], "gsi/0/low") == pytest.approx(100, abs=2)
    assert value_in(found[SPLIT], "gsi/0/low") == 0
    assert value_in(found[SPLIT], "exit/*") is None


def test_rate_without_an_entry_is_shown_where_it_is_unusual_again(tmp_path, answer):
    wanted = Wanted((), ("gsi/8/high", "gsi/0/low"), ())

    found = seen(tmp_path, answer, wanted, traced(tmp_path, LOW, cases.ON))

    assert found[ON].shown == ("gsi/0/low in the part idle",)
    assert found[ON].others == ("explain names hpet-ghost-ticks, which the files do not",)


def test_quiet_files_and_a_guest_that_is_not_are_said(tmp_path, answer):
    found = seen(tmp_path, answer, NOTHING, traced(tmp_path, LOW, cases.ON))

    assert found[ON].shown[0].endswith("which the files do not show")


def test_guest_that_did_nothing_is_not_taken_for_a_quiet_one(tmp_path, answer):
    case = cases.case(cases.LINUX, cases.ON)
    (tmp_path / case.directory_name).mkdir()
    failure = LaunchError("QEMU did not start", "no such option")
    recording = cases.recording(tmp_path / case.directory_name, case, failure=failure, status=None)
    result = replace(judging.judge(recording), dir=case.directory_name)

    found = seen(tmp_path, answer, GHOST, result)

    assert found[ON].why_not is not None
    assert "QEMU did not start" in found[ON].why_not
    assert outcome(answer, GHOST, found[ON]).exit_status == 3


def test_signs_of_an_entry_of_which_one_is_unknown_do_not_show_it(tmp_path, answer):
    entry = catalogue.find("hpet-ghost-ticks")

    found = seen(tmp_path, answer, GHOST, traced(tmp_path, SERIAL, cases.ON), entry=entry)

    assert found[ON].shown == ()
    assert len(found[ON].measured) == len(entry.signs)


def test_idle_guest_says_nothing_where_the_work_of_the_entry_did_not_end(tmp_path, answer):
    case = cases.case(LinuxGuest(("stuck-line",)), cases.ON)
    (tmp_path / case.directory_name).mkdir()
    hangs = GuestHang("the guest says nothing more")
    work = cases.unanswered("stuck-line", 30.0)
    recording = cases.recording(
        tmp_path / case.directory_name, case, failure=hangs, status=None, workloads=(work,)
    )
    stuck = replace(judging.judge(recording), dir=case.directory_name)
    idle = traced(tmp_path, SERIAL, cases.ON, label="vm")
    entry = catalogue.find("stuck-line-storms")

    found = seen(tmp_path, answer, wanted_of(answer), idle, stuck, entry=entry)

    assert found[ON].shown == ()
    assert found[ON].why_not == f"{stuck.verdict}: {stuck.detail}"


def test_folder_without_a_run_is_a_mistake(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("sys.argv", ["irqmatrix", "explain", "x", "--out", str(tmp_path / "out")])

    with pytest.raises(SystemExit) as end:
        cli.main()

    assert end.value.code == 2
    assert "--reproduce" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
