from dataclasses import replace

from harness.compare.diff import Status
from harness.compare.finding import Finding, Group, Member, findings
from harness.compare.known import KnownDifferences
from harness.doctor import doctor
from harness.model.verdict import NOT_REACHED, Blame, PartResult, Verdict
from harness.report.text.doctor_report import doctor_tables
from harness.store.result import Nowhere
from support import cases, runs, seven
from support.judging import judge, run_of
from support.showing import shown, shown_run


def disk_finding(subject, *groups, status=Status.UNEXPLAINED):
    """The disk's interrupts differ between groups of backends."""
    return Finding(
        subject,
        "linux",
        "block-intx",
        "handled/ioapic/20:virtio0",
        "guest",
        tuple(
            Group(name, saw, tuple(Member(subject, backend) for backend in backends))
            for name, saw, backends in groups
        ),
        "irqchip: on | tcg",
        status,
        "the work determines it",
    )


DIFFERENCE = disk_finding(
    "linux/q35/qemu64/smp1", ("on", "200", ["lab-kvm-on"]), ("tcg", "150", ["local-tcg"])
)


def test_report_has_a_row_a_counter_and_a_column_a_backend(tmp_path):
    run = run_of(tmp_path)
    text = shown_run(run, tmp_path)

    (row,) = [line for line in text.splitlines() if line.startswith("  ioapic 20:virtio0 [guest]")]
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
    found = disk_finding(model.subject, ("", "200", names[:-1]), ("", "150", names[-1:]))
    return names, replace(run, cases=outcomes, findings=(found,))


def test_report_shows_what_a_check_measured(tmp_path):
    outcomes = []
    for backend, value in ((cases.ON, 12), (cases.TCG, 34)):
        case = cases.case(backend=backend)
        (tmp_path / case.directory_name).mkdir()
        console = f"SOTEST VERSION 1 BEGIN 1\nSOTEST BENCHMARK:latency:us:{value}\nSOTEST SUCCESS\n"
        folder = tmp_path / case.directory_name
        outcomes.append(judge(cases.recording(folder, case, console=console)))
    run = replace(run_of(tmp_path), cases=tuple(outcomes), findings=(), rules=())
    text = shown_run(run, tmp_path)

    (row,) = [line for line in text.splitlines() if "latency (us)" in line and "=" not in line]
    assert row.split()[-2:] == ["12", "34"]


def test_report_of_many_backends_is_in_blocks_that_fit_and_cut_nothing(tmp_path):
    names, run = many_backends(tmp_path, 16)
    text = shown_run(run, tmp_path, verbose=True)

    table = text[: text.index("UNEXPLAINED  ")]
    assert max(len(line.rstrip()) for line in table.splitlines()) <= 200
    assert "…" not in table
    shown_kernels = [word for word in table.split() if word.startswith("linux6.")]
    assert shown_kernels == [name.rpartition("-")[2] for name in names]
    rows = [
        line.split()
        for line in table.splitlines()
        if line.startswith("  ioapic 20:virtio0 [guest]")
    ]
    assert len(rows) > 1
    assert sum(row.count("200") for row in rows) == len(names)


def test_report_says_of_a_block_only_what_its_backends_differ_in(tmp_path):
    _, run = many_backends(tmp_path, 16)
    text = shown_run(run, tmp_path, verbose=True)

    rows = [line for line in text.splitlines() if line.startswith("  ioapic 20:virtio0 [guest]")]
    assert ["UNEXPLAINED" in row for row in rows] == [*[False] * (len(rows) - 1), True]


def test_report_marks_what_is_unexplained_in_its_row_and_says_it_below(tmp_path):
    run = run_of(tmp_path, found=(DIFFERENCE,))
    text = shown_run(run, tmp_path)

    (row,) = [line for line in text.splitlines() if line.startswith("  ioapic 20:virtio0 [guest]")]
    assert "UNEXPLAINED" in row
    lines = text.splitlines()
    (number,) = [n for n, line in enumerate(lines) if line.startswith("UNEXPLAINED")]
    assert lines[number].endswith("[irqchip: on | tcg]  (the work determines it)")
    assert [line.split() for line in lines[number + 1 : number + 3]] == [
        ["on:", "200"],
        ["tcg:", "150"],
    ]


