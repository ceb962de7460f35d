"""What is said of QEMUs that misbehave, each of which a case may meet; and that none is left."""

from __future__ import annotations

import re
from typing import NamedTuple

import pytest

from harness.images import qemu
from harness.model.verdict import Blame, Verdict
from harness.record.collectors import qmp
from support import flat_image, stub_qemu
from support.live import execute, flat, write_config

pytestmark = pytest.mark.live


class Row(NamedTuple):
    """What must be said of a behaviour: verdict, whose fault it looks like, and why."""

    verdict: str
    blame: str | None
    why: str = ""


FLAT = {
    "exits-0": Row("error", "qemu", "ended"),
    "exits-1": Row("error", "qemu", "status 1"),
    "exits-77": Row("skip", None),
    "refuses": Row("error", "qemu", "-cpu: no such thing"),
    "segfaults": Row("crash", "qemu", "SIGSEGV"),
    "aborts": Row("crash", "qemu", "SIGABRT"),
    "passes-and-segfaults": Row("crash", "qemu", "SIGSEGV"),
    "ignores-sigterm": Row("error", "qemu", "never answered"),
    "silent": Row("error", "qemu", "never answered"),
    "stops-itself": Row("error", "qemu", "never answered"),
    "floods-stderr": Row("error", "qemu"),
    "floods-console": Row("error", "qemu"),
    "leaves-a-session": Row("error", "qemu", "never answered"),
    "leaves-a-reader": Row("pass", None),
    "speaks-after-its-end": Row("pass", None),
    "daemonizes": Row("error", "qemu"),
    "prints-the-end-mark": Row("fail", "guest", "b"),
    "closes-its-console": Row("error", "qemu", "never answered"),
    "splits-lines": Row("pass", None),
    "checks-less": Row("error", "guest", "1 of 5 checks"),
    "ends-oddly": Row("error", "guest", "unknown exit value 2"),
    "monitor-slow": Row("hang", "guest", "nothing moves"),
    "monitor-paused": Row("hang", "guest", "'paused'"),
    "version-garbage": Row("error", "harness", "is not a QEMU"),
    "version-fails": Row("error", "harness", "no libraries"),
    "version-never": Row("error", "harness", "does not run"),
    "version-endless": Row("error", "harness", "does not run"),
    "version-not-utf8": Row("error", "qemu", "never answered"),
    "version-huge": Row("error", "qemu", "never answered"),
}
"""Of an image that is run without a monitor."""
LINUX = {
    "exits-1": Row("error", "qemu", "status 1"),
    "segfaults": Row("crash", "qemu", "SIGSEGV"),
    "silent": Row("error", "qemu", "never answered"),
    "monitor-garbage": Row("error", "qemu", "monitor"),
    "monitor-half": Row("error", "qemu", "never answered"),
    "monitor-closes": Row("error", "qemu", "monitor"),
    "monitor-floods": Row("error", "qemu"),
    "monitor-lies": Row("error", "qemu", "the monitor's answer to query-cpus-fast"),
}
"""Of a Linux guest, which has a monitor from the beginning on."""


@pytest.fixture(scope="module", autouse=True)
def little_patience():
    """What is waited for here does not come, however long one waits."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(qmp, "TIMEOUT_S", 4.0)
        patch.setattr(qemu, "ANSWER_TIMEOUT_S", 4.0)
        yield


@pytest.fixture(scope="module")
def stubs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("stubs")
    return folder, stub_qemu.build(folder, {**FLAT, **LINUX})


def results(folder, guest, programs):
    """By behaviour, of a run of them all."""
    config = write_config(folder, [guest], qemu=[str(path) for path in programs])
    result, _ = execute(folder, config, jobs=10)
    return {str(case.axes["qemu"]).rpartition("stub-")[2]: case for case in result.cases}


@pytest.fixture(scope="module")
def flat_results(stubs, tmp_path_factory):
    folder = tmp_path_factory.mktemp("flat")
    image = flat_image.build(folder, "image", "PASS: never\n")
    found = {}
    # What passes on another QEMU is blamed on no guest: those that pass are a run of their own.
    for passes in (False, True):
        names = [name for name, row in FLAT.items() if (row.verdict == "pass") is passes]
        place = folder / str(passes)
        place.mkdir()
        found |= results(place, flat(image, timeout_s=1), [stubs[1][name] for name in names])
    return found, stub_qemu.running(stubs[0])


@pytest.fixture(scope="module")
def linux_results(stubs, tmp_path_factory):
    folder = tmp_path_factory.mktemp("linux")
    guest = {"kind": "linux", "workloads": ["idle"], "timeout_s": 1}
    found = results(folder, guest, [stubs[1][name] for name in LINUX])
    return found, stub_qemu.running(stubs[0])


def check(case, row):
    assert case.verdict is Verdict(row.verdict), case.detail
    assert re.search(row.why, case.detail)
    assert case.blame == (None if row.blame is None else Blame(row.blame)), case.detail
    assert "a bug of irqmatrix" not in case.detail


@pytest.mark.parametrize("name", FLAT)
def test_flat_image_under_a_qemu_that_misbehaves_has_its_verdict(flat_results, name):
    check(flat_results[0][name], FLAT[name])


@pytest.mark.parametrize("name", LINUX)
def test_linux_under_a_qemu_that_misbehaves_has_its_verdict(linux_results, name):
    check(linux_results[0][name], LINUX[name])


def test_no_qemu_that_misbehaves_is_left(flat_results, linux_results):
    assert flat_results[1] == []
    assert linux_results[1] == []
