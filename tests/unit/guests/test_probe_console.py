"""What the probe says, read back."""

from __future__ import annotations

import asyncio
import socket

import pytest

from harness.guests.console import console
from harness.guests.probe import (
    FIRST_LINE,
    SIGN_OF_LIFE,
    is_done,
    parse_logs,
    reached,
    was_not_run,
)

BOOT = "probe 1 cpus=1 x2apic=0\n"
WHOLE = "= 0\n3 0 irq 51 51,40 51 - 5=c051\nff 0 count 51 7\n. 0\n"
CUT_OFF = "= 1\n0 1 nmi\n"
DIRTY = "= 1\nff 0 dirty lapic.base fee00900 fee00100\n"


def test_parse_logs_has_the_events_of_each_scenario():
    logs = parse_logs(BOOT + WHOLE + "= 1\n. 1\ndone\n")

    assert [str(event) for event in logs[0].events] == WHOLE.splitlines()[1:-1]
    assert logs[0].complete
    assert logs[1].events == ()


def test_parse_logs_of_a_text_cut_off_is_not_complete_but_keeps_what_was_said():
    log = parse_logs(BOOT + WHOLE + CUT_OFF)[1]

    assert not log.complete
    assert [str(event) for event in log.events] == ["0 1 nmi"]


def test_parse_logs_of_two_boots_has_the_later_log():
    log = parse_logs(BOOT + WHOLE + DIRTY + BOOT + "= 1\n0 0 read 1\n. 1\ndone\n")[1]

    assert [str(event) for event in log.events] == ["0 0 read 1"]


@pytest.mark.parametrize(
    ("console", "boots", "first", "index"),
    [
        ("", 1, 0, None),
        ("SeaBIOS\n", 1, 3, None),
        (BOOT, 1, 0, 0),
        (BOOT, 1, 3, 3),
        (BOOT, 2, 3, None),
        (BOOT + CUT_OFF, 1, 1, 1),
        (BOOT + WHOLE, 1, 0, 1),  # what it logs comes at its end
        (BOOT + WHOLE + CUT_OFF, 1, 0, 1),
        (BOOT + WHOLE + BOOT, 2, 2, 2),
        (BOOT + WHOLE + BOOT + "= a\n. a\n", 2, 2, 11),
    ],
)
def test_reached_is_the_scenario_that_the_last_boot_had_come_to(console, boots, first, index):
    assert reached(console, boots, first) == index


def test_was_not_run_is_said_of_a_scenario_after_a_failed_reset_alone():
    assert was_not_run(BOOT + WHOLE + DIRTY, 1)
    assert not was_not_run(BOOT + WHOLE + CUT_OFF, 1)


def test_is_done_needs_the_last_line():
    assert is_done(BOOT + WHOLE + "done\n")
    assert not is_done(BOOT + WHOLE)


@pytest.mark.parametrize("newline", ["\n", "\r\n"])
def test_first_line_ends_there_though_everything_comes_at_once(tmp_path, newline):
    async def heard() -> list[str]:
        ours, theirs = socket.socketpair()
        with theirs, console(ours, tmp_path / "console.log") as con:
            theirs.sendall((BOOT + WHOLE + "done\n").replace("\n", newline).encode())
            patterns = (FIRST_LINE, SIGN_OF_LIFE, SIGN_OF_LIFE)
            return [(await con.expect(pattern))[0].strip() for pattern in patterns]

    assert asyncio.run(asyncio.wait_for(heard(), 30)) == [BOOT.strip(), ". 0", "done"]


@pytest.mark.parametrize("line", ["= zz", "= ", "= -1", "= " + "f" * 5000, "= 0x1"])
def test_parse_logs_of_a_line_that_begins_no_scenario_is_passed_over(line):
    logs = parse_logs(f"{line}\n= 0\n. 0\n{line}\n")
    assert list(logs) == [0]
    assert reached(f"{line}\n", 1, 0) is None
