"""Imported by the fork server alone (:mod:`harness.base.child`): it has nothing to say.

Where a process cannot be started, for lack of descriptors, say, the caller raises, and reports it.
"""

import sys
from types import TracebackType


def _quiet(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    if not issubclass(kind, EOFError | OSError):
        sys.__excepthook__(kind, error, trace)


sys.excepthook = _quiet
