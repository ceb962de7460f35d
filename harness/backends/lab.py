"""The virtual lab: a small Linux (L1) in which a real KVM runs the guests under test (L2).

L1 runs under TCG, which emulates AMD SVM with nested paging, or accelerated where the local KVM
can nest.  Its virtio-serial ports are the guest's console, its monitor, and a shell for the
harness; the protocol is described in ``images/lab/init``.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import dataclasses
import itertools
import shlex
import socket
import stat
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from harness.backends import live_argv
from harness.backends.base import THREAD_LINE, HostPlan
from harness.backends.block_log import BlockLog, block_log, find_module
from harness.backends.guest_argv import guest_argv, trace_path
from harness.backends.lab_end import LabEnd, diagnose
from harness.backends.qemu_argv import (
    Channels,
    chardev,
    command_text,
    escaped,
    max_file_bytes,
    qemu_argv,
)
from harness.base.cpus import least_taken_cpu
from harness.base.errors import CollectError, HostError, LabLost
from harness.base.ownership import owned_directory
from harness.base.process import BLOCK_BYTES, OwnedProcess, owned_process
from harness.base.sockets import connect, listener
from harness.guests.console import end_mark
from harness.guests.kinds.table import kind_of
from harness.guests.plan import GuestFiles, GuestPlan
from harness.images import cpio, python
from harness.images.model import KernelImage, QemuImage
from harness.model import lab_faults
from harness.model.case import Accel, Case, Vmm
from harness.model.coverage import Executed
from harness.model.lab_faults import LabFault
from harness.model.layout import CaseDir

BOOT_CPU_S: Final = 60.0
"""CPU time that a lab may take to come up; on a busy host that is minutes."""
BOOT_STILL_S: Final = 60.0
"""A lab that takes less than a second of CPU time in this time stands still."""
COMMAND_TIMEOUT_S: Final = 60.0
"""A lab that does not answer for this long stands still; a busy one is slow."""
MAX_CODE: Final = 80
"""How much of a command is quoted."""
LAST_WORDS_S: Final = 5.0
"""Between the end of a QEMU's connections and its own."""
TRACEFS: Final = "/sys/kernel/tracing"

LAB_APPEND: Final = (
    "console=ttyS0 quiet panic=-1 mitigations=off"
    # Nothing here needs IMA, AppArmor and the like; without them it boots a second sooner.
    " lsm=capability"
    # Linux 7.3 as Debian has it tests its ciphers: another second of CPU time.
    " cryptomgr.notests"
    # The check of the timer fails where this machine is busy, and then the lab does not boot.
    " no_timer_check"
    # A thread that loses the CPU between a tracepoint and what it reports makes the trace's order
    # another than that of the events. Debian's default is another from 6.16 on; 7.x has no choice.
    " preempt=voluntary"
)
"""L1's kernel command line."""

_PORTS: Final = ("control", "console", "monitor", "files")
"""The ports in the order of their numbers, from 1, as ``images/lab/init`` knows them."""
_CONSOLE: Final = f"/dev/vport0p{_PORTS.index('console') + 1}"
_MONITOR: Final = f"/dev/vport0p{_PORTS.index('monitor') + 1}"
_FILES: Final = f"/dev/vport0p{_PORTS.index('files') + 1}"
_GUEST_DIR: Final = "/run/guest"
_STATE: Final = f"/run/{CaseDir.guest_state}"
_PAYLOAD_DIR: Final = "/payload"
_FIFO: Final = f"{_GUEST_DIR}/console"
_COLLECT: Final = f"mkfifo {_FIFO}; cat <{_FIFO} >{_CONSOLE} & renice -n 19 -p $!; "
_COLLECTED: Final = f"{{ :; }} 4<>{_FIFO}; wait; "
"""A debug console is written byte by byte, and the port's every write is an exit of L1: with a
FIFO one of many bytes; at nice 19 the reader does not run at once for each.  It ends when the FIFO
has no writer any more; a QEMU that did not start never was one."""

_CONSOLE_IS_FREE: Final = (
    f"n=0; until (: >{_CONSOLE}) 2>/dev/null; do [ $n -lt 50 ] || "
    f"{{ echo 'the console is still open in what an earlier program left running'; exit 1; }}; "
    "n=$((n+1)); sleep 0.1; done; "
)
"""Shell: only one can have a port open (Linux 6.12, drivers/char/virtio_console.c, port_fops_open),
and what a program starts in the background has its output, too, if only until it is redirected."""

