import pytest

from harness.guests import flat
from harness.guests.flat import Result


def test_checks_every_kind_of_result_is_read():
    text = "".join(f"{result}: a {result.lower()}\n" for result in Result)
    assert [check.result for check in flat.checks(text)] == list(Result)


def test_checks_other_lines_are_passed_over():
    text = "enabling apic\nPASS: one\nSomething PASS: not this\nSUMMARY: 1 tests\n"
    assert [check.label for check in flat.checks(text)] == ["one"]


def test_checks_carriage_returns_do_not_reach_the_label():
    assert flat.checks("PASS: one\r\n")[0].label == "one"


def test_checks_same_label_twice_gets_ids_of_its_own():
    found = flat.checks("PASS: NMI\nFAIL: NMI\nPASS: NMI\n")
    assert [check.id for check in found] == ["NMI", "NMI~2", "NMI~3"]


def test_checks_varying_number_leaves_the_id_alone():
    first = flat.checks("PASS: TSC deadline fired after 1234 cycles (0x4d2)\n")
    second = flat.checks("PASS: TSC deadline fired after 99 cycles (0x63)\n")
    assert first[0].id == second[0].id
    assert first[0].label != second[0].label


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
    assert flat.normalised(label) == normal


def test_summary_unexpected_failures_are_read():
    assert flat.summary("SUMMARY: 19 tests, 3 unexpected failures\n") == flat.Summary(19, 3)


def test_summary_without_failures_has_none():
    assert flat.summary("SUMMARY: 19 tests\n") == flat.Summary(19, 0)


def test_summary_absent_is_none():
    assert flat.summary("PASS: one\n") is None


@pytest.mark.parametrize("result", [Result.FAIL, Result.XPASS])
def test_result_unexpected_is_a_failure(result):
    assert result.is_failure


@pytest.mark.parametrize("result", [Result.PASS, Result.SKIP, Result.XFAIL, Result.KFAIL])
def test_result_expected_is_no_failure(result):
    assert not result.is_failure
