"""The guests' seam: one more kind, and it is configured, booted, driven, judged and reported."""

import asyncio
import contextlib
import json
from types import SimpleNamespace

import pytest
from typer.testing import CliRunner

from harness import cli
from harness.analyse.results.table import RESULTS
from harness.backends.qemu_argv import Channels, qemu_argv
from harness.backends.table import BACKENDS
from harness.base.errors import ConfigError, StoreError
from harness.config import config
from harness.guests.kinds.table import KINDS, kind_named
from harness.guests.plan import GuestFiles
from harness.model.case import Host
from harness.model.verdict import Verdict
from harness.record.drivers.table import DRIVERS
from harness.report import files
from harness.run.conclusion import run_result
from harness.run.judging import judge_folder
from harness.run.nowhere import ran_nowhere
from harness.run.progress import Silent
from harness.run.scheduler import Scheduler, prepare
from harness.store import case_folder, result
from support import live, toy_guest
from support.toy_session import ToySession

WORDS = "ok one\nbad two\nok three\nbye\n"


@pytest.fixture(autouse=True)
def plugged_in(monkeypatch):
    toy_guest.plug_in(monkeypatch)


def loaded(folder, **more):
    toy_guest.build(folder / "beep.img", WORDS)
    guest = {"kind": "sector", "image": "beep.img"} | more
    return config.load(live.write_config(folder, [guest]))


class Cache:
    """Nothing is fetched for the toy."""

    def qemu(self, name):
        return SimpleNamespace(version=(7, 2, 22))


def recorded(folder, words=WORDS, status=toy_guest.STATUS_DONE, **more):
    """The toy's case, recorded on a host that only says ``words``."""

    class Backend:
        def prepare(self, plan):
            pass

        @contextlib.asynccontextmanager
        async def open(self, plan, guests, log):
            yield ToySession(words.encode(), status)

    found = []

    async def take(recording):
        found.append(recording)

    matrix = loaded(folder, **more)
    out = folder / "out"
    out.mkdir()
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(BACKENDS, Host.LOCAL, Backend())
        items = prepare(matrix, Cache(), None, out).all()
        runner = Scheduler(matrix, out, Cache(), None, Silent(), 1)
        asyncio.run(runner.record(items, take))
    (recording,) = found
    return recording


def test_kind_that_is_put_into_the_table_is_one_of_a_configuration(tmp_path):
    (case,) = loaded(tmp_path, expect={"two": "fail"}, machine="pc").cases
    assert case.id == "sector-beep/pc/qemu64/smp1/local-tcg"
    assert case.guest.expect == {"two": "fail"}


@pytest.mark.parametrize(
    ("more", "why"),
    [
        ({"image": "gone.img"}, "no boot sector 'gone.img'"),
        ({"imaeg": "beep.img"}, "unknown key 'imaeg'.*image"),
        ({"boots": "many"}, "bad value for guests.0.sector.boots"),
        ({"kind": "sektor"}, "'linux', 'flat', 'probe', 'sector'"),
    ],
)
def test_mistake_in_a_configuration_of_the_kind_is_told_with_its_line(tmp_path, more, why):
    with pytest.raises(ConfigError, match=why) as found:
        loaded(tmp_path, **more)
    assert found.value.line is not None


def test_kind_says_what_its_qemu_is_started_with(tmp_path):
    (case,) = loaded(tmp_path).cases
    files = GuestFiles(("qemu",), (), "/images/beep.img")
    argv = " ".join(qemu_argv(case, files, Channels(console="stdio")))
    assert "-drive file=/images/beep.img,format=raw,if=ide" in argv
    assert "isa-debugcon,iobase=0xe9,chardev=console" in argv
    assert "-kernel" not in argv


def test_kind_says_where_it_has_nothing_to_do(tmp_path):
    found = prepare(loaded(tmp_path, machine="microvm"), Cache(), None, tmp_path)
    assert [item.skip for item in found.all()] == ["a boot sector needs a BIOS with disks"]


def test_kind_is_driven_in_as_many_boots_as_it_says(tmp_path):
    recording = recorded(tmp_path, boots=3)
    assert recording.failure is None
    assert recording.console.splitlines() == 3 * WORDS.splitlines()


def test_kind_has_results_of_its_own(tmp_path):
    found = judge_folder(recorded(tmp_path, expect={"two": "fail"}).directory)
    assert found.guest == "sector"
    assert (found.verdict, found.as_expected) == (Verdict.FAIL, True)
    assert [(part.id, part.verdict.value) for part in found.parts] == [
        ("one", "pass"),
        ("two", "fail"),
        ("three", "pass"),
    ]


def test_kind_that_does_not_say_its_last_line_crashed(tmp_path):
    found = judge_folder(recorded(tmp_path, words="ok one\n").directory)
    assert (found.verdict, found.as_expected) == (Verdict.CRASH, False)


def test_kind_says_what_of_its_end_is_good(tmp_path):
    found = judge_folder(recorded(tmp_path, status=3).directory)
    assert found.verdict is Verdict.ERROR
    assert "QEMU ended with status 3" in found.detail


def run_of(tmp_path, **more):
    recording = recorded(tmp_path, **more)
    judged = judge_folder(recording.directory)
    case_folder.write_verdict(recording.directory, judged)
    found = run_result("toy", {}, (judged,))
    out = recording.directory.parent
    result.write(found, out / "result.json")
    return found, recording, out


def test_kind_is_in_every_report(tmp_path):
    found, recording, out = run_of(tmp_path)
    asked = {"junit": tmp_path / "junit.xml", "tap": tmp_path / "run.tap"}
    files.write(files.view_of(found, out), out, asked)
    shown = CliRunner().invoke(cli.app, ["report", str(out)]).output

    assert ran_nowhere([recording.case], found.cases) == ()
    assert "sector-beep/q35/qemu64/smp1" in shown
    (row,) = [line for line in shown.splitlines() if line.startswith("two ")]
    assert row.split()[1] == "fail"
    assert 'name="two"' in (tmp_path / "junit.xml").read_text()
    assert "not ok" in (tmp_path / "run.tap").read_text()


def test_kind_is_judged_anew_from_its_recording(tmp_path):
    _, recording, out = run_of(tmp_path)
    done = CliRunner().invoke(cli.app, ["judge", str(out), "--json"])
    assert done.exit_code == 0, done.output
    assert recording.case.id in done.output


def test_two_cases_of_the_kind_are_compared_by_their_checks(tmp_path):
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    a = run_of(tmp_path / "a")[1]
    b = run_of(tmp_path / "b", words=WORDS.replace("ok three", "bad three"))[1]
    done = CliRunner().invoke(cli.app, ["diff", str(a.directory), str(b.directory), "--json"])
    assert done.exit_code == 1, done.output
    assert [each["part"] for each in json.loads(done.stdout)["findings"]] == ["three"]


def test_every_kind_is_driven_and_has_results():
    assert KINDS.keys() == DRIVERS.keys() == RESULTS.keys()


@pytest.mark.parametrize("word", KINDS)
def test_kind_is_called_as_its_guests_are(word):
    assert KINDS[word].guest_type.kind == word


def test_word_for_no_kind_is_an_error_that_names_those_that_there_are():
    with pytest.raises(StoreError, match=r"no kind of guest 'unikernel'.*linux, flat, probe"):
        kind_named("unikernel")
