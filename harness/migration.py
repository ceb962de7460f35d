"""A guest that moves to another QEMU: what happened to it, and what to that QEMU meanwhile."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Final

from userspace_chip.events import Event

SAVED: Final = "saved"
"""The mark at which the guest's history stops."""
LOADED: Final = "loaded"
"""The mark at which it goes on."""


def history(events: Iterable[Event], aside: list[Event]) -> Iterator[Event]:
    """The events that happened to the guest; those between the two marks go ``aside``.

    They are of a machine at power-on, whose chips' states are then replaced by the guest's.
    """
    is_moving = False
    for event in events:
        if event.name == "mark":
            is_moving = event.args[0] == SAVED or (is_moving and event.args[0] != LOADED)
        elif is_moving:
            aside.append(event)
            continue
        yield event


def is_load(event: Event) -> bool:
    """Whether the guest goes on here, in another QEMU."""
    return event.name == "mark" and event.args[0] == LOADED
