"""Consoles as images print them, and worse, by each result protocol."""

import pytest

from harness.guests import protocol_files, protocols
from harness.guests.protocols import Result

SHIPPED = {protocol.name: protocol for protocol in protocol_files.shipped()}


def read(console, name):
    return protocols.read(console, SHIPPED[name])


def recognise(console):
    return protocols.recognise(console, protocol_files.shipped())


def ids(said):
    return [check.id for check in said.checks]


def results(said):
    return {check.id: check.result.value for check in said.checks}


# --- kvm-unit-tests


@pytest.mark.parametrize(
    ("word", "result"),
    [
        ("PASS", Result.PASS),
        ("XFAIL", Result.PASS),
        ("KFAIL", Result.PASS),
        ("FAIL", Result.FAIL),
        ("XPASS", Result.FAIL),
        ("SKIP", Result.SKIP),
    ],
)
def test_kvm_unit_tests_word_is_its_result_and_its_line_is_kept(word, result):
    (check,) = read(f"{word}: a check\n", "kvm-unit-tests").checks
    assert (check.result, check.label, check.line) == (result, "a check", f"{word}: a check")


def test_kvm_unit_tests_other_lines_are_passed_over():
    text = "enabling apic\nPASS: one\nSomething PASS: not this\nINFO: nor this\nSUMMARY: 1 tests\n"
    assert ids(read(text, "kvm-unit-tests")) == ["one"]


def test_kvm_unit_tests_summary_is_its_plan():
    said = read("PASS: one\nFAIL: two\nSUMMARY: 2 tests, 1 unexpected failures\n", "kvm-unit-tests")
    assert (said.plan.planned, said.plan.failures, said.shortfall()) == (2, 1, None)


def test_kvm_unit_tests_without_a_summary_needs_none():
    assert read("PASS: one\n", "kvm-unit-tests").shortfall() is None


@pytest.mark.parametrize(
    ("console", "shortfall"),
    [
        ("PASS: one\nSUMMARY: 19 tests\n", "1 of 19 checks"),
        ("PASS: one\nPASS: two\nSUMMARY: 1 tests\n", "2 of 1 check"),
        ("PASS: one\nSUMMARY: " + 5000 * "9" + " tests\n", f"1 of {10**18} checks"),
        ("PASS: one\nSUMMARY: 1 tests, 2 unexpected failures\n", "0 of 2 failed checks"),
        ("SUMMARY: 0 tests\n", "checked nothing"),
        ("hello\n", "checked nothing"),
        ("", "checked nothing"),
    ],
)
def test_kvm_unit_tests_results_that_are_not_whole_say_what_is_missing(console, shortfall):
    assert read(console, "kvm-unit-tests").shortfall() == shortfall


def test_kvm_unit_tests_abort_says_why():
    said = read("PASS: one\nABORT: no vmx\nSUMMARY: 1 tests\n", "kvm-unit-tests")
    assert said.aborted == "no vmx"


# --- SoTest

SOTEST = """toyos starts
SOTEST VERSION 1 BEGIN 3
SOTEST BENCHMARK:latency:us:12
SOTEST SUCCESS "test_one"
SOTEST SKIP
SOTEST FAIL "test_three"
SOTEST END
"""


def test_sotest_every_check_is_read_and_the_value_is_of_the_next_one():
    said = read(SOTEST, "sotest")
    assert results(said) == {"test_one": "pass", "check 2": "skip", "test_three": "fail"}
    assert said.checks[0].metrics == {"latency (us)": 12}
    assert (said.shortfall(), said.ended) == (None, True)


def test_sotest_results_may_have_no_names():
    said = read("SOTEST VERSION 1 BEGIN 2\nSOTEST SUCCESS\nSOTEST FAIL\nSOTEST END\n", "sotest")
    assert results(said) == {"check 1": "pass", "check 2": "fail"}


def test_sotest_line_may_have_a_suffix_and_no_prefix():
    text = 'SOTEST VERSION 1 BEGIN 2 now\nSOTEST SUCCESS "a" in 3 ms\nx SOTEST SUCCESS "b"\n'
    assert read(text, "sotest").shortfall() == "1 of 2 checks"


@pytest.mark.parametrize(
    ("line", "name", "result", "metrics"),
    [
        ('SOTEST BENCHMARK 7 "ms" "boot"', "boot", "pass", {"boot (ms)": 7}),
        (
            'SOTEST "SUCCESS" BENCHMARK "lower" 2.5 "s" "boot"',
            "boot",
            "pass",
            {"boot (s)": 2.5},
        ),
        ('SOTEST FAIL BENCHMARK "lower" 9 "s" "boot"', "boot", "fail", {"boot (s)": 9}),
    ],
)
def test_sotest_benchmark_with_quotes_is_a_check_with_a_value(line, name, result, metrics):
    (check,) = read(f"SOTEST VERSION 1 BEGIN 1\n{line}\nSOTEST END\n", "sotest").checks
    assert (check.label, check.result, check.metrics) == (name, result, metrics)


