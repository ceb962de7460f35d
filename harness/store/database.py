"""The store's file: where it is, how it is opened, and what is wrong with one that cannot be."""

from __future__ import annotations

import contextlib
import fcntl
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import apsw

from harness.base.errors import StoreError
from harness.base.paths import expanded
from harness.store import migrations

VARIABLE: Final = "IRQMATRIX_STORE"
NONE: Final = "none"
"""In place of a path: no store."""
APPLICATION: Final = 0x4952514D
"""SQLite's ``application_id``: it tells the store from databases of other programs."""
BUSY_S: Final = 10.0
"""How long another process's transaction is waited for; a run's takes a fraction of a second."""


_OF_THE_FILE: Final = (
    apsw.BusyError,
    apsw.LockedError,
    apsw.CorruptError,
    apsw.NotADBError,
    apsw.CantOpenError,
    apsw.FullError,
    apsw.IOError,
    apsw.NoLFSError,
    apsw.PermissionsError,
    apsw.ProtocolError,
    apsw.ReadOnlyError,
)
"""What is wrong with the file or the machine; all else is a bug of irqmatrix."""


class StoreDamaged(StoreError):
    """A store that was truncated or overwritten."""


def default_path() -> Path:
    """``$XDG_DATA_HOME/irqmatrix/store.sqlite``, by default below ``~/.local/share``."""
    base = os.environ.get("XDG_DATA_HOME")
    root = Path(base) if base else expanded("~/.local/share")
    return root / "irqmatrix" / "store.sqlite"


def chosen_path(option: Path | None, configured: Path | None = None) -> Path | None:
    """The store's file: the option's, the environment's, the configuration's, or the default.

    None where the first of them that is there says ``none``.
    """
    named = option or (expanded(text) if (text := os.environ.get(VARIABLE)) else configured)
    if named is None:
        return default_path()
    return None if str(named) == NONE else named


@contextlib.contextmanager
def opened(path: Path, *, create: bool = False) -> Iterator[apsw.Connection]:
    """The store in ``path``, with the newest schema, as long as the block lasts.

    With ``create`` a missing one is made.  :class:`StoreDamaged`, or :class:`StoreError` for one
    that is missing, locked, of a newer schema, of another program, or cannot be read or written:
    whichever of it shows in the block, too.
    """
    try:
        connection = _connected(path, create=create)
        try:
            yield connection
        finally:
            connection.close()
    except _OF_THE_FILE as error:
        raise _explained(error, path) from None
    except OSError as error:
        raise StoreError(f"cannot use the store {path}", error.strerror, _ELSEWHERE) from None


@contextlib.contextmanager
def transaction(connection: apsw.Connection) -> Iterator[None]:
    """All of the block or nothing of it, and no other writer meanwhile."""
    connection.execute("BEGIN IMMEDIATE")
    try:
        yield
    except BaseException:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        raise
    connection.execute("COMMIT")


def set_aside(path: Path) -> Path:
    """Move a damaged store out of the way, with what belongs to it; where it is now.

    One that another process has set aside already, and begun anew, stays.
    :class:`StoreError` where it cannot be moved.
    """
    try:
        with path.with_name(path.name + ".lock").open("a") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            with contextlib.suppress(StoreDamaged), opened(path) as connection:
                if connection.pragma("quick_check(1)") == "ok":
                    return path
            number = 1
            while (kept := path.with_name(f"{path.name}.damaged-{number}")).exists():
                number += 1
            path.rename(kept)
            for suffix in ("-wal", "-shm"):
                with contextlib.suppress(FileNotFoundError):
                    beside = path.with_name(path.name + suffix)
                    beside.rename(kept.with_name(kept.name + suffix))
            return kept
    except OSError as error:
        raise StoreError(f"cannot move {path} aside", error.strerror, _ELSEWHERE) from None


_ELSEWHERE: Final = f"name another file: --store FILE, or {VARIABLE}"