def test_report_says_loudly_which_known_bug_no_longer_shows_and_where(tmp_path):
    run = run_of(tmp_path)
    text = shown_run(run, tmp_path)

    assert "XPASS  the known bug 'some-bug' no longer shows on local-tcg (1 comparison)" in text
    assert "XPASS: 1 known bug" in text
    assert "other-bug" not in text


def test_report_names_stale_rules(tmp_path):
    run = run_of(tmp_path)
    text = shown_run(run, tmp_path)

    assert "'some-rule' should have shown on lab-kvm-on in 2 comparisons and did not" in text


def test_report_says_what_was_expected_of_a_part_that_passed(tmp_path):
    run = run_of(tmp_path)
    part = replace(run.cases[0].parts[0], verdict=Verdict.PASS, expected=Verdict.STORM)
    bad = replace(run.cases[0], parts=(part,), as_expected=False)
    text = shown_run(replace(run, cases=(bad, *run.cases[1:])), tmp_path)

    (line,) = [line for line in text.splitlines() if "not as expected: " in line]
    where = "on: XPASS: should be storm, is pass, 1 of 2 cases"
    assert line == f"  not as expected: {bad.subject}  block-intx: {where}"


def test_report_marks_a_case_that_is_not_as_expected(tmp_path):
    run = run_of(tmp_path)
    bad = replace(run.cases[0], verdict=Verdict.STORM, as_expected=False)
    text = shown_run(replace(run, cases=(bad, *run.cases[1:])), tmp_path)
    assert "storm !" in text


def test_report_says_loudly_what_passed_only_when_it_was_run_again(tmp_path):
    run = run_of(tmp_path)
    flaky = replace(run.cases[0], first_time="hang: nothing more within 60 s")
    shaky = replace(run, cases=(flaky, *run.cases[1:]))
    text = shown_run(shaky, tmp_path)

    said = f"flaky: {flaky.id}: the first time hang: nothing more within 60 s"
    assert said in " ".join(text.split())


def test_doctor_tables_show_reason_and_what_to_do():
    finding = doctor.Capability("kvm", "/dev/kvm", False, "no", "it is not there", "load kvm_amd")
    text = shown(doctor_tables([finding]))
    assert "it is not there" in text
    assert "-> load kvm_amd" in text


def traced_run(tmp_path, *lines):
    """A case of which KVM traced so much."""
    case = cases.case(cases.LinuxGuest(("idle",)), cases.ON)
    trace = cases.kernel_trace(tmp_path / "kernel.trace", [(1.0, line) for line in lines])
    work = cases.workload("idle", {"4:ttyS0": 0}, {"4:ttyS0": 0})
    outcome = judge(cases.recording(tmp_path, case, workloads=(work,), kernel_trace=trace))
    outcome = replace(outcome, dir=".")
    return runs.run_of(outcome)


RAISED = (
    "kvm_set_irq: gsi 4 level 1 source 0",
    "kvm_ioapic_set_irq: pin 4 dst 0 vec 0 (Fixed|physical|edge|masked)",
)
UNFOUNDED = "kvm_eoi: apicid 0 vector 49"


def test_report_says_of_each_case_whether_its_ledger_balances(tmp_path):
    run = traced_run(tmp_path, *RAISED)
    text = shown_run(run, tmp_path)

    assert [line.split() for line in text.splitlines() if line.startswith("ledger")] == [
        ["ledger", "balances"]
    ]
    assert "ledger: balances, 1 lines raised" in text


def test_report_says_of_each_case_what_its_ledger_found(tmp_path):
    run = traced_run(tmp_path, *RAISED, UNFOUNDED)
    text = shown_run(run, tmp_path)

    assert "1 finding" in text
    assert "ledger: spurious: vector 49 cpu0: EOI without an acceptance" in text


def test_report_says_what_ledger_and_replay_say_once(tmp_path):
    run = traced_run(tmp_path, *RAISED)
    text = shown_run(run, tmp_path)

    assert text.count("ledger: balances") == 1
    assert text.count("replay: ") == 1