_JOIN: Final = (
    f"for t in {_GUEST_DIR}/trace.*; do if [ -e $t ]; then "
    f'{{ echo "{THREAD_LINE}${{t##*.}}"; cat $t; }} >>{_GUEST_DIR}/trace; rm $t; fi; done'
)
"""What each thread has traced to a file of its own, in one, after a line that says whose it is."""


@dataclass(frozen=True)
class LabPlan:
    """What a lab is made of.

    ``payload`` are the files that its cases need; they are found below :data:`_PAYLOAD_DIR` there.
    ``accel`` says who runs L1: TCG, or a KVM that can nest.  ``vmlinux`` is the kernel unpacked, to
    be started in place of its bzImage.
    """

    kernel: KernelImage
    qemu: QemuImage
    initrd: Path
    host_qemu: QemuImage
    payload: tuple[Path, ...]
    accel: Accel = Accel.TCG
    memory_mib: int = 2048
    smp: int = 1
    vmlinux: Path | None = None
    python: Path | None = None
    """An archive with a Python, one of the payload, where guests on the live chips run."""
    coverage: bool = False
    """Whether to record which instructions of its KVM run."""

    def path_inside(self, file: Path) -> str:
        """Where ``file`` of the payload is in the lab."""
        return f"{_PAYLOAD_DIR}/{self.payload.index(file)}-{file.name}"

    @property
    def faults(self) -> tuple[LabFault, ...]:
        """The known ones of its hardware; a KVM's is that of this machine."""
        if self.accel is not Accel.TCG:
            return ()
        return tuple(f for f in lab_faults.shipped() if f.is_of(self.host_qemu.version))

    @property
    def needs_one_cpu(self) -> bool:
        """Whether all of its QEMU stays on one CPU; one of several CPUs would get too slow."""
        return self.smp == 1 and any(fault.one_cpu for fault in self.faults)


def lab_argv(
    plan: LabPlan, *, serial: str, ports: Mapping[str, str], disk: Path, extra: Sequence[str] = ()
) -> tuple[str, ...]:
    """L1's command line; ``ports`` maps a port's name to its chardev backend."""
    cpu = "EPYC,+svm,+npt,check=off" if plan.accel is Accel.TCG else "host"
    port_options = [
        argument
        for number, name in enumerate(_PORTS, start=1)
        if name in ports
        for argument in (
            *("-chardev", chardev(ports[name], name)),
            *("-device", f"virtserialport,chardev={name},nr={number},name=irqmatrix.{name}"),
        )
    ]
    return (
        *plan.host_qemu.launcher,
        *("-name", "irqmatrix-lab"),
        *("-nodefaults", "-no-user-config", "-no-reboot"),
        *("-display", "none"),
        *(argument for path in plan.host_qemu.data_dirs for argument in ("-L", str(path))),
        *("-machine", f"q35,accel={plan.accel.value}"),
        *("-cpu", cpu),
        *("-smp", str(plan.smp)),
        *("-m", f"{plan.memory_mib}M"),
        *("-kernel", str(plan.vmlinux or plan.kernel.vmlinuz)),
        *("-initrd", str(plan.initrd)),
        *("-append", LAB_APPEND),
        *("-serial", serial),
        *("-drive", f"file={escaped(disk)},format=raw,if=virtio,readonly=on"),
        *("-device", "virtio-serial-pci,max_ports=8"),
        *port_options,
        *extra,
    )


def _on_cpu(cpu: int) -> tuple[str, ...]:
    """What a command begins with that stays on a CPU (taskset(1), of util-linux)."""
    return ("taskset", "--cpu-list", str(cpu))


def write_payload(plan: LabPlan, destination: Path) -> None:
    """The payload as a cpio archive, padded to whole disk sectors."""
    tree: dict[str, cpio.Node] = {
        plan.path_inside(path): cpio.File(path, stat.S_IMODE(path.stat().st_mode))
        for path in plan.payload
    }
    with destination.open("wb") as out:
        cpio.write_cpio(tree, out)


