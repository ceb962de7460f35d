"""The floor of coverage: recorded once, and kept."""

import asyncio

import pytest

from harness.base.errors import HostError
from harness.config.config import Lab
from harness.images.cache import ImageCache
from harness.model.coverage import Executed
from harness.model.layout import RunDir
from harness.record import executed_file
from harness.run import floor
from harness.run.progress import Silent
from support import cases
from support.kernel_files import write_kernel

OFFSETS = {"lab-kvm-on": {1, 2}, "lab-kvm-split": {2, 3}}


@pytest.fixture
def cache(tmp_path, monkeypatch):
    """A cache with a kernel and a QEMU, without a network."""
    kernel = str(write_kernel(tmp_path / "kernel", {"kvm.ko": ""}))
    found = ImageCache(tmp_path / "cache", offline=True)
    image = found.kernel(kernel)
    monkeypatch.setattr(found, "kernel", lambda name: image)
    return found


@pytest.fixture
def labs(monkeypatch, tmp_path):
    """The backends whose floor was recorded, in order."""
    recorded = []

    async def record(backend, lab, cache, folder):
        recorded.append(backend.name)
        offsets = frozenset(OFFSETS[backend.name])
        executed_file.write(folder / "executed", [Executed("6.1", "78fb", {".text": offsets})])
        return folder / "executed"

    monkeypatch.setattr(floor, "_recorded", record)
    return recorded


class Notes(Silent):
    def __init__(self):
        self.texts = []

    def note(self, text):
        self.texts.append(text)


def written(cache, out, *backends, shown=None):
    out.mkdir()
    all_ = [cases.case(backend=backend) for backend in backends]
    asyncio.run(floor.write(all_, Lab(coverage=True), cache, out, shown or Silent()))
    return executed_file.read(RunDir(out).floor)


def test_floor_of_a_run_is_that_of_all_its_modes(cache, labs, tmp_path):
    (found,) = written(cache, tmp_path / "out", cases.ON, cases.SPLIT, cases.ON)

    assert found.offsets == {".text": {1, 2, 3}}
    assert labs == ["lab-kvm-on", "lab-kvm-split"]


def test_floor_is_recorded_once_and_taken_from_the_cache_after_that(cache, labs, tmp_path):
    first = written(cache, tmp_path / "first", cases.ON)
    second = written(cache, tmp_path / "second", cases.ON)

    assert first == second
    assert labs == ["lab-kvm-on"]


def test_case_outside_of_labs_has_no_floor(cache, labs, tmp_path):
    assert written(cache, tmp_path / "out", cases.TCG) == ()


def test_floor_that_cannot_be_recorded_is_a_message(cache, monkeypatch, tmp_path):
    async def fail(backend, lab, cache, folder):
        raise HostError("the lab did not boot")

    monkeypatch.setattr(floor, "_recorded", fail)
    shown = Notes()

    assert written(cache, tmp_path / "out", cases.ON, shown=shown) == ()
    assert any("no floor of lab-kvm-on: the lab did not boot" in text for text in shown.texts)
