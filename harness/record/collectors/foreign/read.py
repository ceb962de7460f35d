"""Files that a user sent: what each is, found by its content, and what it says.

Text is read as a stream; only kinds that are small by nature are taken whole, up to a limit.
"""

from __future__ import annotations

import contextlib
import gzip
import io
import itertools
import re
import shutil
import subprocess
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import IO, Final, cast

from harness.base import limits
from harness.base.errors import CollectError
from harness.model.case import Irqchip
from harness.record.collectors.foreign import (
    archive,
    host_texts,
    interrupts,
    kernel_log,
    lspci,
    machine,
    monitor_texts,
    tables,
    trace_text,
    versions,
)
from harness.record.collectors.foreign.model import Evidence, FileKind
from harness.record.collectors.foreign.trace_text import TraceReader

_HEAD_LINES: Final = 4000
_HEAD_CHARACTERS: Final = 400_000
_LINE_CHARACTERS: Final = 1 << 16
"""A line that is longer is read in pieces: nothing that is known has such lines."""
_TRACE_DAT: Final = b"\x17\x08\x44tracing"
_GZIP: Final = b"\x1f\x8b"
TRACE_CMD_S: Final = 600.0


class ReadingFacts:
    """What readers may use of other files: the irqchip mode and how many CPUs the VM has.

    ``seconds`` is how long a table was counted, where the user says so; ``most`` limits the events
    of a trace whose books are kept, ``lines`` how many lines of it are read.
    """

    def __init__(
        self,
        *,
        irqchip: Irqchip | None = None,
        smp: int = 1,
        seconds: float | None = None,
        most: int | None = None,
        lines: int | None = None,
    ) -> None:
        self.irqchip = irqchip
        self.smp = smp
        self.seconds = seconds
        self.most = most
        self.lines = lines


def read_file(
    path: Path, kind: FileKind | None = None, facts: ReadingFacts | None = None
) -> list[Evidence]:
    """The evidence in ``path``; what it is, is found out where ``kind`` is None.

    Raises :class:`CollectError` where it is nothing that is known, or not what ``kind`` says.
    """
    facts = facts or ReadingFacts()
    found = kind or kind_of_file(path)
    if found is FileKind.TRACE_DAT:
        return [_trace_dat(path, facts)]
    with opened(path) as stream:
        return read_lines(path.name, found, _lines(stream), facts)


def kind_of_file(path: Path) -> FileKind:
    """What ``path`` is, found out by its content; errors as :func:`read_file`."""
    if archive.is_archive(path):
        return FileKind.ARCHIVE
    with opened(path) as stream:
        head = "".join(_lines(stream, most=_HEAD_LINES))
    found = FileKind.TRACE_DAT if _is_trace_dat(path) else kind_of(head)
    if found is None:
        raise CollectError(
            f"{path.name}: not known what this is",
            f"it begins with {head[:60]!r}",
            f"say it with --as KIND:FILE; kinds are {', '.join(FileKind)}",
        )
    return found


def read_lines(
    name: str, kind: FileKind, lines: Iterable[str], facts: ReadingFacts
) -> list[Evidence]:
    """The evidence of ``kind`` in ``lines``; errors as :func:`read_file`."""
    if kind is FileKind.TRACE:
        reader = TraceReader(name, irqchip=facts.irqchip, smp=facts.smp, most=facts.most)
        return [reader.read(itertools.islice(lines, facts.lines))]
    if kind is FileKind.EXITS:
        return tables.read_exits(name, lines, facts.seconds)
    if kind is FileKind.MONITOR:
        return monitor_texts.read_session(name, _whole(name, lines))
    if kind in _LINE_READERS:
        return [_LINE_READERS[kind](name, lines)]
    if kind not in _TEXT_READERS:
        raise CollectError(f"{name}: {kind} cannot be read as text")
    return [_TEXT_READERS[kind](name, _whole(name, lines))]


def _host_interrupts(name: str, lines: Iterable[str]) -> Evidence:
    return interrupts.read(name, lines, FileKind.HOST_INTERRUPTS)


_LINE_READERS: Final[dict[FileKind, Callable[[str, Iterable[str]], Evidence]]] = {
    FileKind.INTERRUPTS: interrupts.read,
    FileKind.HOST_INTERRUPTS: _host_interrupts,
    FileKind.LOG: kernel_log.read,
    FileKind.COUNTS: tables.read_counts,
    FileKind.KVM_STAT: tables.read_kvm_stat,
    FileKind.LSPCI: lspci.read,
}
_TEXT_READERS: Final[dict[FileKind, Callable[[str, str], Evidence]]] = {
    FileKind.INFO_PIC: monitor_texts.read_pic,
    FileKind.INFO_LAPIC: monitor_texts.read_lapic,
    FileKind.INFO_IRQ: monitor_texts.read_irq,
    FileKind.STATISTICS: monitor_texts.read_statistics,
    FileKind.THREADS: host_texts.read_threads,
    FileKind.PARAMETERS: host_texts.read_parameters,
    FileKind.COMMAND_LINE: machine.read_command_line,
    FileKind.XML: machine.read_xml,
    FileKind.VERSIONS: versions.read,
}

