"""Flat images by what they print and how they end; through the judge, as a run sees them."""

import pytest

from harness.base.errors import GuestCrash
from harness.guests import protocol_files
from harness.model.case import FlatGuest
from harness.model.verdict import Blame, Verdict
from support import cases
from support.judging import judge

SHIPPED = {protocol.name: protocol for protocol in protocol_files.shipped()}
SOTEST = 'SOTEST VERSION 1 BEGIN 3\nSOTEST SUCCESS "one"\nSOTEST SKIP\nSOTEST SUCCESS "three"\n'
TAP = "1..3\nok 1 - one\nok 2 - two # SKIP here\nok 3 - three\n"
KUT = "PASS: one\nPASS: two\nSKIP: three\nSUMMARY: 3 tests, 1 skipped\n"
RESET, POWER_OFF = "guest-reset", "guest-shutdown"


def run(tmp_path, console, status=1, *, stderr="", expect=(), guest=(), cpu="qemu64", **changes):
    (tmp_path / "stderr.log").write_text(stderr)
    flat = FlatGuest(cases.FLAT.path, expect=dict(expect), **dict(guest))
    changes = {"console": console, "status": status} | changes
    return judge(cases.recording(tmp_path, cases.case(flat, cpu=cpu), **changes))


# --- ends that are ends


@pytest.mark.parametrize("console", [SOTEST, TAP, KUT])
@pytest.mark.parametrize(
    "end",
    [
        {"status": 1},
        {"status": 0, "ended_by": RESET},
        {"status": 0, "ended_by": POWER_OFF},
        {"status": None},
    ],
)
def test_whole_results_are_the_verdict_however_the_image_ends(tmp_path, console, end):
    result = run(tmp_path, console, **end)
    assert (result.verdict, result.as_expected, len(result.parts)) == (Verdict.PASS, True, 3)


@pytest.mark.parametrize(
    "end", [{"status": 3}, {"status": 0, "ended_by": RESET}, {"status": None}, {"status": 1}]
)
def test_failed_check_is_the_verdict_however_the_image_ends(tmp_path, end):
    result = run(tmp_path, SOTEST.replace('SUCCESS "three"', 'FAIL "three"'), **end)
    assert (result.verdict, result.parts[2].verdict) == (Verdict.FAIL, Verdict.FAIL)
    assert "three" in result.detail


def test_value_is_a_metric_of_its_part_and_shown_with_it(tmp_path):
    result = run(
        tmp_path, SOTEST.replace("SOTEST SUC", "SOTEST BENCHMARK:lat:us:12\nSOTEST SUC", 1)
    )
    assert result.parts[0].metrics == {"lat (us)": 12}
    assert result.parts[0].detail == 'SOTEST SUCCESS "one"; lat (us) = 12'


@pytest.mark.parametrize(
    ("console", "status", "reason"),
    [
        ("1..0 # SKIP no HPET\n", 1, "no HPET"),
        ("1..0 # SKIP no HPET\n", 0, "no HPET"),
        ("cannot run here\n", 77, "the image skipped itself"),
        ("SKIP: no x2APIC\nSUMMARY: 1 tests, 1 skipped\n", 77, "SKIP: no x2APIC"),
    ],
)
def test_image_that_skips_itself_is_skip_with_its_reason(tmp_path, console, status, reason):
    result = run(tmp_path, console, status)
    assert (result.verdict, result.parts[0].detail) == (Verdict.SKIP, reason)


# --- ends that come too early


@pytest.mark.parametrize(
    ("end", "detail"),
    [
        ({"status": 0, "ended_by": RESET}, "reset after 4 of 25 checks"),
        ({"status": 0, "ended_by": POWER_OFF}, "powered off after 4 of 25 checks"),
        ({"status": 0}, "reset or powered off after 4 of 25 checks"),
    ],
)
def test_image_that_goes_away_before_its_plan_is_fulfilled_is_crash(tmp_path, end, detail):
    console = "SOTEST VERSION 1 BEGIN 25\n" + 4 * "SOTEST SUCCESS\n"
    result = run(tmp_path, console, **end)
    assert (result.verdict, result.detail) == (Verdict.CRASH, detail)
    assert len(result.parts) == 4


