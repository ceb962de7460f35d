"""One of this machine's CPUs for a program that has to stay on one, and another one for the next.

Who has which is known to all processes of this machine, whoever's they are: a CPU that is taken is
an abstract UNIX socket (unix(7)) that is bound, which ends with the process that bound it.
"""

from __future__ import annotations

import errno
import itertools
import os
import random
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

_NAME: Final = "\0irqmatrix-{group}-{cpu}-{place}"


@contextmanager
def least_taken_cpu(group: str) -> Iterator[int]:
    """A CPU that we may use and that the fewest blocks of ``group`` have, for this block."""
    allowed = sorted(os.sched_getaffinity(0))
    random.shuffle(allowed)
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as taken:
        for place in itertools.count():
            for cpu in allowed:
                try:
                    taken.bind(_NAME.format(group=group, cpu=cpu, place=place))
                except OSError as error:
                    if error.errno != errno.EADDRINUSE:
                        raise
                else:
                    yield cpu
                    return