# --- What it is -----------------------------------------------------------------------------------

_BY_TEXT: Final[tuple[tuple[FileKind, re.Pattern[str]], ...]] = (
    (FileKind.MONITOR, re.compile(r"^\(qemu\) ", re.MULTILINE)),
    (FileKind.XML, re.compile(r"<domain[\s>]")),
    (
        FileKind.STATISTICS,
        re.compile(r'\s*[\[{](?=[\s\S]{0,4000}"stats")(?=[\s\S]{0,4000}"provider")'),
    ),
    (FileKind.INFO_LAPIC, re.compile(r"dumping local APIC state for CPU")),
    (FileKind.INFO_PIC, re.compile(r"^(?:ioapic\d+: ver=|pic\d: irr=)", re.MULTILINE)),
    (FileKind.INFO_IRQ, re.compile(r"^IRQ statistics (?:for|not available)", re.MULTILINE)),
)
_BY_LINE: Final[tuple[tuple[FileKind, Callable[[str], object]], ...]] = (
    (FileKind.EXITS, tables.KVM_HEADING.fullmatch),
    (FileKind.EXITS, tables.BCC_HEADING.fullmatch),
    (FileKind.KVM_STAT, tables.CSV_HEADING.fullmatch),
    (FileKind.INTERRUPTS, interrupts.HEADING.fullmatch),
    (FileKind.TRACE, trace_text.is_trace_line),
    (FileKind.COUNTS, tables.STAT_ROW.fullmatch),
    (FileKind.LSPCI, lspci.SLOT.match),
    (FileKind.LOG, lambda line: kernel_log.is_log_line(line) or kernel_log.says_anything(line)),
)


def kind_of(head: str) -> FileKind | None:
    """What a text is that begins with ``head``; None where it is nothing that is known."""
    if "\0" in head:
        return FileKind.COMMAND_LINE if "qemu" in head[:400] else None
    for kind, pattern in _BY_TEXT:
        if pattern.search(head) is not None:
            return kind
    lines = [line for line in head.splitlines() if line.strip()]
    if lines and any(line.startswith("# tracer:") for line in lines[:5]):
        return FileKind.TRACE
    for kind, is_of in _BY_LINE:
        if any(is_of(line) for line in lines):
            return kind
    if versions.QEMU.search(head) is not None or (
        len(lines) < 5 and versions.UNAME.search(head) is not None
    ):
        return FileKind.VERSIONS
    if re.search(r"(?:^|[\s/'])(?:qemu-system-(?:x86_64|i386)|qemu-kvm|kvm)['\s]+[\\\s]*-", head):
        return FileKind.COMMAND_LINE
    return None


# --- Files ----------------------------------------------------------------------------------------


@contextlib.contextmanager
def opened(path: Path) -> Iterator[IO[str]]:
    """The text of a file, packed with gzip or not."""
    if not path.is_file():
        raise CollectError(f"{path}: no such file" if not path.exists() else f"{path}: not a file")
    with contextlib.ExitStack() as stack:
        raw: IO[bytes] = stack.enter_context(path.open("rb"))
        if raw.read(2) == _GZIP:
            raw = cast("IO[bytes]", stack.enter_context(gzip.open(path)))
        else:
            raw.seek(0)
        yield io.TextIOWrapper(raw, encoding="utf-8", errors="replace", newline="\n")


def _lines(stream: IO[str], *, most: int | None = None) -> Iterator[str]:
    """The lines of ``stream``, long ones in pieces; the first ``most`` of a bounded head."""
    count = size = 0
    try:
        while line := stream.readline(_LINE_CHARACTERS):
            count += 1
            size += len(line)
            yield line
            if most is not None and (count >= most or size > _HEAD_CHARACTERS):
                return
    except (EOFError, gzip.BadGzipFile, OSError) as error:
        raise CollectError("a packed file cannot be unpacked", str(error)) from None


def _whole(name: str, lines: Iterable[str]) -> str:
    most = limits.current().yaml_mib * limits.MIB
    parts: list[str] = []
    size = 0
    for line in lines:
        size += len(line)
        if size > most:
            raise CollectError(
                f"{name}: more than {most // limits.MIB} MiB", None, limits.hint("yaml_mib")
            )
        parts.append(line)
    return "".join(parts)


def _is_trace_dat(path: Path) -> bool:
    with path.open("rb") as file:
        return file.read(len(_TRACE_DAT)) == _TRACE_DAT


def _trace_dat(path: Path, facts: ReadingFacts) -> Evidence:
    """A trace.dat through ``trace-cmd report``, as it prints."""
    program = shutil.which("trace-cmd")
    if program is None:
        raise CollectError(
            f"{path.name}: a trace.dat needs trace-cmd",
            "it is not installed here",
            "install it, or send what `trace-cmd report` prints",
        )
    with subprocess.Popen(
        [program, "report", "-i", str(path)],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    ) as process:
        assert process.stdout is not None
        try:
            with io.TextIOWrapper(
                process.stdout, encoding="utf-8", errors="replace", newline="\n"
            ) as text:
                found = read_lines(path.name, FileKind.TRACE, _lines(text), facts)
        finally:
            process.kill()
    return found[0]
