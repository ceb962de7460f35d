"""A kind of guest that is plugged in runs under a real QEMU, from configuration to report."""

import pytest
from typer.testing import CliRunner

from harness import cli
from harness.base import child
from harness.model.verdict import Verdict
from support import live, toy_guest

pytestmark = pytest.mark.live

WORDS = "ok one\nbad two\nok three\nbye\n"


async def in_this_process(function, *arguments, **keywords):
    """A process of its own would import the tables anew, without the toy."""
    return function(*arguments, **keywords)


@pytest.fixture
def plugged_in(monkeypatch):
    toy_guest.plug_in(monkeypatch)
    monkeypatch.setattr(child, "in_child", in_this_process)


@pytest.mark.usefixtures("plugged_in")
def test_guest_of_a_kind_that_is_plugged_in_boots_and_is_judged_and_reported(tmp_path):
    toy_guest.build(tmp_path / "beep.img", WORDS)
    guest = {"kind": "sector", "image": "beep.img", "boots": 2, "expect": {"two": "fail"}}
    result, out = live.execute(tmp_path, live.write_config(tmp_path, [guest | {"machine": "pc"}]))

    (case,) = result.cases
    assert (case.guest, case.verdict, case.status) == ("sector", Verdict.FAIL, 1), case.detail
    assert {part.id: part.verdict.value for part in case.parts} == {
        "one": "pass",
        "two": "fail",
        "three": "pass",
    }
    assert (out / case.dir / "console.log").read_text().count("bye") == 2
    assert result.summary.exit_status == 0
    junit = tmp_path / "junit.xml"
    for command in (["report", str(out), "--junit", str(junit)], ["judge", str(out)]):
        done = CliRunner().invoke(cli.app, command)
        assert done.exit_code == 0, done.output
    assert 'name="two"' in junit.read_text()