def test_report_says_the_detail_of_a_case_that_is_not_as_expected_once(tmp_path):
    bad = replace(runs.HANGS, notes=("ledger: balances",))
    text = shown_run(runs.run_of(bad), tmp_path)

    assert text.count("no answer within 5 s") == 1
    assert "  lab-kvm-on: ledger: balances" in text.splitlines()


def test_report_with_ledgers_has_the_table_of_each_case(tmp_path):
    run = traced_run(tmp_path, *RAISED)
    text = shown_run(run, tmp_path, ledgers=True)

    (row,) = [line.split() for line in text.splitlines() if line.startswith("ioapic pin 4")]
    assert row == ["ioapic", "pin", "4", "1", "1", "1"]
    assert "balanced: every assertion of a pin is accounted for: 1 = 1" in text


# --- Many cases, on one page ---------------------------------------------------------------------


def seven_findings():
    """28 cases, all as expected, in which seven scenarios differ and nothing says why."""
    compared = seven.compared(KnownDifferences(()))
    return runs.run_of(
        *seven.results(),
        comparisons=tuple(each.comparison for each in compared),
        findings=findings(compared),
    )


def test_report_of_28_cases_with_seven_findings_is_one_page(tmp_path):
    text = shown_run(seven_findings(), tmp_path)

    lines = text.splitlines()
    assert len([line for line in lines if line.startswith("UNEXPLAINED")]) == 7
    assert len(lines) <= 40
    assert "28 cases, all as expected; 7 unexplained findings" in lines


def test_report_of_28_cases_says_of_each_finding_who_saw_what(tmp_path):
    text = shown_run(seven_findings(), tmp_path)

    lines = text.splitlines()
    (number,) = [n for n, line in enumerate(lines) if "lost-eoi" in line]
    head = "UNEXPLAINED  probe/q35/qemu64/smp1  lost-eoi  [Linux: 6.12 | 6.1, only in split]"
    assert lines[number : number + 3] == [
        head,
        "    the others (12):      step 1, CPU 0: irq 0x51",
        "    split, Linux 6.1 (2): step 1, CPU 0: timeout 0x0",
    ]


def test_report_of_many_cases_has_a_line_for_a_subject_that_is_as_expected(tmp_path):
    text = shown_run(seven_findings(), tmp_path)

    assert "probe/q35/qemu64/smp1: 14 pass" in text.splitlines()
    assert "verdict" not in text


def test_report_of_many_cases_has_the_table_of_a_subject_that_is_not_as_expected(tmp_path):
    run = seven_findings()
    bad = replace(run.cases[0], verdict=Verdict.HANG, as_expected=False, detail="CPU 0 sleeps")
    text = shown_run(run.with_cases((bad, *run.cases[1:])), tmp_path)

    assert len([line for line in text.splitlines() if line.startswith("verdict")]) == 1
    assert "probe/q35/qemu64/smp2: 14 pass" in text.splitlines()


def test_report_of_a_cause_in_many_cases_says_it_once_and_where(tmp_path):
    run = seven_findings()
    wrong = [
        replace(
            case,
            verdict=Verdict.DIVERGED,
            as_expected=False,
            parts=(replace(case.parts[0], verdict=Verdict.DIVERGED, detail="step 1: 0x51"),),
        )
        if case.axes["irqchip"] == "split" and case.axes["smp"] == 1
        else case
        for case in run.cases
    ]
    text = shown_run(run.with_cases(wrong), tmp_path)

    (line,) = [line for line in text.splitlines() if line.startswith("  not as expected: ")]
    said = "split: diverged, 4 of 14 cases: step 1: 0x51"
    assert line == f"  not as expected: probe/q35/qemu64/smp1  all-agree: {said}"


