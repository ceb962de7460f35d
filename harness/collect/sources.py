"""What is read of a VM and its host, each on its own: one that fails stops no other.

A source reads, waits for the end of the interval where it has to, and reads again.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import platform
import shlex
import tempfile
import time
from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from harness.backends.base import HostFiles
from harness.base import limits, sockets
from harness.base.errors import CollectError, MonitorError
from harness.base.procstat import read_stat
from harness.collect.redaction import version_text
from harness.collect.target import PROC, VmTarget
from harness.record.collectors.foreign import archive, trace_text
from harness.record.collectors.foreign.model import NamedVersions
from harness.record.collectors.foreign.versions import dotted
from harness.record.collectors.qmp import Monitor, MonitorSnapshot, monitor
from harness.record.collectors.tracefs import Trace, tracing
from userspace_chip.events import KVM_EVENTS

GREETING_S: Final = 2.0
"""QEMU serves one client of a monitor at a time; where another has it, no greeting comes."""
VIRSH_S: Final = 10.0
BUFFER_KIB: Final = 32 * 1024
"""Of a trace, of all CPUs together; as text it is several times as large."""
EVENTS: Final = ("kvm_exit", *KVM_EVENTS)
"""What is traced: of an exit its reason, and what interrupts need."""
EVENTS_PER_S: Final = 20_000
"""Of the interval.  A trace with that many is ended before it: an event costs up to a microsecond
of the guest's time, and so all of them 2 percent."""
_LOOK_S: Final = 0.1
"""Between two looks at how many events there are."""
_LEAST_BUFFER_KIB: Final = 256
_MOST_BYTES: Final = archive.MEMBER_MIB * limits.MIB // 2
_GUEST_BYTES: Final = 8 * limits.MIB
"""Of each file of the user."""
MOST_GUEST_FILES: Final = 10
_MODULES: Final = ("kvm", "kvm_intel", "kvm_amd")


@dataclass(frozen=True)
class Found:
    """Texts by the member that they become, and what of the source is missing, and why."""

    texts: Mapping[str, str]
    missing: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Asked:
    """What is collected: of which VM, for how long, and the user's own files."""

    target: VmTarget
    seconds: float
    guest_interrupts: tuple[Path, ...]
    host: HostFiles
    tracefs: str | None
    """Where tracefs is; None where it is not mounted, or not writable."""

    def of_process(self, name: str) -> Path:
        """A file of QEMU's process; :class:`CollectError` where that is not known."""
        if self.target.pid is None:
            raise CollectError("QEMU's process is not known")
        return PROC / str(self.target.pid) / name


Gather = Callable[[Asked, Callable[[], Awaitable[None]]], Awaitable[Found]]
"""From what is asked, and what waits for the end of the interval."""


@dataclass(frozen=True)
class CollectSource:
    """A source: its name, what it reads, and how."""

    name: str
    reads: str
    gather: Gather


def _text(path: Path, most: int = _MOST_BYTES) -> str:
    try:
        with path.open("rb") as file:
            data = file.read(most + 1)
    except OSError as error:
        raise CollectError(f"cannot read {path}", error.strerror) from None
    return cut(data.decode("utf-8", "replace"), most)


def cut(text: str, most: int = _MOST_BYTES) -> str:
    """``text``, up to what a member may have, and to the end of a line."""
    return text if len(text) <= most else text[: text.rfind("\n", 0, most) + 1]


async def _command_line(asked: Asked, _: Callable[[], Awaitable[None]]) -> Found:
    words = _text(asked.of_process("cmdline")).rstrip("\0").split("\0")
    if words == [""]:
        raise CollectError("the process has no command line", "it is just starting or ending")
    return Found({"cmdline.txt": shlex.join(words) + "\n"})


