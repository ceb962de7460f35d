"""What is prepared before anything runs, and what becomes of cases that fail."""

import asyncio
import contextlib
import dataclasses
from pathlib import Path
from types import SimpleNamespace

import pytest

from harness.backends.lab import LabBackend
from harness.backends.table import BACKENDS
from harness.base.errors import HostError, ImageError
from harness.config.config import Lab, RunConfig
from harness.guests.plan import GuestPlan
from harness.model import manifest
from harness.model.case import FlatGuest, Host
from harness.model.layout import CaseDir
from harness.model.verdict import Blame, Verdict, of_case
from harness.record import executed_file
from harness.record.recording import Recording
from harness.run import scheduler
from harness.run.judged_run import JudgedRun
from harness.run.progress import Silent
from harness.run.scheduler import Preparation
from harness.run.waiting import Prepared
from support import cases, covered, multiboot


class BrokenHosts(scheduler.Scheduler):
    """A scheduler whose local host fails for each of its QEMUs in another way."""

    @contextlib.asynccontextmanager
    async def _session(self, key, guests):
        error = ERRORS.get(key.qemu)
        if error is None:
            yield SimpleNamespace(lost=False)
            return
        if error is asyncio.CancelledError:
            future = asyncio.get_running_loop().create_future()
            future.cancel()
            await future
        raise error


ERRORS = {
    "group": ExceptionGroup("two", [OSError(24, "Too many open files"), ValueError("x")]),
    "full": OSError(28, "No space left on device"),
    "image": ImageError("cannot use it", "it does not fit"),
    "host": HostError("it does not boot"),
    "bug": KeyError("CASE"),
    "cancelled": asyncio.CancelledError,
}


def run_broken(tmp_path, judge, qemus, settled=lambda _: None):
    items = []
    for qemu in qemus:
        case = cases.case(backend=dataclasses.replace(cases.TCG, qemu=qemu))
        items.append(Prepared(case, GuestPlan(case, tmp_path, None, False, False), None))
    config = RunConfig("broken", tmp_path, tuple(item.case for item in items), Lab())
    out = tmp_path / "out"
    out.mkdir()

    async def run():
        runner = BrokenHosts(config, out, None, None, Silent(), jobs=2)
        runner._described = lambda case: manifest.describe(
            case, qemu="7.2", linux="6.1", kvm=None, lab_cpus=1
        )
        judged = JudgedRun(config, out, runner, Silent(), judge, settled)
        await judged.run(Preparation(tuple(items), {}))
        return judged.results

    return {case.backend: case for case in asyncio.run(run()).values()}


async def passes(recording):
    return of_case(recording.case, Verdict.PASS, "", 0.0)


def test_host_that_fails_in_whatever_way_is_an_error_of_its_cases_alone(tmp_path, monkeypatch):
    async def conduct(session, plan, directory, step):
        return cases.recording(directory, plan.case)

    monkeypatch.setattr(scheduler, "conduct", conduct)
    found = run_broken(tmp_path, passes, [*ERRORS, "good"])

    assert found.pop("local-tcg-qemugood").verdict is Verdict.PASS
    assert {case.verdict for case in found.values()} == {Verdict.ERROR}
    assert len(found) == len(ERRORS)
    assert found["local-tcg-qemuhost"].blame is Blame.LAB
    assert "ulimit -n" in found["local-tcg-qemugroup"].detail
    assert "a bug of irqmatrix" in found["local-tcg-qemubug"].detail
    assert (tmp_path / "out" / "error.txt").exists()


@pytest.mark.parametrize("stage", ["record", "judge"])
@pytest.mark.parametrize("qemu", [*ERRORS])
def test_case_that_fails_in_whatever_way_is_an_error_and_the_others_run(
    tmp_path, monkeypatch, stage, qemu
):
    async def fail():
        error = ERRORS[qemu]
        if error is asyncio.CancelledError:
            future = asyncio.get_running_loop().create_future()
            future.cancel()
            await future
        raise error

    async def conduct(session, plan, directory, step):
        if stage == "record" and plan.case.backend.qemu == "a":
            await fail()
        return cases.recording(directory, plan.case)

    async def judge(recording):
        if stage == "judge" and recording.case.backend.qemu == "a":
            await fail()
        return await passes(recording)

    monkeypatch.setattr(scheduler, "conduct", conduct)
    settled = []
    found = run_broken(tmp_path, judge, ["a", "b"], settled.append)

    assert {name: case.verdict for name, case in found.items()} == {
        "local-tcg-qemua": Verdict.ERROR,
        "local-tcg-qemub": Verdict.PASS,
    }
    assert found["local-tcg-qemua"].blame in (Blame.HARNESS, Blame.LAB)
    assert {case.id for case in settled} == {case.id for case in found.values()}


def test_case_whose_image_cannot_be_had_is_an_error_and_the_others_are_prepared(tmp_path):
    image = tmp_path / "some.flat"
    image.write_bytes(multiboot.elf())
    good = cases.case(FlatGuest(image))
    bad = dataclasses.replace(good, backend=dataclasses.replace(cases.TCG, qemu="bad"))
    config = RunConfig("some", tmp_path, (bad, good), Lab())

    class Cache:
        def qemu(self, name):
            if name == "bad":
                raise ImageError("cannot use bad", "it says nothing")
            return SimpleNamespace(version=(7, 2))

    found = scheduler.prepare(config, Cache(), None, tmp_path)

    assert [item.case for item in found.prepared] == [good]
    assert list(found.failed) == [bad.id]
    with pytest.raises(ImageError):
        found.all()