class LabShell:
    """The command port: runs shell code in the lab, and hears of what ends there.

    ``inquest`` finds out how the lab ended, and where that can be read.
    """

    def __init__(
        self,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        inquest: Callable[[], Awaitable[tuple[LabEnd, str]]],
    ) -> None:
        self._reader = reader
        self._writer = writer
        self._inquest = inquest
        self._ids = itertools.count(1)
        self._replies: dict[int, asyncio.Future[tuple[int, bytes]]] = {}
        self._exits: dict[str, asyncio.Future[int]] = {}
        loop = asyncio.get_running_loop()
        self.ready: asyncio.Future[str] = loop.create_future()
        self.lost: asyncio.Future[LabLost] = loop.create_future()
        self._pump = asyncio.create_task(self._read())

    async def run(
        self, code: str, *, timeout_s: float | None = COMMAND_TIMEOUT_S
    ) -> tuple[int, str]:
        """Status and output of ``code``; :class:`LabLost` where no answer can come any more.

        Without ``timeout_s`` the caller finds out whether the lab stands still.
        """
        self._check()
        number = next(self._ids)
        future = self._replies[number] = asyncio.get_running_loop().create_future()
        self._writer.write(f"{number} {' '.join(code.splitlines())}\n".encode())
        try:
            async with asyncio.timeout(timeout_s):
                await self._writer.drain()
                status, output = await future
        except TimeoutError:
            why = f"no answer for {timeout_s:g} s to {code[:MAX_CODE]!r}"
            raise await self.fail(why) from None
        except ConnectionError:
            raise await self.fail() from None
        finally:
            self._replies.pop(number, None)
        return status, output.decode(errors="replace")

    async def check(self, code: str, *, timeout_s: float | None = COMMAND_TIMEOUT_S) -> str:
        """The output of ``code``, which has to succeed; :class:`CollectError` where it does not."""
        status, output = await self.run(code, timeout_s=timeout_s)
        if status != 0:
            raise CollectError(f"in the lab: {code}", f"status {status}: {output.strip()}")
        return output

    def exit_of(self, name: str) -> asyncio.Future[int]:
        """The future exit status of the process that was started under ``name``."""
        self._check()
        return self._exits.setdefault(name, asyncio.get_running_loop().create_future())

    async def fail(self, symptom: str = "") -> LabLost:
        """Find out how the lab ended, and report it to all that wait; the error to raise."""
        end, where = await self._inquest()
        error = LabLost("the lab died", "; ".join(filter(None, (str(end), symptom))), where)
        if self.lost.done():
            return self.lost.result()
        self.lost.set_result(error)
        for future in self._futures():
            if not future.done():
                future.set_exception(error)
                future.exception()  # an unread one is no warning: it is reported elsewhere
        return error

    async def close(self) -> None:
        """Stop reading and close the connection."""
        self._pump.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await self._pump
        self._writer.close()
        with contextlib.suppress(OSError):
            await self._writer.wait_closed()
        for future in self._futures():
            future.cancel()

    def _futures(self) -> tuple[asyncio.Future[Any], ...]:
        """All that another task may be waiting for."""
        return (self.ready, *self._replies.values(), *self._exits.values())

    def _check(self) -> None:
        if self.lost.done():
            raise self.lost.result()

    async def _read(self) -> None:
        try:
            while line := await self._reader.readline():
                self._dispatch(line.decode(errors="replace").split())
            await self.fail()
        except (OSError, ValueError, IndexError) as error:
            await self.fail(f"its command port is broken: {error!r}")

    def _dispatch(self, words: list[str]) -> None:
        kind, rest = words[0], words[1:]
        if kind == "!ready" and not self.ready.done():
            self.ready.set_result(" ".join(rest))
        elif kind == "!exit":
            future = self._exits.get(rest[0])
            if future is not None and not future.done():
                future.set_result(int(rest[1]))
        elif kind.startswith("@"):
            reply = self._replies.get(int(kind[1:]))
            if reply is not None and not reply.done():
                output = base64.b64decode(rest[1]) if len(rest) > 1 else b""
                reply.set_result((int(rest[0]), output))


