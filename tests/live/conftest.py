"""What every test here needs: a QEMU, and none left behind."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from support import flat_image

QEMU = "qemu-system-x86_64"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    if shutil.which(QEMU) is None:
        skip = pytest.mark.skip(reason=f"there is no {QEMU}: apt-get install qemu-system-x86")
        for item in items:
            if Path(__file__).parent in item.path.parents:
                item.add_marker(skip)


def qemus_of(ancestor: int) -> list[str]:
    """The command lines of QEMUs that descend from the process ``ancestor``."""
    parents = {}
    commands = {}
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            stat = (folder / "stat").read_text(encoding="utf-8", errors="replace")
            command = (folder / "cmdline").read_bytes()
        except OSError:
            continue
        pid = int(folder.name)
        parents[pid] = int(stat.rsplit(")", 1)[1].split()[1])
        commands[pid] = command.replace(b"\0", b" ").decode(errors="replace")

    def descends(pid: int) -> bool:
        while pid in parents:
            pid = parents[pid]
            if pid == ancestor:
                return True
        return False

    return [command for pid, command in commands.items() if QEMU in command and descends(pid)]


@pytest.fixture(autouse=True)
def no_qemu_left(request: pytest.FixtureRequest) -> Iterator[None]:
    """A test that leaves a QEMU running has failed, whatever it asserts."""
    before = set(qemus_of(os.getpid()))
    yield
    left = [command for command in qemus_of(os.getpid()) if command not in before]
    assert not left, f"still running: {left}"


@pytest.fixture(scope="session")
def flats(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Small flat images by what becomes of them."""
    folder = tmp_path_factory.mktemp("flats")
    passing = "PASS: one\nPASS: twice\nPASS: twice\nPASS: took 1234 cycles\nSUMMARY: 4 tests\n"
    failing = "PASS: one\nFAIL: two\nSUMMARY: 2 tests, 1 unexpected failures\n"
    build = flat_image.build
    return {
        "passing": build(folder, "passing", passing),
        "failing": build(folder, "failing", failing, 1),
        "skipping": build(folder, "skipping", "SKIP: not here\n", 38),
        "hanging": build(folder, "hanging", "PASS: one\n", flat_image.HANG),
        "spinning": build(folder, "spinning", "PASS: one\n", flat_image.SPIN),
    }
