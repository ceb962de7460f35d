"""The harness's marks in a trace: moments that it gives a name to, and what lies between them.

A mark's text is ``KIND`` or ``KIND SUBJECT``.  A guest's history stops at :data:`SAVED` and goes on
at :data:`LOADED`, in another QEMU.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from userspace_chip.events import Event


class MarkKind(StrEnum):
    """What a mark says."""

    READY = "ready"
    """The guest is up."""
    BEGIN = "begin"
    """A workload begins."""
    END = "end"
    """Its work is done; the monitor is asked next."""
    SEEN = "seen"
    """The monitor's answers are complete."""
    SAVED = "saved"
    LOADED = "loaded"


@dataclass(frozen=True)
class Mark:
    """One mark: its kind, and the workload it is about where it is about one."""

    kind: MarkKind
    subject: str = ""

    def __str__(self) -> str:
        return f"{self.kind} {self.subject}".rstrip()

    @classmethod
    def parse(cls, text: str) -> Mark | None:
        """The mark of this text; None where it is another program's."""
        kind, _, subject = text.partition(" ")
        try:
            return cls(MarkKind(kind), subject)
        except ValueError:
            return None


READY: Final = Mark(MarkKind.READY)
SAVED: Final = Mark(MarkKind.SAVED)
LOADED: Final = Mark(MarkKind.LOADED)


def mark_of(event: Event) -> Mark | None:
    """The mark that ``event`` is; None for any other event."""
    return Mark.parse(str(event.args[0])) if event.name == "mark" else None


def is_load(event: Event) -> bool:
    """Whether the guest goes on here, in another QEMU."""
    return mark_of(event) == LOADED


def history(events: Iterable[Event], aside: list[Event]) -> Iterator[Event]:
    """The events that happened to the guest; those between the two marks go ``aside``.

    They are of a machine at power-on, whose chips' states are then replaced by the guest's.
    """
    is_moving = False
    for event in events:
        if event.name == "mark":
            mark = mark_of(event)
            is_moving = mark == SAVED or (is_moving and mark != LOADED)
        elif is_moving:
            aside.append(event)
            continue
        yield event
