"""The command ``collect`` after option parsing: a running VM -> an archive."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from harness.backends.local import LocalFiles, tracefs_here
from harness.base.errors import ConfigError
from harness.collect.collect import SCRIPT, UNREDACTED, Collected, collect, redacted_copy
from harness.collect.sources import MOST_GUEST_FILES, Asked
from harness.collect.target import target_of

DEFAULT_OUT: Final = Path("irqmatrix-collect.tar.gz")


@dataclass(frozen=True)
class CollectOptions:
    """The options: which VM, for how long, with which files of the user, and where to."""

    pid: int | None
    qmp: Path | None
    domain: str | None
    seconds: float
    guest_interrupts: tuple[Path, ...]
    out: Path | None
    redact: bool


async def run(asked: CollectOptions) -> Iterator[str]:
    """Collect and write the archive; gives the lines to print."""
    target = target_of(asked.pid, asked.qmp, asked.domain)
    if len(asked.guest_interrupts) > MOST_GUEST_FILES:
        raise ConfigError(f"more than {MOST_GUEST_FILES} files of --guest-interrupts")
    for path in asked.guest_interrupts:
        if not path.is_file():
            raise ConfigError(f"--guest-interrupts {path}: no such file")
    wanted = Asked(target, asked.seconds, asked.guest_interrupts, LocalFiles(), tracefs_here())
    out = asked.out or DEFAULT_OUT
    found = await collect(wanted, redact=asked.redact)
    return summary(found, out, found.write(out))


def script() -> str:
    """The same for a machine where only a POSIX shell is: what it collects is not redacted."""
    return SCRIPT.read_text(encoding="utf-8")


def run_redact(path: Path, out: Path | None) -> Iterator[str]:
    """A redacted copy beside an archive, or at ``out``; gives the lines to print."""
    found = redacted_copy(path)
    stem = path.name.removesuffix(".gz").removesuffix(".tar").removesuffix(".tgz")
    where = out or path.with_name(f"{stem}-redacted.tar.gz")
    return summary(found, where, found.write(where))


def summary(found: Collected, path: Path, size_bytes: int) -> Iterator[str]:
    """What is in an archive, what is not, and what to do with it."""
    yield f"{path}: {len(found.texts)} files, {size_bytes / 1024:.0f} KiB"
    for name in found.texts:
        yield f"  {name}"
    if found.missing:
        yield "not collected"
    for what, why in found.missing.items():
        yield f"  {what}: {why}"
    if found.replaced is None:
        yield f"{UNREDACTED}: irqmatrix collect --redact {path} makes a copy to send"
    else:
        yield f"{found.replaced} names, addresses and paths were replaced"
