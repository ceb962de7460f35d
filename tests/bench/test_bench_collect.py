"""What ``collect`` costs a VM: how much longer a fixed number of port exits takes beside it.

Of each pair one half has ``collect`` beside it, from when it traces on; alone they take about as
long as its interval.  The time is the CPU time of the vCPU's thread, so
that what else runs on the machine, which is the end of ``collect``, too, does not count; the ratio
of the wall-clock times is among the figures.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import statistics
import struct
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from support import multiboot as images
from support.kvm import skip_without_irqchip

PAIRS = 10
MOST = 1.05
SECONDS = 2.0
BLOCK = 20_000
"""Exits between two letters that the guest writes."""
BASE = 0x200000
LETTERS_PORT = 0xE9
PORTS = {"to QEMU": 0x80, "in the kernel": 0x43}


def image(port: int) -> bytes:
    """Again and again: BLOCK writes to ``port``, and a letter to the other one."""
    write = bytes([0xE6, port])  # out port, al
    back = len(write) + 3
    loop = write + bytes([0x49, 0x75, 256 - back])  # dec ecx; jnz
    letter = bytes([0xB0, 0x42, 0xE6, LETTERS_PORT])  # mov al, 'B'; out 0xe9, al
    code = b"\xb9" + struct.pack("<I", BLOCK) + loop + letter
    code += bytes([0xEB, 256 - len(code) - 2])
    head = images.header(flags=images.HAS_ADDRESSES)
    return head + struct.pack("<5I", BASE, BASE, 0, 0, BASE + 32) + code + bytes(4096)


class Guest:
    """A QEMU that runs it, and the pipe that its letters come through."""

    def __init__(self, process: subprocess.Popen[bytes], letters: int) -> None:
        self.pid = process.pid
        self._letters = letters
        os.read(letters, 1)
        tasks = Path(f"/proc/{process.pid}/task").iterdir()
        self._vcpu = next(t for t in tasks if (t / "comm").read_text().startswith("CPU 0/"))

    def spent(self, blocks: int) -> tuple[float, float]:
        """CPU time and wall-clock time of so many blocks from now on, in seconds."""
        os.set_blocking(self._letters, False)
        with contextlib.suppress(BlockingIOError):
            while os.read(self._letters, 1 << 16):
                pass
        os.set_blocking(self._letters, True)
        os.read(self._letters, 1)
        cpu_ns, begun_s = self._cpu_ns(), time.perf_counter()
        while blocks > 0:
            blocks -= len(os.read(self._letters, blocks))
        return (self._cpu_ns() - cpu_ns) / 1e9, time.perf_counter() - begun_s

    def _cpu_ns(self) -> int:
        return int((self._vcpu / "schedstat").read_text().split()[0])


@contextlib.contextmanager
def running(folder: Path, port: int) -> Iterator[Guest]:
    """The guest, for as long as the block lasts."""
    (folder / "image").write_bytes(image(port))
    reader, writer = os.pipe()
    argv = [
        *("qemu-system-x86_64", "-accel", "kvm", "-M", "q35", "-m", "64", "-nodefaults"),
        *("-name", "bench,debug-threads=on", "-display", "none", "-kernel", folder / "image"),
        *("-chardev", f"file,id=letters,path=/dev/fd/{writer}"),
        *("-device", f"isa-debugcon,chardev=letters,iobase={LETTERS_PORT:#x}"),
    ]
    with subprocess.Popen(argv, pass_fds=[writer], stderr=subprocess.DEVNULL) as process:
        os.close(writer)
        try:
            yield Guest(process, reader)
        finally:
            process.kill()
            os.close(reader)


@contextlib.contextmanager
def collecting(pid: int, out: Path) -> Iterator[None]:
    """``collect`` of ``pid`` beside the block, from when it traces it; its tracefs is its own."""
    collect = [
        *(sys.executable, "-m", "harness", "collect", "--pid", str(pid)),
        *("--seconds", str(SECONDS), "--out", str(out)),
    ]
    code = 'mount -t tracefs tracefs /sys/kernel/tracing && exec "$@"'
    argv = ["unshare", "-m", "sh", "-c", code, "sh", *collect]
    with subprocess.Popen(argv, stdout=subprocess.PIPE, text=True) as process:
        instances = Path(f"/proc/{process.pid}/root/sys/kernel/tracing/instances")
        while not any(file.read_text() for file in instances.glob("irqmatrix-*/set_event_pid")):
            assert process.poll() is None
            time.sleep(0.01)
        yield
        said, _ = process.communicate()
    assert "  trace.txt" in said


@pytest.mark.timeout(1800)
@pytest.mark.parametrize("port", PORTS.values(), ids=PORTS)
def test_bench_port_exits_beside_collect(port, benchmark, tmp_path):
    skip_without_irqchip("on")
    if os.geteuid() != 0 or shutil.which("unshare") is None:
        pytest.skip("needs root, for tracefs, and unshare")

    with running(tmp_path, port) as guest:
        _, wall_s = guest.spent(10)
        blocks = max(round(10 * SECONDS / wall_s), 1)

        def pair() -> tuple[float, float]:
            alone = guest.spent(blocks)
            with collecting(guest.pid, tmp_path / "collected.tar.gz"):
                beside = guest.spent(blocks)
            return beside[0] / alone[0], beside[1] / alone[1]

        pairs = [pair() for _ in range(PAIRS - 1)]
        pairs.append(benchmark.pedantic(pair, rounds=1))

    cpu, wall = (statistics.median(each) for each in zip(*pairs, strict=True))
    benchmark.extra_info["times as long"] = {
        "CPU time": round(cpu, 3),
        "wall clock": round(wall, 3),
        "of each pair": [round(each[0], 3) for each in pairs],
    }
    assert cpu <= MOST
