"""The model against other kernels: the same steps in the virtual lab, on nested ``kvm_amd``.

With ``IRQMATRIX_COVERAGE=DIR`` what of the lab's KVM ran is recorded in ``DIR/LINUX``, for
``irqmatrix coverage``.
"""

import asyncio
import os
import subprocess
from contextlib import suppress
from pathlib import Path

import pytest

from harness.backends.block_log import MODULES, BlockLog, find_module
from harness.backends.lab import LabPlan, lab_argv, write_payload
from harness.base.errors import ImageError
from harness.base.procstat import read_stat
from harness.images.cache import ImageCache
from harness.model.layout import CaseDir
from harness.record import executed_file
from support.lab_python import PYTHON, write_archive
from support.lab_runner import MARK

pytestmark = [
    *(pytest.mark.kvm, pytest.mark.live, pytest.mark.lab, pytest.mark.slow),
    pytest.mark.timeout(900),
]

CHIPS = ("pic", "ioapic", "lapic", "msi", "routing", "split")
DIRECTED = {"vmm": ("29 passed", "28 passed, 1 skipped")}
"""Test modules without random steps, and what becomes of their tests: an older KVM, or one to which
it was not backported, cannot choose about EOI broadcasts."""
COVERAGE = os.environ.get("IRQMATRIX_COVERAGE")
SEEDS = 8
MEMORY_MIB = 1024
TIMEOUT_S = 400
STILL_S = 40

SCRIPT = """\
cd / && /bin/busybox tar xf {archive}
export PYTHONHOME=/py PYTHONPATH=/project:/project/tests:/project/tests/differential
export PYTHONPATH=$PYTHONPATH:/project/packages
{python} /project/tests/support/lab_runner.py {seeds} {chips}
cd /sys/module/kvm/sections && grep -H . .[a-z]*
cd / && rmmod kvm_amd
"""


@pytest.fixture(scope="module")
def archive(tmp_path_factory):
    path = tmp_path_factory.mktemp("lab") / "python.tar"
    write_archive(path)
    return path


def lab_plan(kernel_name, archive):
    cache = ImageCache(offline=True)
    try:
        kernel, qemu = cache.kernel(kernel_name), cache.qemu("system")
        initrd = cache.lab_initrd(kernel, qemu)
    except ImageError as error:
        pytest.skip(str(error))
    return LabPlan(
        *(kernel, qemu, initrd, cache.lab_qemu(), (archive,)),
        memory_mib=MEMORY_MIB,
        vmlinux=cache.lab_kernel(kernel),
    )


def said_in_lab(plan, archive, folder):
    """What the runner wrote to the lab's console, line by line."""
    script = folder / "run"
    script.write_text(
        SCRIPT.format(
            archive=plan.path_inside(archive),
            python=PYTHON,
            seeds=SEEDS,
            chips=" ".join((*CHIPS, *DIRECTED)),
        )
    )
    disk = folder / "disk"
    write_payload(plan, disk)
    run = ("-fw_cfg", f"name=opt/irqmatrix/run,file={script}")
    log = folder / "log"
    argv = lab_argv(plan, serial="stdio", ports={}, disk=disk, extra=(*run, *logging_to(log)))
    console = console_of(argv) or console_of(argv)
    assert console is not None, "two labs stood still, one after the other"
    if COVERAGE is not None:
        keep_coverage(plan, log, console, Path(COVERAGE, plan.kernel.name))
    lines = console.splitlines()
    return [line.partition(MARK)[2] for line in lines if MARK in line] or lines


def logging_to(log):
    """As :class:`BlockLog` has it, into a file: it is read when the lab is gone."""
    if COVERAGE is None:
        return ()
    first, last = MODULES
    return ("-d", "in_asm", "-D", str(log), "-dfilter", f"{first:#x}..{last:#x}")


def keep_coverage(plan, log, console, folder):
    """What the lab's KVM executed, as a run with ``--coverage`` has it."""

    async def sections(_code):
        return 0, console

    with log.open("rb") as file:
        blocks = BlockLog(file.fileno(), -1)
        asyncio.run(find_module(blocks, plan.kernel, sections))
        folder.mkdir(parents=True, exist_ok=True)
        executed_file.write(CaseDir(folder).executed, [blocks.executed()])


def console_of(argv):
    """What the lab wrote until it ended; None where it stands still.

    Seen once in some hundred runs: L1's only CPU is halted, QEMU's timers go on, and no interrupt
    wakes it.  That is the emulated SVM, as of a run's labs, which are booted again as well.
    """
    with subprocess.Popen(argv, stdout=subprocess.PIPE, text=True) as lab:
        used_s = 0.0
        for _ in range(TIMEOUT_S // STILL_S):
            with suppress(subprocess.TimeoutExpired):
                console, _ = lab.communicate(timeout=STILL_S)
                assert lab.returncode == 0
                return console
            before_s, used_s = used_s, read_stat(Path("/proc", str(lab.pid))).cpu_s
            if used_s < before_s + 1:
                break
        lab.kill()
        return None


@pytest.mark.parametrize(
    ("linux", "profile"),
    [
        pytest.param("6.1", "6.1", id="6.1"),
        pytest.param("6.12", "6.12", id="6.12"),
        pytest.param("6.18", "6.18", id="6.18", marks=pytest.mark.nightly),
        pytest.param("7.3", "7.3", id="7.3", marks=pytest.mark.nightly),
    ],
)
def test_chips_driven_at_random_stay_equal_to_those_of_another_kernel(
    linux, profile, archive, tmp_path
):
    plan = lab_plan(linux, archive)

    said = said_in_lab(plan, archive, tmp_path)

    assert said == [
        f"kvm_amd, profile {profile}",
        *(f"{chip}: {SEEDS} seeds, 0 disagree" for chip in CHIPS),
        *(
            next((line for end in ends if (line := f"{name}: {end}") in said), f"{name}: {ends[0]}")
            for name, ends in DIRECTED.items()
        ),
        "done",
    ]