class LabFiles:
    """The lab's files, through its shell and its file port."""

    def __init__(self, shell: LabShell, port: Path) -> None:
        self._shell = shell
        self._port = port
        self._marks = itertools.count(1)
        self._lock = asyncio.Lock()

    async def write(self, items: Sequence[tuple[str, str]]) -> None:
        """Write each text to its path, in order."""
        writes = (f"printf %s {shlex.quote(text)} >>{shlex.quote(path)}" for path, text in items)
        await self._shell.check(" && ".join(writes) or ":")

    async def read(self, path: str) -> str:
        """The text of a small file."""
        return await self._shell.check(f"cat {shlex.quote(path)}")

    async def fetch(self, path: str, destination: Path) -> None:
        """Copy a file here; a file that is not there becomes an empty one.

        :class:`CollectError` or :class:`LabLost` where the lab does not send it whole.  A trace of
        millions of events takes minutes: what counts is that more of it comes.
        """
        mark = f"\nirqmatrix: end of file {next(self._marks)}\n"
        quoted = shlex.quote(path)
        shown = mark.replace("\n", "\\n")
        copy = f"s=0; if [ -e {quoted} ]; then cat {quoted} || s=$?; fi"
        send = f"{{ {copy}; printf '{shown}'; (exit $s); }} >{_FILES}"
        async with self._lock:
            reader, writer = await asyncio.open_unix_connection(self._port)
            try:
                async with asyncio.TaskGroup() as group:
                    chunks = self._chunks(reader, path)
                    group.create_task(_copy_until(chunks, mark.encode(), destination))
                    group.create_task(self._shell.check(send, timeout_s=None))
            except ExceptionGroup as errors:
                raise errors.exceptions[0] from None
            finally:
                writer.close()
                await writer.wait_closed()

    async def _chunks(self, reader: asyncio.StreamReader, path: str) -> AsyncIterator[bytes]:
        """What comes of a file; :class:`LabLost` where nothing does for too long."""
        chunk = b"-"
        while chunk:
            try:
                async with asyncio.timeout(COMMAND_TIMEOUT_S):
                    chunk = await reader.read(1 << 18)
            except TimeoutError:
                why = f"nothing more of {path} for {COMMAND_TIMEOUT_S:g} s"
                raise await self._shell.fail(why) from None
            yield chunk

    async def make_dir(self, path: str) -> None:
        """Create a folder; it may be there already."""
        await self._shell.check(f"mkdir -p {shlex.quote(path)}")

    async def remove_dir(self, path: str) -> None:
        """Remove an empty folder or a tracefs instance."""
        await self._shell.check(f"rmdir {shlex.quote(path)}")


async def _pass_on(
    reader: asyncio.StreamReader, mark: bytes, output: Callable[[bytes], None]
) -> None:
    """Give the stream to ``output``, piece by piece, up to ``mark`` or its end."""
    held = b""
    while chunk := await reader.read(1 << 16):
        held += chunk
        if held.endswith(mark):
            output(held[: -len(mark)])
            return
        # The mark may come in pieces: what may be its beginning is held back.
        at = held.find(mark[:1], max(len(held) - len(mark), 0))
        passed, held = (held, b"") if at < 0 else (held[:at], held[at:])
        output(passed)
    output(held)


async def _copy_until(chunks: AsyncIterator[bytes], mark: bytes, destination: Path) -> None:
    """Copy the stream to a file up to ``mark``."""
    held = b""
    with destination.open("wb") as out:
        async for chunk in chunks:
            held += chunk
            if held.endswith(mark):
                out.write(held[: -len(mark)])
                return
            out.write(held[: -len(mark)])
            held = held[-len(mark) :]
    raise CollectError(f"the lab's file port closed before the end of {destination.name}")


class LabGuest:
    """A guest under test in the lab."""

    def __init__(
        self,
        shell: LabShell,
        files: LabFiles,
        console: socket.socket,
        monitor: socket.socket,
        exited: asyncio.Future[int],
        console_end: str,
        host_pid: int,
    ) -> None:
        self.console = console
        self.host_pid: int | None = host_pid
        self.console_end: str | None = console_end
        self.monitor = monitor
        self._shell = shell
        self._files = files
        self._exited = exited

    @property
    def exited(self) -> asyncio.Future[int]:
        """QEMU's exit status as a shell sees it, negative for a signal."""
        return self._exited

    async def kill(self) -> None:
        """End QEMU at once: in a lab nothing is worth a grace period."""
        if not self._exited.done():
            await self._shell.run(f"kill -9 $(cat {_GUEST_DIR}/pid)")
            await self._exited

    async def collect(self, stderr: Path, trace_log: Path) -> None:
        """Fetch what QEMU wrote."""
        await self._files.fetch(f"{_GUEST_DIR}/stderr", stderr)
        await self._shell.check(_JOIN)
        await self._files.fetch(f"{_GUEST_DIR}/trace", trace_log)