@pytest.mark.parametrize(
    ("console", "detail"),
    [
        ("PASS: one\n", "reset after 1 check"),
        ("hello\n", "reset before its first check"),
        ("", "reset before its first check"),
        ("SOTEST VERSION 1 BEGIN 25\n", "reset after 0 of 25 checks"),
    ],
)
def test_image_that_resets_without_a_plan_is_crash(tmp_path, console, detail):
    result = run(tmp_path, console, 0, ended_by=RESET, vcpu_of_thread={7: 0})
    assert (result.verdict, result.detail) == (Verdict.CRASH, detail)


@pytest.mark.parametrize("end", [{"status": 0, "ended_by": RESET}, {"status": 255}])
def test_image_that_says_why_it_died_is_quoted(tmp_path, end):
    words = "Unhandled exception 13 #GP at ip 0000000000401234"
    result = run(tmp_path, f"PASS: one\n{words}\nerror_code=0000\n", **end)
    assert result.detail.endswith(f"after 1 check; the guest said: {words}")


def test_qemu_that_was_killed_says_how_far_the_image_got(tmp_path):
    result = run(tmp_path, "1..3\nok 1\n", None, failure=GuestCrash("its QEMU went away"))
    assert result.verdict is Verdict.CRASH
    assert result.detail.startswith("its QEMU went away after 1 of 3 checks")


@pytest.mark.parametrize(
    ("console", "detail"),
    [
        ("SUMMARY: 9 tests\nPASS: one\n", "ended after 1 of 9 checks"),
        ("PASS: one\nSUMMARY: 99999999999999999999 tests\n", "ended after 1 of 10"),
        ("1..1\nok 1\nok 2\n", "ended after 2 of 1 check"),
        ("TAP version 14\nok 1\n", "ended after 1 check, and no plan"),
        ("SOTEST VERSION 1 BEGIN 0\nSOTEST END\n", "checked nothing: it reported no check"),
    ],
)
def test_plan_that_is_not_fulfilled_is_error_even_where_the_status_says_pass(
    tmp_path, console, detail
):
    result = run(tmp_path, console, 1)
    assert (result.verdict, result.as_expected) == (Verdict.ERROR, False)
    assert result.detail.startswith(detail)
    assert result.blame is Blame.GUEST


def test_plan_that_is_not_fulfilled_with_a_failed_check_is_fail(tmp_path):
    result = run(tmp_path, "1..9\nok 1\nnot ok 2 - two\n", 3)
    assert result.verdict is Verdict.FAIL
    assert result.detail == "two: not ok 2 - two; ended after 2 of 9 checks"


# --- nothing was checked


@pytest.mark.parametrize(
    "console", ["hello\n", "all tests passed\n", "\n\n  \n", "SUMMARY: 0 tests\n"]
)
def test_image_without_a_check_is_error(tmp_path, console):
    result = run(tmp_path, console, 1, vcpu_of_thread={7: 0})
    assert (result.verdict, result.as_expected) == (Verdict.ERROR, False)
    assert "checked nothing" in result.detail
    assert result.blame is Blame.GUEST


def test_image_that_exits_without_a_word_checked_nothing(tmp_path):
    result = run(tmp_path, "", 1, vcpu_of_thread={7: 0})
    assert result.verdict is Verdict.ERROR
    assert "checked nothing" in result.detail


@pytest.mark.parametrize("status", [0, 1])
def test_qemu_that_ends_without_a_word_is_error_of_qemu(tmp_path, status):
    result = run(tmp_path, "", status)
    assert (result.verdict, result.blame) == (Verdict.ERROR, Blame.QEMU)
    assert result.detail == f"QEMU ended with status {status} and said nothing, nor did the guest"


def test_two_protocols_at_once_are_error_that_says_what_to_do(tmp_path):
    result = run(tmp_path, SOTEST + "FAIL: one\n", 1)
    assert result.verdict is Verdict.ERROR
    assert "several protocols at once: kvm-unit-tests, sotest" in result.detail
    assert "protocol:" in result.detail


