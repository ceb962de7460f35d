"""The Python chips on a mainline KVM: the VMM in the virtual lab."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from pathlib import Path

import pytest

from harness.backends.lab import LabPlan, booted_lab
from harness.base.errors import CollectError, ImageError
from harness.commands import vmm_lab
from harness.guests.probe import parse_logs
from harness.images import python
from harness.images.cache import ImageCache
from harness.scenario.program import encode
from support import flat_image
from support import probe_programs as programs
from userspace_chip.kvm.options import Options

pytestmark = [
    *(pytest.mark.kvm, pytest.mark.live, pytest.mark.lab, pytest.mark.slow),
    pytest.mark.timeout(900),
]

EXPECTED = {
    "edge": ["1 0 irq 77 - 77 -", "2 0 irq 77 - 77 -", "3 0 read 77"],
    "level": ["1 0 irq 51 - 51 51 6=c051", "2 0 read 8051"],
    "nested": ["0 0 irq 41 - 41 -", "0 0 irq 51 - 51,41 -"],
    "timer_wakes": ["0 0 irq 31 - 31 -", "0 0 woke"],
    "extint": ["2 0 irq 26 - - -", "4 0 read 0"],
    "ipis": ["1 0 irq 42 - 42 -", "2 0 irq 43 - 43 -", "3 0 irq 44 - 44 -", "0 1 irq 41 - 41 -"],
    "nmis": ["1 0 nmi", "0 1 nmi"],
    "init_sipi": ["0 1 up 33", "4 1 read ff"],
    "messages": ["0 0 irq 61 - 61 -", "1 0 irq 62 - 62 -", "2 1 irq 63 - 63 -"],
}


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """The probe, its programs, and a Python for the lab."""
    folder = tmp_path_factory.mktemp("lab")
    made = [programs.without_slow_prologue(getattr(programs, name)()) for name in EXPECTED]
    module, archive = folder / "programs", folder / "python.tar"
    module.write_bytes(encode(made))
    python.write_archive(archive)
    return ImageCache(offline=True).probe(), module, archive


def lab_plan(files):
    probe, module, archive = files
    cache = ImageCache(offline=True)
    try:
        kernel, qemu = cache.kernel("default"), cache.qemu("system")
        initrd, host = cache.lab_initrd(kernel, qemu), cache.lab_qemu()
    except ImageError as error:
        pytest.skip(str(error))
    return LabPlan(kernel, qemu, initrd, host, (archive, probe, module), memory_mib=1024)


async def run_there(plan, options, log: Path):
    """By the irqchip, the status and what was said, in one lab."""
    found = {}
    async with booted_lab(plan, log) as session:
        for one in options:
            said = []
            code = vmm_lab.lab_code(plan, one)
            status = await session.run_program(code, said.append, log.with_suffix(".errors"))
            errors = log.with_suffix(".errors").read_text()
            found[one.irqchip] = (status, errors, b"".join(said).decode())
    return found


def test_probe_under_the_chips_in_the_lab_logs_what_the_architecture_says(tmp_path, files):
    probe, module, _ = files
    options = [
        Options(probe, mode, (module,), smp=2, debug_ports=(0x2100,), timeout_s=200.0)
        for mode in ("on", "split", "off")
    ]

    found = asyncio.run(run_there(lab_plan(files), options, tmp_path / "lab.log"))

    for status, errors, said in found.values():
        assert (status, errors) == (0, "")
        logs = parse_logs(said)
        texts = {name: [str(e) for e in logs[i].events] for i, name in enumerate(EXPECTED)}
        assert texts == EXPECTED


def test_command_in_on_compares_kvms_chips_with_the_models(tmp_path):
    lab_plan((Path(),) * 3)
    image = flat_image.build(tmp_path, "image", "PASS: one\n", 0)
    words = ["vmm", str(image), "--irqchip", "on", "--host", "lab"]

    done = subprocess.run([sys.executable, "-m", "harness", *words], capture_output=True, text=True)

    assert (done.returncode, done.stdout) == (0, "PASS: one\n"), done.stderr
    assert "exits KVM's chips were as the model has them\n0 divergences" in done.stderr


async def run_in_turn(plan, programs, said, log: Path):
    """Append what they print, in one lab."""
    async with booted_lab(plan, log) as session:
        for program in programs:
            await session.run_program(program, said.append, log.with_suffix(".errors"))


def test_program_in_the_lab_that_leaves_its_output_open_is_not_waited_for(tmp_path, files):
    said = []
    programs = ("sleep 2 & echo first", "sleep 1000 & echo second", "echo third")

    with pytest.raises(CollectError, match="an earlier program left running"):
        asyncio.run(run_in_turn(lab_plan(files), programs, said, tmp_path / "lab.log"))

    assert b"".join(said).decode().split() == ["first", "second"]