def _connected(path: Path, *, create: bool) -> apsw.Connection:
    if create:
        path.parent.mkdir(parents=True, exist_ok=True)
    elif not path.exists():
        raise StoreError(
            f"no store in {path}", "no run has been entered there", "irqmatrix run makes one"
        )
    flags = apsw.SQLITE_OPEN_READWRITE | (apsw.SQLITE_OPEN_CREATE if create else 0)
    try:
        connection = apsw.Connection(str(path), flags=flags)
    except apsw.CantOpenError:
        if create:
            raise
        connection = apsw.Connection(str(path), flags=apsw.SQLITE_OPEN_READONLY)
    try:
        _prepare(connection, path)
    except BaseException:
        connection.close()
        raise
    return connection


def _prepare(connection: apsw.Connection, path: Path) -> None:
    connection.set_busy_timeout(int(BUSY_S * 1000))
    if _number(connection, "user_version") != migrations.SCHEMA:
        _migrate(connection, path)
    if _number(connection, "application_id") != APPLICATION:
        raise StoreError(
            f"{path} is no store of irqmatrix", "another program made the database", _ELSEWHERE
        )
    connection.execute("PRAGMA synchronous = NORMAL")  # safe with WAL when a process is killed
    connection.execute("PRAGMA foreign_keys = OFF")  # who deletes knows what belongs together


def _number(connection: apsw.Connection, pragma: str) -> int:
    found = connection.pragma(pragma)
    return found if isinstance(found, int) else 0


def _migrate(connection: apsw.Connection, path: Path) -> None:
    """Bring an older store, or an empty file, to the newest schema; a copy of the older is kept."""
    if connection.readonly("main"):
        raise StoreError(f"cannot upgrade the store {path}", "it can only be read", _ELSEWHERE)
    if not _number(connection, "user_version"):
        connection.execute("PRAGMA journal_mode = WAL")
    with transaction(connection):
        found = _number(connection, "user_version")  # another process may have done it
        if found > migrations.SCHEMA:
            raise StoreError(
                f"the store {path} has schema {found}",
                f"a newer irqmatrix made it; this one reads up to {migrations.SCHEMA}",
                f"update irqmatrix, or {_ELSEWHERE}",
            )
        if found == migrations.SCHEMA:
            return
        if not found and connection.execute("SELECT 1 FROM sqlite_schema").fetchone():
            return  # of another program
        if found:
            _copy(connection, path.with_name(f"{path.name}.schema-{found}"))
        for step in migrations.MIGRATIONS[found:]:
            connection.execute(step)
        connection.execute(f"PRAGMA user_version = {migrations.SCHEMA}")
        connection.execute(f"PRAGMA application_id = {APPLICATION}")


def _copy(connection: apsw.Connection, path: Path) -> None:
    """Copy the whole store to ``path``, also what is not in its main file yet."""
    path.unlink(missing_ok=True)
    reader = apsw.Connection(connection.filename, flags=apsw.SQLITE_OPEN_READONLY)
    target = apsw.Connection(str(path))
    try:
        with target.backup("main", reader, "main") as backup:
            while not backup.done:
                backup.step()
    finally:
        target.close()
        reader.close()


def _explained(error: apsw.Error, path: Path) -> StoreError:
    """What an error of SQLite means for the user."""
    if isinstance(error, apsw.CorruptError | apsw.NotADBError):
        return StoreDamaged(
            f"the store {path} is damaged",
            str(error),
            f"the next run keeps it as {path.name}.damaged-N and begins a new one; "
            "sqlite3 FILE .recover saves what can be read",
        )
    if isinstance(error, apsw.BusyError | apsw.LockedError):
        return StoreError(
            f"the store {path} is locked",
            f"another process has been writing to it for {BUSY_S:g} s",
            "wait until it has ended; irqmatrix history --add RUN enters a run later",
        )
    return StoreError(f"cannot use the store {path}", str(error), _ELSEWHERE)
