"""The library ``distributed``: where it is imported, how it is kept quiet, and what it connects."""

from __future__ import annotations

import contextlib
import logging
import re
import warnings
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Final

from harness.base.errors import CannotRun, ConfigError

CONNECT_S: Final = 5.0
"""For a scheduler to answer."""
_LOGGERS: Final = ("distributed", "tornado", "bokeh")
_ADDRESS: Final = re.compile(r"dask(?P<tls>\+tls)?://(?P<place>(\[[^]/]+\]|[^:/@]+):\d{1,5})")


def scheduler_address(text: str) -> str:
    """What ``distributed`` calls ``dask://HOST:PORT``, or with TLS ``dask+tls://HOST:PORT``."""
    found = _ADDRESS.fullmatch(text)
    if found is None:
        what = f"{text!r} is no executor"
        raise ConfigError(what, "expected dask://HOST:PORT or dask+tls://HOST:PORT")
    return f"{'tls' if found['tls'] else 'tcp'}://{found['place']}"


def distributed() -> ModuleType:
    """The library; :class:`CannotRun` where it is not installed."""
    try:
        import distributed as library
    except ImportError as error:
        fix = "pip install 'irqmatrix[cluster]'"
        raise CannotRun("there is no dask for --executor", str(error), fix) from None
    return library


@contextlib.contextmanager
def quiet(log: Path | None = None) -> Iterator[None]:
    """What the library logs and warns of goes to the file ``log``, or nowhere."""
    distributed()  # it sets its loggers up when it is imported
    handler: logging.Handler = logging.NullHandler()
    if log is not None:
        handler = logging.FileHandler(log, encoding="utf-8", delay=True)
        handler.setFormatter(logging.Formatter("%(asctime)s %(name)s %(levelname)s %(message)s"))
    loggers = [logging.getLogger(name) for name in _LOGGERS]
    before = [(logger.handlers[:], logger.propagate) for logger in loggers]
    for logger in loggers:
        logger.handlers, logger.propagate = [handler], False
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", module=r"distributed\b.*")
            yield
    finally:
        for logger, (handlers, propagate) in zip(loggers, before, strict=True):
            logger.handlers, logger.propagate = handlers, propagate
        handler.close()


def unreachable(text: str, error: BaseException) -> CannotRun:
    """Why no scheduler answers at the executor ``text``."""
    why = str(error).splitlines()[0] if str(error) else type(error).__name__
    fix = "start one with: dask scheduler (see docs/cluster.md)"
    return CannotRun(f"cannot reach the scheduler {text}", why, fix)