@pytest.mark.parametrize(
    ("value", "metric"),
    [("12", 12), ("-3", -3), ("0.5", 0.5), ("fast", "fast"), ("9" * 5000, "9" * 400), ("٣", "٣")],
)
def test_sotest_value_is_a_number_or_else_its_text(value, metric):
    text = f"SOTEST BENCHMARK:a:b:{value}\nSOTEST SUCCESS\n"
    found = read(text, "sotest").checks[0].metrics["a (b)"]
    assert found[:400] == metric if isinstance(found, str) else found == metric


def test_sotest_value_after_the_last_check_is_of_that_one():
    assert read("SOTEST SUCCESS\nSOTEST BENCHMARK:a:b:1\n", "sotest").checks[0].metrics == {
        "a (b)": 1
    }


@pytest.mark.parametrize(
    ("console", "shortfall"),
    [
        ("SOTEST VERSION 1 BEGIN 25\n" + 4 * "SOTEST SUCCESS\n", "4 of 25 checks"),
        ("SOTEST VERSION 1 BEGIN 25\n", "0 of 25 checks"),
        ("SOTEST VERSION 1 BEGIN 0\nSOTEST END\n", "checked nothing"),
        ("SOTEST SUCCESS\nSOTEST END\n", "1 check, and no plan"),
        ("SOTEST END\n", "checked nothing"),
        # Another CPU's words in the midst of a line, and in front of one.
        ("SOTEST VERSION 1 BEGIN 1\nSOTEST SUCC\nESS\nSOTEST END\n", "0 of 1 check"),
        ("SOTEST VERSION 1 BEGIN 1\nCPU1: SOTEST SUCCESS\nSOTEST END\n", "0 of 1 check"),
        # It begins again: a reset that nothing stopped.
        (2 * ("SOTEST VERSION 1 BEGIN 2\nSOTEST SUCCESS\nSOTEST SUCCESS\n"), "4 of 2 checks"),
        # Results after the end are results.
        ("SOTEST VERSION 1 BEGIN 1\nSOTEST SUCCESS\nSOTEST END\nSOTEST FAIL\n", "2 of 1 check"),
    ],
)
def test_sotest_results_that_are_not_whole_say_what_is_missing(console, shortfall):
    assert read(console, "sotest").shortfall() == shortfall


def test_sotest_fulfilled_plan_needs_no_end_line():
    assert read("SOTEST VERSION 1 BEGIN 1\nSOTEST SUCCESS\n", "sotest").shortfall() is None


def test_sotest_panic_is_an_abort():
    assert read("SOTEST PANIC page fault\n", "sotest").aborted == "page fault"


# --- TAP and KTAP

TAP = """TAP version 14
1..6
ok 1 - timer fires
not ok 2 - line is level
  ---
  message: 'ok 9 - not a result'
  ok 10 - nor this
  not ok 11
  ...
ok 3 # SKIP no x2APIC
not ok 4 - known to fail # TODO later
ok 5
ok 6 - C#, and 17 of 18
"""


def test_tap_every_result_is_read_and_diagnostics_are_not():
    said = read(TAP, "tap")
    assert results(said) == {
        "timer fires": "pass",
        "line is level": "fail",
        "check 3": "skip",
        "known to fail": "pass",
        "check 5": "pass",
        "C#, and N of N": "pass",
    }
    assert said.shortfall() is None


@pytest.mark.parametrize(
    ("line", "result", "label"),
    [
        ("ok", "pass", "check 1"),
        ("ok 1", "pass", "check 1"),
        ("ok 1 name", "pass", "name"),
        ("ok 1 - name", "pass", "name"),
        ("ok - name", "pass", "name"),
        ("ok 1 - a # b", "pass", "a # b"),
        (r"ok 1 - a \# skip", "pass", r"a \# skip"),
        ("ok 1 - name # skip", "skip", "name"),
        ("ok 1 - name # SKIP: why", "skip", "name"),
        ("ok 1 name # Skipped", "skip", "name"),
        ("not ok 1 - name # SKIP why", "skip", "name"),
        ("ok 1 - name # TODO", "pass", "name"),
        ("not ok 1 name # todo why", "pass", "name"),
        ("not ok 1 name # XFAIL why", "pass", "name"),
        ("not ok 1 - name # TIMEOUT", "fail", "name # TIMEOUT"),
        ("not ok", "fail", "check 1"),
        ("not ok 1 - todo list", "fail", "todo list"),
    ],
)
def test_tap_line_is_read_as_the_specification_says(line, result, label):
    (check,) = read(f"1..1\n{line}\n", "tap").checks
    assert (check.result, check.label) == (result, label)