class LabSession:
    """A lab that is up."""

    def __init__(
        self,
        plan: LabPlan,
        shell: LabShell,
        sockets: Path,
        ready: str,
        pid: int,
        blocks: BlockLog | None = None,
    ) -> None:
        self._plan = plan
        self._pid = pid
        self._blocks = blocks
        self._shell = shell
        self._sockets = sockets
        self._numbers = itertools.count(1)
        self.description: str | None = ready
        self.files = LabFiles(shell, sockets / "files")
        self.tracefs: str | None = TRACEFS

    @property
    def lost(self) -> bool:
        """Whether the lab is gone."""
        return self._shell.lost.done()

    def executed(self) -> Executed | None:
        """What of its KVM ran that had not before; None where that is not recorded."""
        return None if self._blocks is None else self._blocks.executed()

    def state_file(self, directory: Path) -> str:
        """In the lab's memory: one guest runs at a time."""
        return _STATE

    @contextlib.asynccontextmanager
    async def boot(self, plan: GuestPlan) -> AsyncIterator[LabGuest]:
        """Start ``plan`` in the lab."""
        name = f"guest{next(self._numbers)}"
        talks_much = kind_of(plan.case.guest).talks_much
        channels = Channels(
            console=f"file,path={_FIFO}" if talks_much else f"serial,path={_CONSOLE}",
            monitor=f"serial,path={_MONITOR}",
            trace_log=(
                trace_path(plan.case, _GUEST_DIR, self._plan.qemu.version)
                if plan.trace_log
                else None
            ),
            paused=plan.paused,
            incoming=plan.incoming,
        )
        files = _guest_files(self._plan, plan)
        argv = guest_argv(python.LAUNCHER, plan.case, files, self._plan.qemu.version, channels)
        qemu = shlex.join(argv)
        end = end_mark()
        printed = end.replace("\n", "\\n").replace("\x04", "\\004")
        with (
            connect(self._sockets / "console") as console,
            connect(self._sockets / "monitor") as monitor,
        ):
            exited = self._shell.exit_of(name)
            await self._shell.check(
                f"rm -rf {_GUEST_DIR}; mkdir -p {_GUEST_DIR}; cd {_GUEST_DIR}; "
                f"{{ {_limit(plan.case)}{_COLLECT if talks_much else ''}"
                f"{qemu} 3>&- >stderr 2>&1 & p=$!; echo $p >pid; wait $p; "
                # First of all: a console without a reader may block what follows.
                f"echo '!exit' {name} $? >&3; "
                f"{_COLLECTED if talks_much else ''}printf '{printed}' >{_CONSOLE}; "
                "} >/dev/null 2>&1 &"
            )
            guest = LabGuest(self._shell, self.files, console, monitor, exited, end, self._pid)
            try:
                yield guest
            finally:
                with contextlib.suppress(LabLost):
                    await asyncio.shield(asyncio.ensure_future(guest.kill()))

    async def run_program(self, command: str, output: Callable[[bytes], None], errors: Path) -> int:
        """Run shell code: its status; what it prints goes to ``output`` as it comes.

        Its standard error is in the file ``errors`` afterwards.  :class:`LabLost` where the lab
        ends before it; :class:`CollectError` where an earlier program left one that has the console
        open.
        """
        name = f"program{next(self._numbers)}"
        end = end_mark()
        printed = end.replace("\n", "\\n").replace("\x04", "\\004")
        exited = self._shell.exit_of(name)
        reader, writer = await asyncio.open_unix_connection(self._sockets / "console")
        try:
            await self._shell.check(
                f"{_CONSOLE_IS_FREE}rm -rf {_GUEST_DIR}; mkdir -p {_GUEST_DIR}; "
                f"{{ ({command}) 3>&- 2>{_GUEST_DIR}/stderr; "
                f"echo '!exit' {name} $? >&3; printf '{printed}'; }} "
                f"</dev/null >{_CONSOLE} 2>/dev/null &"
            )
            await _pass_on(reader, end.encode(), output)
            status = await exited
        finally:
            writer.close()
        await self.files.fetch(f"{_GUEST_DIR}/stderr", errors)
        return status

    def command(self, plan: GuestPlan) -> str:
        """The same by hand: a lab that runs just this guest, its console on the terminal."""
        if plan.case.backend.vmm is Vmm.PYCHIP:
            files = GuestFiles(
                qemu=(),
                data_dirs=(),
                kernel=str(plan.kernel),
                initrd=None if plan.initrd is None else str(plan.initrd),
            )
            where = ("--host", "lab", "--kernel", plan.case.backend.kernel or DEFAULT_KERNEL)
            version = self._plan.qemu.version
            return command_text(live_argv.by_hand(plan.case, files, version, where))
        return by_hand(self._plan, plan)


