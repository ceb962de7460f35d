"""The probe guest as the harness sees it: its port, and the framing of what it says.

The probe (``images/probe``) writes to a debug console: a port that raises no interrupt.  See
``harness/scenario/log.py`` for the lines between the first and the last one.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from enum import IntEnum
from typing import Final

from harness.model.case import Backend
from harness.scenario.log import Log, LogEvent

CONSOLE_PORT: Final = 0x2100
"""QEMU's isa-debugcon, where there is no virtio-serial; not at its usual port 0xe9, which
pc-testdev takes as well."""
EXIT_PORT: Final = 0xF4
"""QEMU's isa-debug-exit."""
FIRST_LINE: Final = r"(?m)^probe \d+ [^\n]*\n"
SIGN_OF_LIFE: Final = r"(?m)^(?:\. [0-9a-f]+|done|! ([0-9a-f]+))\r?\n"
"""The end of a scenario, or of all; or with its number something that it wants done."""
DONE: Final = "done"
STALL_S: Final = 20.0
"""A scenario that says nothing for so long has lost what CPU 0 sleeps for, or the probe is dead."""
LIVE_STALL_S: Final = 300.0
"""The same on the live chips in a lab, where an exit takes Python under TCG a few milliseconds, and
a storm is ten thousand of them."""

ANSWER_PORT: Final = 0xE0
"""pc-testdev's, which keeps what was last written: where the probe looks for an answer."""


class ProbeAnswer(IntEnum):
    """What the probe asked for is done."""

    DONE = 1
    MOVED = 2
    """And it is in another QEMU."""

    @property
    def command_line(self) -> str:
        """The human monitor's, which gives the answer."""
        return f"o /w {ANSWER_PORT:#x} {self.value}"


_BEGUN: Final = re.compile(r"(?m)^= ([0-9a-f]{1,8})\r?$")


def stall_s(backend: Backend) -> float:
    """How long a scenario may say nothing there."""
    return LIVE_STALL_S if backend.is_live_in_lab else STALL_S


def reached(console: str, boots: int, first: int) -> int | None:
    """The index of the scenario that the last of ``boots`` had come to; None where it never spoke.

    ``first`` is the one that it began with.  A scenario's lines come when it ends, so that where
    one has ended and nothing follows, it is the next.
    """
    said = re.split(FIRST_LINE, console)[1:]
    if len(said) < boots:
        return None
    begun = _BEGUN.findall(said[-1])
    if not begun:
        return first
    return int(begun[-1], 16) + (re.search(rf"(?m)^\. {begun[-1]}\r?$", said[-1]) is not None)


def running(console: str) -> int:
    """The index of the scenario that is being executed, of a probe that has begun one."""
    return int(_BEGUN.findall(console)[-1], 16)


_EVENT: Final = re.compile(r"([0-9a-f]{1,4}) ([0-7]) ([a-z]+)((?: \S+)*)")


def parse_logs(console: str) -> Mapping[int, Log]:
    """The log of each scenario that began, by its index; what is no event is passed over.

    A log that was cut off is not ``complete``.  A scenario that was begun twice has its last log.
    """
    logs: dict[int, Log] = {}
    index: int | None = None
    events: list[LogEvent] = []
    for line in console.replace("\r", "").splitlines():
        if (begun := _BEGUN.fullmatch(line)) is not None:
            index, events = int(begun[1], 16), []
            logs[index] = Log((), complete=False)
        elif line[:2] == ". " and index is not None:
            logs[index], index = Log(tuple(events)), None
        elif index is not None and (match := _EVENT.fullmatch(line)) is not None:
            step, cpu, kind, args = match.groups()
            events.append(LogEvent(int(step, 16), int(cpu, 16), kind, tuple(args.split())))
            logs[index] = Log(tuple(events), complete=False)
    return logs


def was_not_run(console: str, index: int) -> bool:
    """Whether the reset before the scenario failed; the probe then ends instead of running it."""
    log = parse_logs(console).get(index)
    return log is not None and any(event.kind == "dirty" for event in log.events)


def is_done(console: str) -> bool:
    """Whether the probe has come to its end."""
    return re.search(r"(?m)^done\r?$", console) is not None