def test_report_of_many_checks_that_fail_alike_is_one_line_and_verbose_has_each(tmp_path):
    run = run_of(tmp_path)
    parts = tuple(PartResult(f"check-{n}", Verdict.FAIL, f"FAIL: check-{n}") for n in range(40))
    bad = replace(run.cases[0], verdict=Verdict.FAIL, as_expected=False, parts=parts, detail="")
    bad = replace(bad, blame=Blame.GUEST)
    failing = replace(run, cases=(bad,), findings=())
    start = "  not as expected: "

    (line,) = [one for one in shown_run(failing, tmp_path).splitlines() if one.startswith(start)]
    said = "fail (looks like guest): check-0, check-1, check-2 and 37 more"
    assert line == f"{start}{bad.id}  40 parts: {said}"
    whole = shown_run(failing, tmp_path, verbose=True).splitlines()
    assert len([one for one in whole if one.startswith(start)]) == 40


def test_report_of_a_guest_that_hung_is_one_line_and_says_how_much_it_did_not_reach(tmp_path):
    rest = tuple(
        PartResult(f"scenario-{number}", Verdict.ERROR, f"{NOT_REACHED}: no answer within 5 s")
        for number in range(26)
    )
    hung = PartResult("lost-eoi", Verdict.HANG, "no answer within 5 s")
    bad = replace(runs.HANGS, parts=(hung, *rest))
    text = shown_run(runs.run_of(bad), tmp_path)

    (line,) = [line for line in text.splitlines() if line.startswith("  not as expected: ")]
    assert line.endswith("lost-eoi: hang: no answer within 5 s; 26 not reached")


def test_report_verbose_shows_every_table_and_every_rule(tmp_path):
    compared = seven.compared(KnownDifferences.shipped())
    run = replace(seven_findings(), findings=(*findings(compared), *runs.FINDINGS))
    short = shown_run(run, tmp_path)
    text = shown_run(run, tmp_path, verbose=True)

    assert len([line for line in text.splitlines() if line.startswith("verdict")]) == 2
    assert "    it should not" in text.splitlines()
    assert "known bug: 1 findings, by lost-pin" in short.splitlines()


# --- The end ------------------------------------------------------------------------------------


def end_of(run, tmp_path):
    return shown_run(run, tmp_path).splitlines()


def test_end_of_a_good_run_says_so_first(tmp_path):
    quiet = replace(runs.GOOD, parts=runs.GOOD.parts[:1])

    assert "1 case, as expected" in end_of(runs.run_of(quiet), tmp_path)


def test_end_of_a_run_that_was_ended_says_once_that_nothing_was_compared(tmp_path):
    run = runs.run_of(runs.GOOD)
    ended = replace(run, environment=run.environment | {"finished": None})

    said = "  the run did not end: its cases were not compared"
    assert end_of(ended, tmp_path).count(said) == 1


def test_end_counts_the_cases_of_reproducers_apart(tmp_path):
    storm = replace(runs.GOOD, id="x", group="repro-x", verdict=Verdict.STORM)
    hang = replace(storm, id="y", verdict=Verdict.HANG)

    assert (
        "1 case, as expected; 2 cases of reproducers, all as expected (1 storm, 1 hang)"
        in end_of(runs.run_of(runs.GOOD, storm, hang), tmp_path)
    )


def test_end_says_once_for_each_reason_what_was_skipped_and_where(tmp_path):
    gone = "QEMU 10.0 has no kernel-irqchip=off"
    run = seven_findings()
    skipped = [
        replace(case, verdict=Verdict.SKIP, detail=gone)
        if (case.axes["irqchip"], case.axes["qemu"]) == ("off", "10.0")
        else case
        for case in run.cases
    ]

    assert f"  skipped: 4 cases (off, QEMU 10.0): {gone}" in end_of(
        run.with_cases(skipped), tmp_path
    )


def test_end_names_what_ran_nowhere(tmp_path):
    nowhere = Nowhere(("tsc-deadline-past", "linux: ipi"), is_error=True)
    lines = end_of(runs.run_of(runs.GOOD, nowhere=nowhere), tmp_path)

    assert "1 case, as expected; 2 ran nowhere" in lines
    assert "  ran nowhere: tsc-deadline-past, linux: ipi" in lines


def test_report_says_whose_fault_a_verdict_looks_like(tmp_path):
    bad = replace(runs.HANGS, blame=Blame.LAB)
    text = shown_run(runs.run_of(bad), tmp_path)

    assert "hang ! (lab)" in text
    assert f"  not as expected: {bad.id}: hang (looks like lab): no answer within 5 s" in text