async def _xml(asked: Asked, _: Callable[[], Awaitable[None]]) -> Found:
    if asked.target.domain is None:
        raise CollectError("no --domain was given")
    try:
        process = await asyncio.create_subprocess_exec(
            *("virsh", "--readonly", "dumpxml", "--domain", asked.target.domain),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
    except OSError as error:
        raise CollectError("virsh cannot be started", error.strerror) from None
    try:
        async with asyncio.timeout(VIRSH_S):
            out, said = await process.communicate()
    except TimeoutError:
        raise CollectError(f"virsh said nothing for {VIRSH_S:g} s") from None
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    if process.returncode:
        raise CollectError("virsh failed", said.decode("utf-8", "replace").strip()[:200])
    return Found({"libvirt.xml": out.decode("utf-8", "replace")})


async def _host_interrupts(asked: Asked, interval: Callable[[], Awaitable[None]]) -> Found:
    before = _stamped(_text(PROC / "interrupts"))
    await interval()
    return Found({"host-interrupts.txt": before + _stamped(_text(PROC / "interrupts"))})


def _stamped(text: str) -> str:
    return f"{time.time():.6f}\n{text}"


async def _guest_interrupts(asked: Asked, _: Callable[[], Awaitable[None]]) -> Found:
    if not asked.guest_interrupts:
        raise CollectError("no --guest-interrupts was given: only the guest can read them")
    texts = {}
    missing = {}
    for number, path in enumerate(asked.guest_interrupts, 1):
        name = archive.guest_interrupts(number)
        texts[name] = _text(path, _GUEST_BYTES)
        if path.stat().st_size > _GUEST_BYTES:
            missing[f"the end of {name}"] = f"more than {_GUEST_BYTES // limits.MIB} MiB"
    return Found(texts, missing)


async def _parameters(asked: Asked, _: Callable[[], Awaitable[None]]) -> Found:
    lines = []
    for module in _MODULES:
        for path in sorted(Path("/sys/module", module, "parameters").glob("*")):
            with contextlib.suppress(CollectError):
                lines.append(f"{module}.{path.name}={_text(path).strip()}\n")
    if not lines:
        raise CollectError("KVM is not loaded: /sys/module/kvm has no parameters")
    return Found({"module-parameters.txt": "".join(lines)})


# --- Threads --------------------------------------------------------------------------------------


async def _threads(asked: Asked, interval: Callable[[], Awaitable[None]]) -> Found:
    folder = asked.of_process("task")
    before, since = thread_ticks(folder), time.monotonic()
    if not before:
        raise CollectError(f"cannot read {folder}", "the process has ended, or is another user's")
    await interval()
    elapsed_s = time.monotonic() - since
    lines = ["percent of a CPU: user  system  thread\n"]
    for thread, (name, user, system) in sorted(thread_ticks(folder).items()):
        _, user_before, system_before = before.get(thread, (name, 0, 0))
        percent = 100 / os.sysconf("SC_CLK_TCK") / max(elapsed_s, 1e-3)
        spent = (user - user_before) * percent, (system - system_before) * percent
        lines.append(f"{spent[0]:22.1f} {spent[1]:7.1f}  {name}\n")
    return Found({"threads.txt": "".join(lines)})


def thread_ticks(folder: Path) -> dict[int, tuple[str, int, int]]:
    """Of each thread below ``/proc/PID/task``: its name, and clock ticks as user and system."""
    found = {}
    for path in folder.glob("[0-9]*"):
        if (stat := read_stat(path)) is not None:
            found[int(path.name)] = stat.name, stat.user_ticks, stat.system_ticks
    return found


# --- QEMU's monitor -------------------------------------------------------------------------------


async def _monitor(asked: Asked, interval: Callable[[], Awaitable[None]]) -> Found:
    if asked.target.qmp is None:
        raise CollectError("no QMP socket is known: --qmp SOCKET names one")
    with contextlib.ExitStack() as stack:
        scratch = stack.enter_context(tempfile.TemporaryDirectory(prefix="irqmatrix-"))
        try:
            connection = sockets.connect(asked.target.qmp)
        except OSError as error:
            raise CollectError("QMP cannot be reached", error.strerror or str(error)) from None
        stack.callback(connection.close)
        async with contextlib.AsyncExitStack() as opened:
            log = Path(scratch) / "session.jsonl"
            mon = await opened.enter_async_context(_greeted(connection, log))
            before = await _look(mon)
            await interval()
            smp = len(await mon.vcpu_threads())
            after_s, found = time.time(), await mon.snapshot(smp)
            return _said(await mon.execute("query-version"), before, after_s, found)


@contextlib.asynccontextmanager
async def _greeted(connection: Any, log: Path) -> Any:
    try:
        async with monitor(connection, log, greeting_s=GREETING_S) as mon:
            yield mon
    except MonitorError as error:
        why = (
            "another client may hold it, as libvirt does"
            if "never answered" in error.what
            else None
        )
        raise CollectError(str(error), why) from None


async def _look(mon: Monitor) -> dict[str, str]:
    """What counts, at the beginning: the texts by their members, as far as this QEMU has them."""
    found = {}
    if "x-query-irq" in mon.commands:
        text = str((await mon.execute("x-query-irq"))["human-readable-text"])
        found["info-irq-before.txt"] = f"{time.time():.6f}\n{text}"
    if "query-stats" in mon.commands:
        before_s, stats = time.time(), await mon.execute("query-stats", {"target": "vcpu"})
        if stats:
            found["query-stats-before.json"] = _answer(stats, before_s)
    return found


def _answer(stats: Any, time_s: float) -> str:
    """An answer of QMP, with the time in the form of its events."""
    whole = int(time_s)
    stamp = {"seconds": whole, "microseconds": int((time_s - whole) * 1e6)}
    return json.dumps({"return": stats, "timestamp": stamp}) + "\n"


def _said(version: Any, before: dict[str, str], after_s: float, found: MonitorSnapshot) -> Found:
    numbers = version["qemu"]
    qemu = int(numbers["major"]), int(numbers["minor"]), int(numbers["micro"])
    texts = {
        "versions.txt": version_text(NamedVersions(qemu=qemu)),
        **before,
        "info-irq.txt": f"{after_s:.6f}\n{found.irq_text}" if found.irq_text else None,
        "info-pic.txt": found.controllers_text,
        "info-lapic.txt": "\n".join(found.lapic_texts),
        "query-stats.json": _answer(found.stats, after_s) if found.stats else None,
    }
    return Found({name: text for name, text in texts.items() if text}, found.missing)


async def _kernel(asked: Asked, _: Callable[[], Awaitable[None]]) -> Found:
    release = platform.release()
    named = NamedVersions(linux=dotted(release), linux_text=release)
    return Found({"versions.txt": version_text(named)})


# --- Trace ----------------------------------------------------------------------------------------


async def _trace(asked: Asked, interval: Callable[[], Awaitable[None]]) -> Found:
    if asked.tracefs is None:
        raise CollectError("tracefs is not mounted, or needs root")
    threads = sorted(thread_ticks(asked.of_process("task")))
    buffer_kib = max(BUFFER_KIB // (os.cpu_count() or 1), _LEAST_BUFFER_KIB)
    with tempfile.TemporaryDirectory(prefix="irqmatrix-") as scratch:
        file = Path(scratch) / "trace"
        async with tracing(
            asked.host, asked.tracefs, only_followed=True, buffer_kib=buffer_kib, events=EVENTS
        ) as trace:
            await trace.follow(threads)
            missing = await until_enough(trace, asked.seconds, interval)
            await trace.stop()
            await trace.save(file)
            traced = f"{trace_text.EVENTS} {' '.join(trace.events)}\n"
        text = traced + _text(file)
        if file.stat().st_size > _MOST_BYTES:
            missing["the end of the trace"] = f"more than {_MOST_BYTES // limits.MIB} MiB"
        return Found({"trace.txt": text}, missing)


async def until_enough(
    trace: Trace, seconds: float, interval: Callable[[], Awaitable[None]]
) -> dict[str, str]:
    """Wait for the end of the interval, or of what a trace may have; what of it is missing."""
    begun = time.monotonic()
    ending = asyncio.ensure_future(interval())
    cpus = range(os.cpu_count() or 1)
    try:
        while True:
            await asyncio.wait({ending}, timeout=_LOOK_S)
            fill = [await trace.fill(cpu) for cpu in cpus]
            entries = sum(each.entries for each in fill)
            if not ending.done() and (
                entries > EVENTS_PER_S * seconds or any(each.lost for each in fill)
            ):
                after_s = time.monotonic() - begun
                why = f"ended after {after_s:.1f} s with {entries} events, to cost the VM little"
                return {"the rest of the interval": why}
            if ending.done():
                return {}
    finally:
        ending.cancel()


SOURCES: Final[tuple[CollectSource, ...]] = (
    CollectSource("command line", "/proc/PID/cmdline", _command_line),
    CollectSource("libvirt's XML", "virsh dumpxml", _xml),
    CollectSource("host kernel", "its release", _kernel),
    CollectSource("module parameters", "/sys/module/kvm*/parameters", _parameters),
    CollectSource("host interrupts", "/proc/interrupts, before and after", _host_interrupts),
    CollectSource("guest interrupts", "files of the user", _guest_interrupts),
    CollectSource("monitor", "QMP: its version, info irq, pic, lapic, and query-stats", _monitor),
    CollectSource("threads", "/proc/PID/task/*/stat, before and after", _threads),
    CollectSource("trace", "tracepoints kvm:* of QEMU's threads", _trace),
)
"""In the order of an archive's list."""


async def gathered(
    asked: Asked, sources: Iterable[CollectSource] = SOURCES
) -> list[tuple[CollectSource, Found]]:
    """What each source found; what it did not, it says in ``missing``.

    They begin one after another, so that none waits too long for an answer while another works;
    the interval begins once all have.
    """
    loop = asyncio.get_running_loop()
    end_s: asyncio.Future[float] = loop.create_future()

    async def one(source: CollectSource, begun: asyncio.Event) -> Found:
        async def interval() -> None:
            begun.set()
            await asyncio.sleep(max(await asyncio.shield(end_s) - loop.time(), 0))

        try:
            return await source.gather(asked, interval)
        except CollectError as error:
            return Found({}, {source.name: str(error)})
        finally:
            begun.set()

    wanted = list(sources)
    async with asyncio.TaskGroup() as group:
        tasks = []
        for source in wanted:
            begun = asyncio.Event()
            tasks.append(group.create_task(one(source, begun)))
            await begun.wait()
        end_s.set_result(loop.time() + asked.seconds)
    return list(zip(wanted, (task.result() for task in tasks), strict=True))