@pytest.mark.parametrize("line", ["okay 1", "ok, now", "not okay", "# ok 1", "OK 1", "xok 1"])
def test_tap_other_words_are_no_results(line):
    assert read(f"1..1\n{line}\n", "tap").checks == ()


def test_tap_plan_may_come_last():
    assert read("ok 1\nok 2\n1..2\n", "tap").shortfall() is None


@pytest.mark.parametrize(
    ("console", "shortfall"),
    [
        ("1..4\nok 1\nok 2\n", "2 of 4 checks"),
        ("1..2\nok 1\nok 1\n", "1 of 2 checks"),
        ("1..1\nok 1\nok 2\n", "2 of 1 check"),
        ("TAP version 13\nok 1\n", "1 check, and no plan"),
        ("1..0\n", "checked nothing"),
        ("TAP version 13\n", "checked nothing"),
        ("1..1\n    1..3\n    ok 1\nok 1 - whole\n", "1 of 3 checks in whole"),
    ],
)
def test_tap_results_that_are_not_whole_say_what_is_missing(console, shortfall):
    assert read(console, "tap").shortfall() == shortfall


def test_tap_plan_of_nothing_with_a_reason_is_a_skip():
    assert read("1..0 # SKIP no HPET here\n", "tap").skipped == "no HPET here"


def test_tap_bail_out_says_why():
    said = read("1..4\nok 1\nBail out! No memory\n", "tap")
    assert (said.aborted, str(said.plan)) == ("No memory", "1 of 4 checks")


KTAP = """KTAP version 1
1..2
  KTAP version 1
  # Subtest: suite
  1..2
    KTAP version 1
    # Subtest: inner
    1..1
    ok 1 - deepest
  ok 1 - inner
  # a diagnostic
  not ok 2 - second
# suite: pass:1 fail:1
not ok 1 - suite
ok 2 - alone # SKIP
"""


def test_ktap_parts_are_named_after_the_checks_that_they_are_parts_of():
    said = read(KTAP, "tap")
    assert results(said) == {
        "suite / inner / deepest": "pass",
        "suite / inner": "pass",
        "suite / second": "fail",
        "suite": "fail",
        "alone": "skip",
    }
    assert (str(said.plan), said.shortfall()) == ("2 of 2 checks", None)


def test_tap_14_parts_are_named_and_may_follow_each_other():
    text = (
        "TAP version 14\n1..2\n"
        "# Subtest: a\n    ok 1 - x\n    1..1\nok 1 - a\n"
        "# Subtest: b\n    ok 1 - x\n    1..1\nok 2 - b\n"
    )
    assert ids(read(text, "tap")) == ["a / x", "a", "b / x", "b"]


def test_ktap_parts_that_were_cut_off_have_the_name_that_was_announced():
    text = "KTAP version 1\n1..2\n  # Subtest: suite\n  1..3\n  ok 1 - first\n"
    said = read(text, "tap")
    assert ids(said) == ["suite / first"]
    assert said.shortfall() == "0 of 2 checks"


def test_tap_diagnostic_that_never_ends_hides_only_what_is_in_it():
    said = read("1..2\nnot ok 1 - a\n  ---\n  text\nnot ok 2 - b\n", "tap")
    assert results(said) == {"a": "fail", "b": "fail"}


def test_tap_indentation_without_end_is_read():
    text = "1..1\n" + "".join(f"{' ' * depth}ok 1 - x\n" for depth in range(2, 400))
    assert len(read(text, "tap").checks) == 398


# --- ids and lines, of any protocol


def test_checks_carriage_returns_and_colours_do_not_reach_the_label():
    said = read("\x1b[1;32mPASS: one\x1b[0m\r\n", "kvm-unit-tests")
    assert ids(said) == ["one"]


def test_checks_same_label_twice_gets_ids_of_its_own():
    said = read("PASS: NMI\nFAIL: NMI\nPASS: NMI\n", "kvm-unit-tests")
    assert ids(said) == ["NMI", "NMI~2", "NMI~3"]


def test_checks_label_like_another_ones_id_gets_an_id_of_its_own():
    said = read("PASS: x\nPASS: x\nFAIL: x~2\n", "kvm-unit-tests")
    assert ids(said) == ["x", "x~2", "x~N"]


