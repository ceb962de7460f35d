"""Keeps the PIT from taking a CPU all of its time.

A tick by way of the PIC costs its handler some five exits.  Where they take longer than the PIT's
period, the next tick is pending whenever a handler ends, and the CPU executes nothing else: Linux
boots that way until it has set up the IOAPIC.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

LEAST_INSIDE: Final = 4
"""A CPU is to spend one part in this many inside its guest."""
MOST_LOST: Final = 8
"""Of the ticks in a row; a guest that does nothing but exits is to have some, too."""


@dataclass
class Ticks:
    """What CPU 0 did since its last tick; times in ns."""

    handled: bool = False
    """Whether it has sent an EOI to the PIC."""
    _at_ns: int = 0
    _inside_ns: int = 0
    _lost: int = 0

    def is_too_soon(self, now_ns: int, inside_ns: int) -> bool:
        """Whether the tick that is due has to be lost.

        ``inside_ns`` is for how long CPU 0 has been inside its guest altogether.
        """
        since_ns, was_inside_ns = now_ns - self._at_ns, inside_ns - self._inside_ns
        if self.handled and self._lost < MOST_LOST and was_inside_ns * LEAST_INSIDE < since_ns:
            self._lost += 1
            return True
        self.handled, self._lost = False, 0
        self._at_ns, self._inside_ns = now_ns, inside_ns
        return False