def _limit(case: Case) -> str:
    """Shell: files of what follows are cut where they get too long; see ``base/process.py``."""
    most = max_file_bytes(case)
    return "" if most is None else f"trap '' XFSZ; ulimit -f {most // BLOCK_BYTES}; "


def _guest_files(lab: LabPlan, plan: GuestPlan) -> GuestFiles:
    return GuestFiles(
        qemu=(lab.qemu.lab_binary,),
        data_dirs=lab.qemu.lab_data_dirs,
        kernel=lab.path_inside(plan.kernel),
        initrd=None if plan.initrd is None else lab.path_inside(plan.initrd),
    )


def _not_in(word: str, text: str) -> str:
    """``word``, or what begins with it and is not in ``text``."""
    while word in text:
        word += "_"
    return word


def by_hand(lab: LabPlan, plan: GuestPlan) -> str:
    """A shell script that boots a lab for ``plan`` alone, with nothing but QEMU and busybox.

    L1's init runs what fw_cfg's ``opt/irqmatrix/run`` says, and powers off.
    """
    payload = (plan.kernel,) if plan.initrd is None else (plan.kernel, plan.initrd)
    only = dataclasses.replace(lab, payload=payload)
    guest = command_text(qemu_argv(plan.case, _guest_files(only, plan), Channels(console="stdio")))
    end = _not_in("END_OF_GUEST", guest)
    argv = lab_argv(
        only,
        serial="stdio",
        ports={},
        disk=Path("disk"),
        extra=("-fw_cfg", "name=opt/irqmatrix/run,file=guest"),
    )
    boot = command_text(argv)
    copies = "\n".join(
        f'cp {shlex.quote(str(path))} "$dir"{shlex.quote(only.path_inside(path))}'
        for path in payload
    )
    return (
        "# Boots the lab, and in it the guest under test; its console is on this terminal.\n"
        f'dir=$(mktemp -d) && mkdir "$dir{_PAYLOAD_DIR}"\n'
        f"{copies}\n"
        f'(cd "$dir" && busybox find {_PAYLOAD_DIR[1:]} | busybox cpio -o -H newc >disk)\n'
        f"cat >\"$dir/guest\" <<'{end}'\n"
        f'{guest}echo "irqmatrix: QEMU ended with status $?"\n'
        f"{end}\n"
        # From inside, so that the folder's name, whatever it contains, is in no option.
        f'(cd "$dir" &&\n{boot})\n'
        'rm -r "$dir"\n'
    )


