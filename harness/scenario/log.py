"""What a scenario logs: events in the order of each CPU, and their text form.

The probe writes one line an event, numbers in hexadecimal::

    = 1f                            scenario number 0x1f begins
    3 0 irq 51 51,40 51 51 5=c051   step 3, CPU 0: vector, IRR, ISR, TMR (``-``: none, ``?``: the
                                    local APIC is off), redirection entries that were asked for
    . 1f                            it has ended

=========  =============================  ======================================================
kind       arguments                      meaning
=========  =============================  ======================================================
read       value                          what a read gave
gp                                        an MSR access faulted (#GP)
irq        vector [irr isr tmr] [pin=e]   a handler was entered
cut        vector entries                 a handler's limit was passed: a storm
count      vector entries                 at the end, for handlers that only count
nmi                                       an NMI was taken
fault      vector error eip cs eflags cr2 an exception; the CPU takes no further part
timeout    entries                        a WAIT's time passed, with what it had counted
woke                                      a HLT ended
asleep                                    an AWAIT's time passed
up         page                           the CPU came up after a SIPI to this page
dirty      what expected found            the reset before the scenario did not do what it should
skip       feature                        the backend lacks what the scenario needs
unsettled                                 a step that brings something new again and again
full                                      there was no room for more events
=========  =============================  ======================================================

Vectors of a map stand with the highest first; a redirection entry has all its 64 bits.  ``cut`` is
logged by the entry that passes the limit, with its number.  ``count`` comes last, by vector, with
the last step; ``dirty`` has step ff.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class LogEvent:
    """One event; ``args`` as they stand in the text, lower-case hexadecimal, without ``0x``."""

    step: int
    cpu: int
    kind: str
    args: tuple[str, ...] = ()

    def __str__(self) -> str:
        return " ".join((f"{self.step:x}", f"{self.cpu:x}", self.kind, *self.args))


@dataclass(frozen=True, slots=True)
class Log:
    """A scenario's events, in order for each CPU; the order between CPUs is not part of it.

    ``complete``: whether the end was seen.
    """

    events: tuple[LogEvent, ...]
    complete: bool = True
