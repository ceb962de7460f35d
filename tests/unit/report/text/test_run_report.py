import io
from dataclasses import replace

from rich.console import Console

from harness.compare.diff import Difference, DiffResult, DiffVerdict
from harness.compare.expectations import RuleResult
from harness.compare.known import Kind
from harness.doctor.doctor import Finding
from harness.model.verdict import Verdict
from harness.report.text.doctor_report import doctor_tables
from harness.report.text.run_report import run_report
from harness.store import result
from harness.store.result import RunResult
from support import cases
from support.judging import judge


def shown(print_it) -> str:
    text = io.StringIO()
    print_it(Console(file=text, width=200))
    return text.getvalue()


def run_of(tmp_path, *, unexplained=()):
    """Two backends that read a disk, 200 interrupts on one and ``n`` on the other."""
    outcomes = []
    for backend, count in ((cases.ON, 200), (cases.TCG, 150)):
        case = cases.case(cases.LinuxGuest(("block-intx",)), backend)
        folder = tmp_path / case.directory_name
        folder.mkdir()
        work = cases.workload("block-intx", {}, {"20:virtio0": count}, units=150)
        outcomes.append(judge(cases.recording(folder, case, workloads=(work,))))
    diff = DiffResult(outcomes[0].subject, "lab-kvm-on", "local-tcg", 1, unexplained=unexplained)
    summary = result.summarised(outcomes, (diff,))
    rules = (
        RuleResult("some-rule", Kind.BY_DESIGN, True, "docs/x", "lab-kvm-on", due=2, met=0),
        RuleResult("some-bug", Kind.KNOWN_BUG, True, "docs/x", "local-tcg", due=1, met=0),
        RuleResult("other-bug", Kind.KNOWN_BUG, True, "docs/x", "local-tcg", due=1, met=1),
    )
    return RunResult(result.SCHEMA, "x", {}, tuple(outcomes), (diff,), rules, summary)


DIFFERENCE = Difference(
    "block-intx",
    "handled/ioapic/20:virtio0",
    "guest",
    (200,),
    (150,),
    20.0,
    DiffVerdict.UNEXPLAINED,
    "the work determines it",
)


def test_report_has_a_row_a_counter_and_a_column_a_backend(tmp_path):
    run = run_of(tmp_path)
    text = shown(lambda console: run_report(console, run, tmp_path))

    (row,) = [line for line in text.splitlines() if "20:virtio0 [guest]" in line]
    assert row.split()[-2:] == ["200", "150"]
    assert "lab-kvm-on" in text
    assert "local-tcg" in text


def many_backends(tmp_path, count):
    """The run with so many backends, each a kernel with a long name; the last two differ."""
    run = run_of(tmp_path)
    model = run.cases[0]
    names = [f"lab-kvm-split-qemu10.0-linux6.{number}" for number in range(count)]
    outcomes = tuple(
        replace(model, id=f"{model.subject}/{name}", backend=name, axes={}) for name in names
    )
    found = DiffResult(model.subject, *names[-2:], 1, unexplained=(DIFFERENCE,))
    return names, replace(run, cases=outcomes, diffs=(found,))


def test_report_shows_what_a_check_measured(tmp_path):
    outcomes = []
    for backend, value in ((cases.ON, 12), (cases.TCG, 34)):
        case = cases.case(backend=backend)
        (tmp_path / case.directory_name).mkdir()
        console = f"SOTEST VERSION 1 BEGIN 1\nSOTEST BENCHMARK:latency:us:{value}\nSOTEST SUCCESS\n"
        folder = tmp_path / case.directory_name
        outcomes.append(judge(cases.recording(folder, case, console=console)))
    run = replace(run_of(tmp_path), cases=tuple(outcomes), diffs=(), rules=())
    text = shown(lambda console: run_report(console, run, tmp_path))

    (row,) = [line for line in text.splitlines() if "latency (us)" in line and "=" not in line]
    assert row.split()[-2:] == ["12", "34"]


def test_report_of_many_backends_is_in_blocks_that_fit_and_cut_nothing(tmp_path):
    names, run = many_backends(tmp_path, 16)
    text = shown(lambda console: run_report(console, run, tmp_path))

    table = text[: text.index("UNEXPLAINED  ")]
    assert max(len(line.rstrip()) for line in table.splitlines()) <= 200
    assert "…" not in table
    shown_kernels = [word for word in table.split() if word.startswith("linux6.")]
    assert shown_kernels == [name.rpartition("-")[2] for name in names]
    rows = [line.split() for line in table.splitlines() if "20:virtio0 [guest]" in line]
    assert len(rows) > 1
    assert sum(row.count("200") for row in rows) == len(names)


def test_report_says_of_a_block_only_what_its_backends_differ_in(tmp_path):
    _, run = many_backends(tmp_path, 16)
    text = shown(lambda console: run_report(console, run, tmp_path))

    rows = [line for line in text.splitlines() if "20:virtio0 [guest]" in line]
    assert ["UNEXPLAINED" in row for row in rows] == [*[False] * (len(rows) - 1), True]