def test_checks_varying_number_leaves_the_id_alone():
    first = read("PASS: TSC deadline fired after 1234 cycles (0x4d2)\n", "kvm-unit-tests")
    second = read("PASS: TSC deadline fired after 99 cycles (0x63)\n", "kvm-unit-tests")
    assert ids(first) == ids(second)
    assert first.checks[0].label != second.checks[0].label


@pytest.mark.parametrize(
    ("label", "normal"),
    [
        ("x2apic id matches cpuid", "x2apic id matches cpuid"),
        ("IRQ4 arrives", "IRQ4 arrives"),
        ("got 17 of 18 interrupts", "got N of N interrupts"),
        ("apic id register: 0x0f", "apic id register: N"),
    ],
)
def test_normalised_label_keeps_names_and_drops_numbers(label, normal):
    assert protocols.normalised(label) == normal


def test_line_separators_of_unicode_end_no_line():
    assert ids(read("PASS: a\u2028FAIL: b\x0b\x0cFAIL: c\n", "kvm-unit-tests")) == [
        "a\u2028FAIL: b\x0b\x0cFAIL: c"
    ]


def test_last_line_without_an_end_is_a_line():
    assert ids(read("PASS: one\nFAIL: tw", "kvm-unit-tests")) == ["one", "tw"]


def test_line_of_any_length_is_cut():
    (check,) = read("FAIL: " + 3_000_000 * "x", "kvm-unit-tests").checks
    assert len(check.line) == protocols.MAX_LINE_CHARACTERS


@pytest.mark.parametrize("name", sorted(SHIPPED))
@pytest.mark.parametrize("line", ["ok 1" + " " * 500, "SOTEST SUCCESS" + ' "' * 250, "ok #" * 125])
@pytest.mark.timeout(60)
def test_line_that_is_made_to_be_slow_is_read_like_any_other(name, line):
    said = read(f"{line}\n" * 500, name)
    assert len(said.checks) in (0, 500)


def test_more_checks_than_are_kept_are_not_whole(monkeypatch):
    monkeypatch.setattr(protocols, "MAX_CHECKS", 3)
    said = read(5 * "PASS: x\n" + "FAIL: y\n", "kvm-unit-tests")
    assert len(said.checks) == 4
    assert said.shortfall().startswith("more than 3 checks")


@pytest.mark.timeout(60)
def test_as_many_checks_as_are_kept_are_whole():
    said = read("PASS: x\n" * protocols.MAX_CHECKS, "kvm-unit-tests")
    assert (len(said.checks), said.shortfall()) == (protocols.MAX_CHECKS, None)


# --- which protocol


@pytest.mark.parametrize(
    ("console", "name"),
    [
        (SOTEST, "sotest"),
        (TAP, "tap"),
        (KTAP, "tap"),
        ("1..2\nok 1\n", "tap"),
        ("PASS: one\n", "kvm-unit-tests"),
        ("hello\nSUMMARY: 3 tests\n", "kvm-unit-tests"),
        ("SOTEST SUCCESS\n", "sotest"),
    ],
)
def test_recognise_finds_the_protocol_by_its_lines(console, name):
    assert recognise(console).protocol.name == name


@pytest.mark.parametrize("console", ["", "hello\n", "ok\n", "all tests passed: PASS: 3\n"])
def test_recognise_finds_nothing_where_there_is_nothing(console):
    said = recognise(console)
    assert (said.protocol, said.shortfall()) == (None, "checked nothing")


def test_recognise_reads_nothing_where_there_are_two():
    said = recognise(SOTEST + "FAIL: of another protocol\n")
    assert said.checks == ()
    assert said.shortfall() == "several protocols at once: kvm-unit-tests, sotest"


# --- the end


@pytest.mark.parametrize("line", ["SOTEST END", "SOTEST END now", "SOTEST PANIC", "Bail out! x"])
def test_end_pattern_matches_the_lines_that_end_results(line):
    pattern = protocols.end_pattern(protocol_files.shipped())
    assert protocols.re.search(pattern, f"before\n{line}\nafter\n").group() == f"{line}\n"


@pytest.mark.parametrize("text", ["SOTEST END", "x SOTEST END\n", "SOTEST ENDED\n"])
def test_end_pattern_waits_for_a_whole_line(text):
    assert protocols.re.search(protocols.end_pattern(protocol_files.shipped()), text) is None


def test_end_pattern_is_none_where_nothing_ends_results():
    from harness.model.protocol import LineKind, LinePattern, Protocol

    assert protocols.end_pattern([Protocol("x", (LinePattern(LineKind.PASS, "y"),))]) is None
