"""How a lab ended: L0's status and stderr, L1's console, in a few words."""

import re

import pytest

from harness.backends.lab_end import LabEndKind, diagnose
from harness.model import lab_faults
from harness.model.lab_faults import LabFault

ASSERTION = (
    "ERROR:../../accel/tcg/tcg-accel-ops.c:81:tcg_handle_interrupt: assertion failed: "
    "(qemu_mutex_iothread_locked())"
)
ABORT = f"**\n{ASSERTION}\nBail out! {ASSERTION}\n"
PANIC = "[    1.0] Kernel panic - not syncing: Attempted to kill init! exitcode=0x00000100"
FAULT = LabFault(
    "a-fault", "it aborts", "there", "docs/x", "nothing", aborts=re.compile("assertion")
)


def test_lab_whose_qemu_aborts_ends_with_the_assertion_and_the_known_fault():
    end = diagnose(-6, ABORT, "", lab_faults.shipped())
    assert (end.kind, end.words) == (LabEndKind.L0_ABORTED, f"SIGABRT: {ASSERTION}")
    assert end.fault is not None
    assert end.fault.id == "svm-cr8-window"
    assert "svm-cr8-window" in str(end)


def test_lab_whose_qemu_fails_an_assertion_of_libc_ends_with_it():
    said = "qemu-system-x86_64: ../hw/x.c:1: f: Assertion `a == b' failed.\n"
    end = diagnose(-6, said, "", [FAULT])
    assert end.words == f"SIGABRT: {said.strip()}"
    assert end.fault is None


def test_lab_whose_qemu_runs_into_a_bad_address_ends_by_its_signal():
    end = diagnose(-11, "", "last line\n", [FAULT])
    assert (end.kind, end.words, end.fault) == (LabEndKind.L0_ABORTED, "SIGSEGV", None)


def test_lab_whose_qemu_is_killed_was_killed_from_outside():
    end = diagnose(-9, "", "")
    assert end.kind is LabEndKind.L0_KILLED
    assert end.words.startswith("SIGKILL")


@pytest.mark.parametrize(
    ("by", "words"),
    [(" from pid 4711 (kill)", "SIGTERM, by process 4711 (kill)"), ("", "SIGTERM")],
)
def test_lab_whose_qemu_is_asked_to_end_says_by_whom(by, words):
    end = diagnose(0, f"qemu-system-x86_64: terminating on signal 15{by}\n", "")
    assert (end.kind, end.words) == (LabEndKind.L0_KILLED, words)


def test_lab_whose_qemu_refuses_its_arguments_gave_up_with_its_words():
    end = diagnose(1, "qemu: -drive file=a: no such file\n", "")
    assert end.kind is LabEndKind.L0_ENDED
    assert end.words == "status 1: qemu: -drive file=a: no such file"


def test_lab_whose_kernel_panics_ends_with_the_panic():
    end = diagnose(0, "", f"booting\n{PANIC}\n---[ end Kernel panic - not syncing ]---\n")
    assert (end.kind, end.words) == (LabEndKind.L1_PANICKED, PANIC)


def test_lab_that_powers_off_left_by_itself():
    end = diagnose(0, "", "irqmatrix lab: no control port\n\n")
    assert str(end) == "the lab reset or powered off: irqmatrix lab: no control port"


def test_lab_that_runs_and_does_not_answer_stands_still():
    assert diagnose(None, "", "rcu: stall\n").kind is LabEndKind.L1_STILL


def test_lab_whose_qemu_was_stopped_is_no_lab_that_stands_still():
    assert diagnose(None, "", "", stopped=True).kind is LabEndKind.L0_STOPPED


def test_lab_end_quotes_no_more_than_a_line_of_it():
    assert len(diagnose(1, "x" * 100_000, "").words) < 400
