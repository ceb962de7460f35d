"""What a scenario has done to its machine from outside: commands of QEMU's monitor.

The probe says which request it has come to and waits for an answer
(:class:`harness.record.drivers.probe.ProbeDriver`); the Python chips do the same to themselves
(:meth:`harness.scenario.execution.Execution`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import TypeAlias


class Command(StrEnum):
    """One thing that is done, by its name in a scenario; QMP's where QMP has it."""

    STOP = "stop"
    CONT = "cont"
    INJECT_NMI = "inject-nmi"
    PAUSE = "pause_ms"
    """Nothing, for some milliseconds of the host's clock."""
    BEGIN_COUNT = "begin-count"
    """From here on events are counted as the scenario's, where the case is traced."""
    END_COUNT = "end-count"
    MOVE = "move"
    """Save the machine to a file, load it into another QEMU, and let it run there."""


@dataclass(frozen=True, slots=True)
class Act:
    """A command; ``ms`` is the length of a pause."""

    command: Command
    ms: int = 0


Request: TypeAlias = tuple[Act, ...]
"""What one step asks for, in order."""


def mistake(request: Sequence[Act]) -> str | None:
    """Why this cannot be asked for; None where it can."""
    stopped = False
    for place, act in enumerate(request):
        match act.command:
            case Command.STOP if stopped:
                return "it is stopped already"
            case Command.CONT if not stopped:
                return "nothing has stopped it: write stop before cont"
            case Command.PAUSE if not stopped:
                return "a pause is for a machine that is stopped; a guest waits with delay_us"
            case Command.MOVE if place != len(request) - 1:
                return "nothing can follow move, which ends with a machine that runs"
        stopped = (stopped or act.command is Command.STOP) and act.command is not Command.CONT
    if not request:
        return "nothing is asked for"
    if stopped and request[-1].command is not Command.MOVE:
        return "it stays stopped: end with cont or move"
    return None
