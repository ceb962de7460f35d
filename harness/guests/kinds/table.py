"""The kinds of guests, by the word that a configuration calls them (``kind:``)."""

from __future__ import annotations

from typing import Any, Final

from harness.base.errors import StoreError
from harness.guests.kinds.base import GuestKind
from harness.guests.kinds.flat import FlatKind
from harness.guests.kinds.linux import LinuxKind
from harness.guests.kinds.probe import ProbeKind
from harness.model.case import Guest

KINDS: Final[dict[str, type[GuestKind[Any]]]] = {
    "linux": LinuxKind,
    "flat": FlatKind,
    "probe": ProbeKind,
}


def kind_of(guest: Guest) -> GuestKind[Any]:
    """The kind of ``guest``, to be asked about it."""
    return KINDS[guest.kind](guest)


def kind_named(word: str) -> type[GuestKind[Any]]:
    """The kind that is called so; :class:`StoreError` for a word that stands for none."""
    if word not in KINDS:
        raise StoreError(
            f"there is no kind of guest {word!r}",
            "another version of irqmatrix wrote it",
            f"there are: {', '.join(KINDS)}",
        )
    return KINDS[word]
