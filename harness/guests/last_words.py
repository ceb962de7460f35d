"""Why a guest stopped, in its own words: the lines of a console that say so.  Pure.

A console's last lines are rarely the ones that matter: a Linux oops is followed by a screenful of
registers.  :data:`PHRASES` are the lines that say what happened, of Linux (6.1 to 7.x), of
kvm-unit-tests (``lib/x86/desc.c``), and of SeaBIOS (``src/boot.c``).
"""

from __future__ import annotations

import re
from typing import Final

MAX_PHRASES: Final = 3
MAX_CHARACTERS: Final = 160
"""Of each phrase."""

_REST: Final = rf"[^\n]{{0,{MAX_CHARACTERS}}}"
PHRASES: Final[tuple[tuple[str, str], ...]] = (
    ("panic", rf"Kernel panic - not syncing: {_REST}"),
    ("oops", rf"(?:BUG: unable to handle|BUG: kernel NULL pointer|Unable to handle kernel){_REST}"),
    ("kernel BUG", r"kernel BUG at [^\s!]+"),
    ("exception", r"(?:general protection fault|invalid opcode|divide error|stack segment|"
     rf"double fault|int3|page fault)[^\n]{{0,60}}: [0-9a-f]{{4}} \[#\d+\]{_REST}"),
    ("soft lockup", r"BUG: soft lockup - CPU#\d+ stuck for \d+s![^\n]{0,60}"),
    ("hard lockup", r"Watchdog detected hard LOCKUP on cpu \d+"),
    ("RCU stall", r"rcu_\w+ (?:self-)?detected (?:expedited )?stalls?[^\n]{0,60}"),
    ("hung task", r"INFO: task [^\n]{1,60} blocked for more than \d+ seconds"),
    ("nobody cared", r"irq \d+: nobody cared[^\n]{0,60}"),
    ("line disabled", r"Disabling IRQ #\d+"),
    ("timer", r"MP-BIOS bug: 8254 timer not connected to IO-APIC|IO-APIC \+ timer doesn't work!?"),
    ("NMI", r"Uhhuh\. NMI received for unknown reason \w+ on CPU \d+"),
    ("out of memory", r"Out of memory: Killed process[^\n]{0,60}"),
    ("scheduling", r"BUG: scheduling while atomic[^\n]{0,60}"),
    ("init", r"Failed to execute /init[^\n]{0,60}|Attempted to kill init![^\n]{0,60}"),
    ("exception", rf"Unhandled (?:cpu )?exception \d+{_REST}"),
    ("assertion", rf"[^\n]{{0,80}}: assert failed: {_REST}"),
    ("boot", r"No bootable device|Boot failed: [^\n]{1,60}|FATAL: Could not read[^\n]{0,60}"),
)  # fmt: skip
"""What it is, and the pattern of its phrase; the kind only says which of them are alike."""
_ANY: Final = re.compile("|".join(f"(?P<p{n}>{text})" for n, (_, text) in enumerate(PHRASES)))


def phrases(console: str) -> tuple[str, ...]:
    """What ``console`` says of its end: the first phrase of each kind, in their order.

    At most :data:`MAX_PHRASES`; none where nothing of the kind was said.
    """
    found: dict[str, str] = {}
    for match in _ANY.finditer(console):
        kind, _ = PHRASES[int((match.lastgroup or "p0")[1:])]
        if len(found) == MAX_PHRASES:
            break
        found.setdefault(kind, " ".join(match[0].split()))
    return tuple(found.values())
