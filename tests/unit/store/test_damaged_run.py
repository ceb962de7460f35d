"""A recorded run with a damaged file: every command that reads it says so in one message."""

from __future__ import annotations

import json
import re
from dataclasses import replace

import pytest

from harness.cli import main
from harness.ledger import ledger
from harness.ledger.bookkeeper import Bookkeeper
from harness.model.case import Irqchip
from harness.model.verdict import Verdict
from harness.store import result
from support import recorded_cases, runs

DAMAGES = {
    "empty": b"",
    "null": b"null",
    "number": b"5",
    "list": b"[]",
    "object": b"{}",
    "text": b'"x"',
    "bytes": bytes(range(256)),
    "deep": b"[" * 100_000,
    "deep object": b'{"schema":' * 50_000,
    "digits": b"9" * 5000,
    "cut": None,
    "types": None,
}
"""What a file may have become; None: made of the file itself."""


def damaged(name: str, data: bytes) -> bytes:
    if name == "cut":
        return data[: len(data) // 2]
    if name == "types":  # every number is a word, and every word but the schema's a number
        return re.sub(rb": \d+", b': "x"', data)
    return DAMAGES[name]


FILES = (
    "result.json",
    "case.json",
    "verdict.json",
    "counters.json",
    "ledger.json",
    "looks.json",
    "events.jsonl",
)
EVENTS = 300


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A run of one case, by the names of its files."""
    run = tmp_path_factory.mktemp("run")
    folder = recorded_cases.case_folder(run, "on", alter=lambda events: events[:EVENTS])
    books = Bookkeeper(Irqchip.ON, smp=1, ioapics=1)
    for event in recorded_cases.events_of("on")[:EVENTS]:
        books.add(event)
    account = books.close(damage=None, handled={})
    (folder / "ledger.json").write_text(ledger.dump(account))
    (folder / "looks.json").write_text("[]")
    case = replace(runs.GOOD, dir=folder.name, verdict=Verdict.PASS)
    result.write(runs.run_of(case), folder / "result.json")
    return {name: (folder / name).read_bytes() for name in FILES}


@pytest.fixture
def run_of(tmp_path, whole):
    """A run with the file ``name`` as ``data``."""

    def make(name, data):
        folder = tmp_path / "run" / recorded_cases.NAMES["on"]
        folder.mkdir(parents=True)
        for each, content in whole.items():
            place = folder.parent if each == "result.json" else folder
            (place / each).write_bytes(data if each == name else content)
        return folder

    return make


@pytest.fixture
def irqmatrix(monkeypatch, capsys):
    """The command, in this process: its status, and what it said on standard error."""

    def run(*arguments):
        monkeypatch.setattr("sys.argv", ["irqmatrix", *map(str, arguments)])
        with pytest.raises(SystemExit) as ended:
            main()
        return ended.value.code, capsys.readouterr().err

    return run


@pytest.mark.parametrize("damage", DAMAGES)
@pytest.mark.parametrize("name", FILES)
def test_damaged_run_is_a_message_or_no_matter(run_of, irqmatrix, whole, name, damage):
    folder = run_of(name, damaged(damage, whole[name]))
    run = folder.parent
    for words in (["report", run], ["replay", folder], ["diff", folder, folder]):
        status, said = irqmatrix(*words)
        assert status in (0, 1, 2, 3), said
        assert "Traceback" not in said
        assert said.count("\n") == (status in (2, 3) and bool(said)), said


def test_undamaged_run_is_read(run_of, irqmatrix):
    folder = run_of("none", b"")
    assert irqmatrix("report", folder.parent)[0] == 0
    assert irqmatrix("diff", folder, folder)[0] == 0


@pytest.mark.parametrize("place", ["../other", "/etc", "a/b", ".", ".."])
def test_result_with_a_case_outside_its_run_is_refused(run_of, irqmatrix, whole, place):
    document = json.loads(whole["result.json"])
    document["cases"][0]["dir"] = place
    folder = run_of("result.json", json.dumps(document).encode())
    status, said = irqmatrix("report", folder.parent)
    assert status == 2
    assert "not a directory of the run" in said
