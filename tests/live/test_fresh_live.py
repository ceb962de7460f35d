"""A machine with nothing installed: what is not on it, and what is left of it.

``make fresh`` runs the whole of it, before pytest in ``make test``.  Where it was skipped, these
tests are, with its reason.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from fresh.apart import obstacle
from fresh.machine import Cache, user_cache

CI = Path(__file__).parents[2] / ".ci"

pytestmark = [pytest.mark.live, pytest.mark.slow]


@pytest.fixture
def cache(tmp_path: Path) -> Cache:
    """One of the test's own, so that no other run is waited for; the bare root is the user's."""
    cache = user_cache("bookworm", {"XDG_CACHE_HOME": str(tmp_path)})
    if reason := obstacle(cache.mount_point):
        pytest.skip(f"make fresh is skipped on this machine: {reason}")
    users = user_cache("bookworm")
    if users.tarball.exists():
        cache.tarball.symlink_to(users.tarball)
    return cache


def start(cache: Cache, *command: str) -> subprocess.Popen[str]:
    """Run a command on a fresh machine."""
    return subprocess.Popen(
        [sys.executable, "-m", "fresh", "--", *command],
        env={**os.environ, "PYTHONPATH": str(CI), "XDG_CACHE_HOME": str(cache.folder.parent)},
        stdout=subprocess.PIPE,
        text=True,
    )


def mounts() -> str:
    return Path("/proc/self/mountinfo").read_text()


def test_fresh_machine_lacks_all_packages_but_the_keyring(cache: Cache) -> None:
    before = mounts()
    with start(cache, "sh", ".ci/system-packages", "--check") as process:
        printed, _ = process.communicate()
    missing = [line.split()[1] for line in printed.splitlines() if line.startswith("missing: ")]
    assert missing == [
        *("qemu-system-x86", "seabios", "busybox-static", "gcc", "libc6-dev", "python3-venv"),
        "debootstrap",
    ]
    assert process.returncode == 1
    assert list(cache.mount_point.iterdir()) == []
    assert mounts() == before


@pytest.mark.parametrize(
    ("number", "status"),
    [
        (signal.SIGKILL, -signal.SIGKILL),
        (signal.SIGTERM, -signal.SIGTERM),
        (signal.SIGINT, 130),
    ],
)
def test_fresh_machine_whose_command_is_ended_leaves_nothing(
    cache: Cache, number: signal.Signals, status: int
) -> None:
    before = mounts()
    with start(cache, "sh", "-c", "touch /left && echo it is up && exec sleep 1000") as process:
        assert process.stdout is not None
        assert "it is up\n" in iter(process.stdout.readline, "")
        process.send_signal(number)
        # The end of the pipe: no process of the machine has it open any more.
        process.stdout.read()
    assert process.returncode == status
    assert list(cache.mount_point.iterdir()) == []
    assert mounts() == before
