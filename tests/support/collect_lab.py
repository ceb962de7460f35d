"""A virtual lab with a guest in it, and irqmatrix beside that: what ``collect`` is run in."""

from __future__ import annotations

import contextlib
import shlex
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from harness.backends.lab import LabPlan, LabSession, booted_lab
from harness.base.errors import ImageError
from harness.collect.collect import SCRIPT
from harness.images.cache import ImageCache
from support import lab_python

QMP = "/tmp/qmp"
CONSOLE = "/tmp/console"
PID = "$(cat /tmp/pid)"
COLLECT = f"{lab_python.IRQMATRIX} collect"


@dataclass(frozen=True)
class CollectLab:
    """A lab that is up; ``folder`` is for what its programs say."""

    session: LabSession
    plan: LabPlan
    folder: Path

    async def run(self, code: str) -> str:
        """What a program prints, which has to succeed and to complain of nothing."""
        said = bytearray()
        errors = self.folder / "stderr"
        status = await self.session.run_program(code, said.extend, errors)
        complaint = errors.read_text()
        assert (status, complaint) == (0, ""), (code, said.decode(), complaint)
        return said.decode().replace("\r\n", "\n")

    async def start(self, guest: str, *options: str) -> None:
        """A guest by its arguments, in the background: its process is :data:`PID`."""
        qemu = self.plan.qemu
        argv = [qemu.lab_binary, "-L", qemu.lab_data_dirs[0], *options]
        named = f"-name guest=demo,debug-threads=on -nodefaults -display none {guest}"
        await self.run(
            f"rm -f {QMP} {CONSOLE}; ({shlex.join(argv)} {named} "
            f"-qmp unix:{QMP},server=on,wait=off & echo $! >/tmp/pid"
            ") </dev/null >/tmp/qemu.txt 2>&1"
        )

    async def start_linux(self, *options: str) -> None:
        """An idle Linux, when it has booted."""
        kernel, initrd = self.plan.payload[-2:]
        await self.start(
            f"-kernel {self.plan.path_inside(kernel)} -initrd {self.plan.path_inside(initrd)} "
            f"-append 'console=ttyS0 quiet panic=-1' -serial file:{CONSOLE}",
            *options,
        )
        await self.run(
            f"while ! grep -q 'irqmatrix: ready' {CONSOLE} 2>/dev/null; do "
            f"kill -0 {PID} || exit 1; sleep 3; done"
        )

    async def stop(self) -> None:
        """No guest any more; what is left of its process may wait for its parent."""
        await self.run(
            f"kill -9 {PID}; while readlink /proc/{PID}/exe >/dev/null; do sleep 1; done"
        )

    async def fetch(self, path: str, name: str) -> Path:
        """A file of the lab, as one of this folder."""
        await self.session.files.fetch(path, self.folder / name)
        return self.folder / name

    @property
    def script(self) -> str:
        """Where the shell's form of it is."""
        return self.plan.path_inside(SCRIPT)


@contextlib.asynccontextmanager
async def collect_lab(
    folder: Path, qemu: str, kernel: str, *files: Path, guest: str = "default"
) -> AsyncIterator[CollectLab]:
    """A lab with that QEMU and that Linux; ``files`` go along, and ``guest``'s kernel with them."""
    packed = folder / "irqmatrix.tar"
    lab_python.write_irqmatrix(packed, "harness.commands.collect")
    cache = ImageCache(offline=True)
    try:
        host, tested = cache.kernel(kernel), cache.qemu(qemu)
        booted = cache.kernel(guest)
        plan = LabPlan(
            kernel=host,
            qemu=tested,
            initrd=cache.lab_initrd(host, tested),
            host_qemu=cache.lab_qemu(),
            payload=(packed, SCRIPT, *files, booted.vmlinuz, cache.linux_initrd(booted)),
            memory_mib=1024,
            vmlinux=cache.lab_kernel(host),
        )
    except ImageError as error:
        pytest.skip(str(error))
    async with booted_lab(plan, folder / "lab.log") as session:
        lab = CollectLab(session, plan, folder)
        await lab.run(f"cd / && tar xf {plan.path_inside(packed)}")
        yield lab
