"""The probe guest as the harness sees it: its port, and the framing of what it says.

The probe (``images/probe``) writes to a debug console: a port that raises no interrupt.  See
``harness/scenario/log.py`` for the lines between the first and the last one.
"""

from __future__ import annotations

from typing import Final

CONSOLE_PORT: Final = 0xE9
"""QEMU's isa-debugcon."""
EXIT_PORT: Final = 0xF4
"""QEMU's isa-debug-exit."""
END_OF_SCENARIO: Final = r"(?m)^(?:\. [0-9a-f]+|done)\r?\n"
"""What shows that the probe is alive: the end of a scenario, or of all."""
DONE: Final = "done"
STALL_S: Final = 10.0
"""A scenario that says nothing for so long has lost what CPU 0 sleeps for, or the probe is dead."""
