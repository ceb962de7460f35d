"""A stream of events with a view of what is before and after the current one."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from itertools import islice
from typing import Final, NamedTuple

from userspace_chip.events import Event

CONTEXT: Final = 20
"""Number of events shown on either side of a divergence."""
NEAR: Final = 300
"""Number of events on either side in which a thread that was stopped goes on."""
LOOKAHEAD: Final = 1000
"""A thread's next event is looked for so far; what stays away longer does not come."""


class NumberedEvent(NamedTuple):
    """An event and its line in the log, from 1."""

    number: int
    event: Event


class Lookahead:
    """Iterates over lines; its memory is that of :data:`LOOKAHEAD` of them."""

    def __init__(self, lines: Iterator[NumberedEvent]) -> None:
        self._lines = lines
        self._ahead: deque[NumberedEvent] = deque()
        self._behind: deque[NumberedEvent] = deque(maxlen=LOOKAHEAD)

    def __iter__(self) -> Iterator[NumberedEvent]:
        ahead, behind = self._ahead, self._behind
        while True:
            line = ahead.popleft() if ahead else next(self._lines, None)
            if line is None:
                return
            behind.append(line)
            yield line

    def all(self) -> Iterator[Event]:
        """The next events, within :data:`LOOKAHEAD`."""
        return (line.event for line in self._next(LOOKAHEAD))

    def of_vcpu(self, vcpu: int) -> Iterator[Event]:
        """The next events of KVM's in the thread of ``vcpu``, within :data:`LOOKAHEAD`."""
        for event in self.all():
            if event.vcpu == vcpu and event.source == "kvm":
                yield event

    def _next(self, count: int) -> Iterator[NumberedEvent]:
        for index in range(count):
            if index == len(self._ahead):
                line = next(self._lines, None)
                if line is None:
                    return
                self._ahead.append(line)
            yield self._ahead[index]

    def before(self) -> tuple[NumberedEvent, ...]:
        """What came before the current line."""
        return tuple(self._behind)[-CONTEXT - 1 : -1]

    def around(self) -> tuple[NumberedEvent, ...]:
        """The current line and :data:`NEAR` on either side."""
        return (*tuple(self._behind)[-NEAR - 1 :], *self._next(NEAR))

    def behind(self) -> tuple[NumberedEvent, ...]:
        """Up to the current line, as far back as anyone remembers."""
        return tuple(self._behind)

    def last(self) -> tuple[NumberedEvent, ...]:
        """The last lines, the current one among them."""
        return tuple(self._behind)[-CONTEXT:]

    def after(self) -> tuple[NumberedEvent, ...]:
        """What comes after the current line."""
        return tuple(islice(self._next(CONTEXT), CONTEXT))