@dataclass(frozen=True)
class _Remains:
    """What a lab leaves: its QEMU, and the two files that are written meanwhile."""

    process: OwnedProcess
    console: Path
    stderr: Path
    faults: tuple[LabFault, ...]

    async def inquest(self) -> tuple[LabEnd, str]:
        """How the lab ended, or that it stands still; and where that can be read."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(LAST_WORDS_S):
                await self.process.wait()
        said = self.stderr.read_text(errors="replace")
        console = self.console.read_text(errors="replace")
        stopped = self.process.is_stopped
        end = diagnose(self.process.status, said, console, self.faults, stopped=stopped)
        return end, f"in the run directory: {self.console.name}, {self.stderr.name}"


@contextlib.asynccontextmanager
async def booted_lab(plan: LabPlan, log: Path) -> AsyncIterator[LabSession]:
    """A lab, up for as long as the block lasts; its console goes to the file ``log``.

    What its QEMU says goes to a file of the same name with the suffix ``.stderr``.  Raises
    :class:`HostError` where the lab does not come up, or comes up without KVM.
    """
    async with contextlib.AsyncExitStack() as stack:
        directory = stack.enter_context(owned_directory())
        disk = directory / "disk"
        await asyncio.to_thread(write_payload, plan, disk)
        listeners = {name: stack.enter_context(listener(directory / name)) for name in _PORTS}
        ports = {
            name: f"socket,fd={server.fileno()},server=on,wait=off"
            for name, server in listeners.items()
        }
        blocks = stack.enter_context(block_log()) if plan.coverage else None
        extra, descriptors = (
            ((), ()) if blocks is None else (blocks.arguments, (blocks.descriptor,))
        )
        argv = lab_argv(plan, serial="stdio", ports=ports, disk=disk, extra=extra)
        if plan.needs_one_cpu:
            argv = (*_on_cpu(stack.enter_context(least_taken_cpu("lab"))), *argv)
        stderr = log.with_suffix(".stderr")
        output = stack.enter_context(log.open("wb"))
        errors = stack.enter_context(stderr.open("wb"))
        process = await stack.enter_async_context(
            owned_process(
                argv,
                stdout=output,
                stderr=errors,
                pass_fds=[*(server.fileno() for server in listeners.values()), *descriptors],
                grace_s=0,
                owner=directory,
            )
        )
        reader, writer = await asyncio.open_unix_connection(directory / "control")
        remains = _Remains(process, log, stderr, plan.faults)
        shell = LabShell(reader, writer, remains.inquest)
        stack.push_async_callback(shell.close)
        ready = await _ready(shell, remains)
        if blocks is not None:
            await find_module(blocks, plan.kernel, shell.run)
        if plan.python is not None:
            await shell.check(python.unpacking(plan.path_inside(plan.python)))
        yield LabSession(plan, shell, directory, ready, process.pid, blocks)


async def _ready(shell: LabShell, remains: _Remains) -> str:
    """What L1 says of itself once it is up; a QEMU that ends instead is not waited for."""
    ended = asyncio.ensure_future(remains.process.wait())
    either: set[asyncio.Future[Any]] = {shell.ready, ended}
    used_s = 0.0
    first: set[asyncio.Future[Any]] = set()
    try:
        while not first and used_s < BOOT_CPU_S:
            first, _ = await asyncio.wait(
                either, timeout=BOOT_STILL_S, return_when=asyncio.FIRST_COMPLETED
            )
            before_s, used_s = used_s, remains.process.cpu_s
            if used_s < before_s + 1:
                break
    finally:
        ended.cancel()
    if not shell.ready.done() or shell.ready.exception() is not None:
        end, where = await remains.inquest()
        late = "" if first else f"it is not up after {used_s:.0f} s of CPU time; "
        raise HostError("the lab did not boot", f"{late}{end}", where)
    ready = shell.ready.result()
    if "kvm=yes" not in ready:
        raise HostError(
            "the lab has no KVM",
            f"its kernel says {ready!r}",
            "a lab kernel needs the modules kvm and kvm-amd",
        )
    return ready


DEFAULT_KERNEL: Final = "default"
"""The lab's kernel where none is named."""


class LabBackend:
    """Labs, each with the files of the guests that it is opened for."""

    def prepare(self, plan: HostPlan) -> None:
        """Get the lab's kernel, both of its QEMUs and what it boots from."""
        images = plan.images
        kernel = images.kernel(plan.kernel or DEFAULT_KERNEL)
        images.lab_initrd(kernel, images.qemu(plan.qemu))
        images.lab_kernel(kernel)
        images.lab_qemu(plan.lab.qemu)

    @contextlib.asynccontextmanager
    async def open(
        self, plan: HostPlan, guests: Sequence[GuestPlan], log: Path
    ) -> AsyncIterator[LabSession]:
        """Boot one."""
        with contextlib.ExitStack() as stack:
            archive = None
            if any(guest.case.backend.vmm is Vmm.PYCHIP for guest in guests):
                archive = stack.enter_context(owned_directory()) / "python.tar"
                await asyncio.to_thread(python.write_archive, archive)
            async with booted_lab(_lab_plan(plan, guests, archive), log) as session:
                yield session


def _lab_plan(plan: HostPlan, guests: Sequence[GuestPlan], archive: Path | None = None) -> LabPlan:
    images, hardware = plan.images, plan.lab
    kernel, qemu = images.kernel(plan.kernel or DEFAULT_KERNEL), images.qemu(plan.qemu)
    files = dict.fromkeys(
        path
        for path in (archive, *(path for one in guests for path in (one.kernel, one.initrd)))
        if path is not None
    )
    return LabPlan(
        kernel=kernel,
        qemu=qemu,
        initrd=images.lab_initrd(kernel, qemu),
        host_qemu=images.lab_qemu(hardware.qemu),
        payload=tuple(files),
        accel=hardware.accel,
        memory_mib=hardware.memory_mib,
        smp=hardware.smp,
        vmlinux=images.lab_kernel(kernel),
        python=archive,
        coverage=plan.coverage,
    )