def test_chosen_protocol_counts_alone(tmp_path):
    result = run(tmp_path, SOTEST + "FAIL: one\n", 1, guest={"protocol": SHIPPED["sotest"]})
    assert (result.verdict, len(result.parts)) == (Verdict.PASS, 3)


# --- exit values


@pytest.mark.parametrize(
    ("console", "status", "verdict", "detail"),
    [
        ("PASS: one\n", 3, Verdict.FAIL, "exit value 1, though no check failed"),
        ("PASS: one\n", 11, Verdict.ERROR, "unknown exit value 5 after 1 check"),
        ("PASS: one\n", 255, Verdict.FAIL, "the image aborted (exit value 127) after 1 check"),
        ("1..9\nok 1\n", 255, Verdict.FAIL, "aborted (exit value 127) after 1 of 9 checks"),
        ("PASS: one\nFAIL: two\n", 11, Verdict.FAIL, "two: FAIL: two"),
        ("PASS: one\n", 2, Verdict.ERROR, "QEMU ended with status 2"),
        (
            "1..9\nok 1\nBail out! no memory\n",
            1,
            Verdict.FAIL,
            "gave up after 1 of 9 checks: no mem",
        ),
        ("1..9\nok 1\nBail out! no memory\n", None, Verdict.FAIL, "gave up after 1 of 9 checks"),
        ("1..1\nok 1\nBail out! late\n", 0, Verdict.FAIL, "gave up after 1 of 1 check: late"),
    ],
)
def test_exit_value_and_checks_together_are_the_verdict(tmp_path, console, status, verdict, detail):
    result = run(tmp_path, console, status)
    assert result.verdict is verdict
    assert detail in result.detail


@pytest.mark.parametrize(
    ("status", "verdict"),
    [
        (1, Verdict.PASS),
        (77, Verdict.SKIP),
        (3, Verdict.FAIL),
        (11, Verdict.FAIL),
        (0, Verdict.CRASH),
        (2, Verdict.ERROR),
    ],
)
def test_exit_status_alone_decides_where_nothing_is_to_be_checked(tmp_path, status, verdict):
    console = "cpuid 1234\nFAIL: not a check\n"
    result = run(tmp_path, console, status, guest={"has_checks": False})
    assert result.verdict is verdict


def test_exit_status_alone_is_a_part_of_its_own(tmp_path):
    result = run(tmp_path, "cpuid 1234\n", 1, guest={"has_checks": False})
    assert [(part.id, part.detail) for part in result.parts] == [("image", "exit value 0")]


# --- what QEMU refuses


def test_hyper_v_under_tcg_is_skip_with_qemus_words(tmp_path):
    words = "qemu-system-x86_64: kernel doesn't allow setting HyperV VP_INDEX"
    stderr = f"2026-11-29T13:55:35.370900Z {words}\n"
    result = run(tmp_path, "", 1, stderr=stderr, cpu="qemu64,hv_vpindex")
    assert (result.verdict, result.as_expected, result.detail) == (Verdict.SKIP, True, words)


def test_other_refusal_under_tcg_is_error(tmp_path):
    result = run(tmp_path, "", 1, stderr="unknown CPU\n", cpu="qemu64,+nohv")
    assert result.verdict is Verdict.ERROR


# --- a protocol of one's own


def test_own_protocol_without_plan_or_end_may_power_off_and_not_reset(tmp_path):
    path = tmp_path / "own.yaml"
    path.write_text("lines:\n  - pass: 'GOOD (?P<name>.*)'\n  - fail: 'BAD (?P<name>.*)'\n")
    guest = {"protocol": protocol_files.load(path)}
    off = run(tmp_path, "GOOD a\n", 0, ended_by=POWER_OFF, guest=guest)
    reset = run(tmp_path, "GOOD a\n", 0, ended_by=RESET, guest=guest)
    assert (off.verdict, reset.verdict) == (Verdict.PASS, Verdict.CRASH)