def test_report_marks_what_is_unexplained_in_its_row_and_says_it_below(tmp_path):
    run = run_of(tmp_path, unexplained=(DIFFERENCE,))
    text = shown(lambda console: run_report(console, run, tmp_path))

    (row,) = [line for line in text.splitlines() if "20:virtio0 [guest]" in line]
    assert "UNEXPLAINED" in row
    assert "200 against 150 (the work determines it)" in text


def test_report_says_loudly_which_known_bug_no_longer_shows_and_where(tmp_path):
    run = run_of(tmp_path)
    text = shown(lambda c: run_report(c, run, tmp_path))

    assert "XPASS  the known bug 'some-bug' no longer shows on local-tcg (1 comparison)" in text
    assert "XPASS: 1 known bug" in text
    assert "other-bug" not in text


def test_report_names_stale_rules(tmp_path):
    run = run_of(tmp_path)
    text = shown(lambda c: run_report(c, run, tmp_path))

    assert "'some-rule' should have shown on lab-kvm-on in 2 comparisons and did not" in text


def test_report_says_what_was_expected_of_a_part_that_passed(tmp_path):
    run = run_of(tmp_path)
    part = replace(run.cases[0].parts[0], verdict=Verdict.PASS, expected=Verdict.STORM)
    bad = replace(run.cases[0], parts=(part,), as_expected=False)
    text = shown(lambda c: run_report(c, replace(run, cases=(bad, *run.cases[1:])), tmp_path))

    assert f"not as expected: {bad.id} (XPASS: block-intx should be storm, is pass)" in text


def test_report_marks_a_case_that_is_not_as_expected(tmp_path):
    run = run_of(tmp_path)
    bad = replace(run.cases[0], verdict=Verdict.STORM, as_expected=False)
    text = shown(lambda c: run_report(c, replace(run, cases=(bad, *run.cases[1:])), tmp_path))
    assert "storm !" in text


def test_report_says_loudly_what_passed_only_when_it_was_run_again(tmp_path):
    run = run_of(tmp_path)
    unsteady = replace(run.cases[0], first_time="hang: nothing more within 60 s")
    shaky = replace(run, cases=(unsteady, *run.cases[1:]))
    text = shown(lambda console: run_report(console, shaky, tmp_path))

    said = f"unsteady: {unsteady.id}: the first time hang: nothing more within 60 s"
    assert said in " ".join(text.split())


def test_doctor_tables_show_reason_and_what_to_do():
    finding = Finding("kvm", "/dev/kvm", False, "no", "it is not there", "load kvm_amd")
    text = shown(lambda console: doctor_tables(console, [finding]))
    assert "it is not there" in text
    assert "-> load kvm_amd" in text


def traced_run(tmp_path, *lines):
    """A case of which KVM traced so much."""
    case = cases.case(cases.LinuxGuest(("idle",)), cases.ON)
    trace = cases.kernel_trace(tmp_path / "kernel.trace", [(1.0, line) for line in lines])
    work = cases.workload("idle", {"4:ttyS0": 0}, {"4:ttyS0": 0})
    outcome = judge(cases.recording(tmp_path, case, workloads=(work,), kernel_trace=trace))
    outcome = replace(outcome, dir=".")
    return RunResult(result.SCHEMA, "x", {}, (outcome,), (), (), result.summarised((outcome,), ()))


RAISED = (
    "kvm_set_irq: gsi 4 level 1 source 0",
    "kvm_ioapic_set_irq: pin 4 dst 0 vec 0 (Fixed|physical|edge|masked)",
)
UNFOUNDED = "kvm_eoi: apicid 0 vector 49"


def test_report_says_of_each_case_whether_its_ledger_balances(tmp_path):
    run = traced_run(tmp_path, *RAISED)
    text = shown(lambda console: run_report(console, run, tmp_path))

    assert [line.split() for line in text.splitlines() if line.startswith("ledger")] == [
        ["ledger", "balances"]
    ]
    assert "ledger: balances, 1 lines raised" in text


def test_report_says_of_each_case_what_its_ledger_found(tmp_path):
    run = traced_run(tmp_path, *RAISED, UNFOUNDED)
    text = shown(lambda console: run_report(console, run, tmp_path))

    assert "1 finding" in text
    assert "ledger: spurious: vector 49 cpu0: EOI without an acceptance" in text


def test_report_with_ledgers_has_the_table_of_each_case(tmp_path):
    run = traced_run(tmp_path, *RAISED)
    text = shown(lambda console: run_report(console, run, tmp_path, ledgers=True))

    (row,) = [line.split() for line in text.splitlines() if line.startswith("ioapic pin 4")]
    assert row == ["ioapic", "pin", "4", "1", "1", "1"]
    assert "balanced: every assertion of a pin is accounted for: 1 = 1" in text