class Cache:
    """An image cache in which everything is there."""

    def qemu(self, name):
        return SimpleNamespace(version=(7, 2))

    lab_qemu = qemu

    def kernel(self, name):
        return SimpleNamespace(version="6.1.192")

    def lab_initrd(self, kernel, qemu):
        return Path("initrd")

    def lab_kernel(self, kernel):
        return Path("vmlinux")


def run_in_labs(monkeypatch, out, *, repeat=1, retries=0):
    """Results by id, and how many labs it took; a lab dies under the guest ``flat-bad``."""
    booted = []

    class Labs(LabBackend):
        @contextlib.asynccontextmanager
        async def open(self, plan, guests, log):
            booted.append(SimpleNamespace(description="6.1", lost=False))
            yield booted[-1]

    async def conduct(session, plan, directory, step):
        session.lost = plan.case.guest.name == "flat-bad"
        return cases.recording(directory, plan.case)

    async def judge(recording):
        if recording.case.guest.name == "flat-bad":
            return of_case(recording.case, Verdict.CRASH, "", 1.0, as_expected=False)
        return await passes(recording)

    monkeypatch.setitem(BACKENDS, Host.LAB, Labs())
    monkeypatch.setattr(scheduler, "conduct", conduct)
    items = [
        Prepared(case, GuestPlan(case, Path("x"), None, False, False), None)
        for name in ("a", "bad", "z")
        for number in range(repeat)
        for case in [cases.case(FlatGuest(Path(name)), cases.ON, repeat=number)]
    ]
    config = RunConfig("labs", out, tuple(item.case for item in items), Lab(), retries=retries)

    async def run():
        runner = scheduler.Scheduler(config, out, Cache(), None, Silent(), 1)
        judged = JudgedRun(config, out, runner, Silent(), judge, lambda _: None)
        await judged.run(Preparation(tuple(items), {}))
        return judged.results

    results = asyncio.run(run())
    return [results[item.case.id] for item in items], len(booted)


def test_case_that_ends_a_lab_leaves_the_others_to_a_new_one(tmp_path, monkeypatch):
    results, labs = run_in_labs(monkeypatch, tmp_path)
    assert [result.verdict for result in results] == ["pass", "crash", "pass"]
    assert labs == 2


def test_case_that_ends_labs_is_not_run_again_and_again(tmp_path, monkeypatch):
    results, labs = run_in_labs(monkeypatch, tmp_path, retries=9)
    assert [result.verdict for result in results] == ["pass", "crash", "pass"]
    assert labs == 3


def test_repetitions_of_a_case_that_ends_labs_are_not_run(tmp_path, monkeypatch):
    results, labs = run_in_labs(monkeypatch, tmp_path, repeat=5)
    bad = results[5:10]
    assert [result.verdict for result in bad] == ["crash", "crash", "error", "error", "error"]
    assert bad[4].detail == "not run: 2 labs died under a repetition of it"
    assert bad[4].blame is Blame.LAB
    assert [result.verdict for result in results[:5] + results[10:]] == [Verdict.PASS] * 10
    assert labs == 3


def test_scheduler_gives_each_recording_or_why_there_is_none_and_judges_nothing(
    tmp_path, monkeypatch
):
    async def conduct(session, plan, directory, step):
        if plan.case.guest.name == "flat-bad":
            raise ImageError("cannot use it")
        return cases.recording(directory, plan.case)

    monkeypatch.setattr(scheduler, "conduct", conduct)
    items = [
        Prepared(case, GuestPlan(case, Path("x"), None, False, False), None)
        for name in ("a", "bad")
        for case in [cases.case(FlatGuest(Path(name)))]
    ]
    config = RunConfig("some", tmp_path, tuple(item.case for item in items), Lab())
    ended = []

    async def take(recorded):
        ended.append(recorded)

    runner = scheduler.Scheduler(config, tmp_path, Cache(), None, Silent(), 1)
    asyncio.run(runner.record(items, take))

    assert [type(one) for one in ended] == [Recording, scheduler.Failed]
    assert [one.case for one in ended] == [item.case for item in items]
    assert not list(tmp_path.rglob("verdict.json"))


class Covered(scheduler.Scheduler):
    """Its host says what of its KVM ran."""

    @contextlib.asynccontextmanager
    async def _session(self, key, guests):
        yield SimpleNamespace(lost=False, executed=lambda: covered.executed(1, 2))


@pytest.mark.parametrize("coverage", [True, False])
def test_case_has_what_ran_in_its_lab_where_that_is_recorded(tmp_path, monkeypatch, coverage):
    async def conduct(session, plan, directory, step):
        return cases.recording(directory, plan.case)

    monkeypatch.setattr(scheduler, "conduct", conduct)
    case = cases.case(backend=cases.ON)
    item = Prepared(case, GuestPlan(case, Path("x"), None, False, False), None)
    config = RunConfig("some", tmp_path, (case,), Lab(coverage=coverage))

    async def take(recorded):
        assert isinstance(recorded, Recording)

    runner = Covered(config, tmp_path, Cache(), None, Silent(), 1)
    runner._described = lambda case: manifest.describe(
        case, qemu="7.2", linux="6.1", kvm=None, lab_cpus=1
    )
    asyncio.run(runner.record([item], take))

    path = CaseDir(tmp_path / case.directory_name).executed
    assert (executed_file.read(path) if coverage else path.exists()) == (
        (covered.executed(1, 2),) if coverage else False
    )
