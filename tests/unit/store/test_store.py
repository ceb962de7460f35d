"""The store: runs go in, histories come out; whatever happens to its file, nothing is lost."""

from __future__ import annotations

import json
import multiprocessing
import os
import signal
from dataclasses import replace

import apsw
import pytest

from harness.base.errors import ConfigError, StoreError
from harness.commands import history as command
from harness.compare.diff import Status
from harness.model.verdict import Verdict
from harness.store import database, migrations, writing
from harness.store.baseline import State, exit_status
from harness.store.database import StoreDamaged, opened
from harness.store.entry import compared
from harness.store.history import BackendVersions
from harness.store.identity import FindingIdentity
from harness.store.queries import StoreReader, reading
from harness.store.record import MeasuredValue, record_of
from support.stored import SUBJECT, Nights, case, finding, night

ON, OFF = f"{SUBJECT}/lab-kvm-on", f"{SUBJECT}/lab-kvm-off"
EOI = FindingIdentity(SUBJECT, "eoi", "check", (("off", "split"), ("on",)))


@pytest.fixture
def store(tmp_path):
    return Nights(tmp_path / "store.sqlite")


# --- Runs -----------------------------------------------------------------------------------------


def test_run_that_has_begun_is_incomplete_and_has_nothing(store):
    store.begin(night())

    with reading(store.path) as history:
        (run,) = history.runs()
        assert (run.is_complete, run.cases, run.exit_status) == (False, None, None)
        assert history.nights_of_run(run.number) == {}


def test_run_that_has_ended_has_its_cases_counts_and_versions(store):
    store.enter(night(finding("eoi"), cpu="Some CPU"))

    with reading(store.path) as history:
        (run,) = history.runs()
        nights = history.nights_of_run(run.number)
        assert (run.name, run.cases, run.unexplained, run.exit_status) == ("nightly", 3, 1, 1)
        assert nights[ON].versions == BackendVersions("7.2.22", "6.1.170")
        assert history.environment(run.number)["cpu"] == "Some CPU"


def test_nights_on_the_same_machine_share_their_environment(store):
    for _ in range(3):
        store.enter(night())

    with opened(store.path) as connection:
        assert connection.execute("SELECT count(*) FROM environment").get == 1
        assert connection.execute("SELECT count(*) FROM part_set").get == 1


def test_run_killed_while_it_is_entered_is_incomplete_and_the_next_is_clean(store):
    result = night()

    def enter_and_die():
        def killing():
            yield MeasuredValue(ON, "idle", "handled/x", "guest", 1.0)
            os.kill(os.getpid(), signal.SIGKILL)

        record = record_of(result, store.path.parent, {})
        with opened(store.path, create=True) as connection:
            writing.begin(connection, record.token, "nightly", "x", "2026-01-01", "1")
            writing.complete(connection, replace(record, measured=killing()), "x")

    child = multiprocessing.get_context("fork").Process(target=enter_and_die)
    child.start()
    child.join()
    store.enter(night())

    with reading(store.path) as history:
        dead, alive = history.runs()
        assert child.exitcode == -signal.SIGKILL
        assert (dead.is_complete, alive.is_complete) == (False, True)
        assert history.nights_of_run(dead.number) == {}
        assert len(history.nights_of_run(alive.number)) == 3


def test_runs_that_end_at_the_same_time_are_all_there(store):
    results = [night(finding("eoi")) for _ in range(8)]
    fork = multiprocessing.get_context("fork")
    children = [fork.Process(target=store.enter, args=(result,)) for result in results]
    for child in children:
        child.start()
    for child in children:
        child.join()

    with reading(store.path) as history:
        runs = history.runs()
        assert [child.exitcode for child in children] == [0] * 8
        assert all(run.is_complete for run in runs)
        assert len({run.number for run in runs}) == 8
        assert len(history.findings()) == 1


def test_run_that_is_entered_again_replaces_itself(store):
    result = night(finding("eoi"))
    store.enter(result)
    store.enter(result)

    with reading(store.path) as history:
        assert len(history.runs()) == 1
        assert len(history.case(ON).nights) == 1


# --- Files that cannot be used --------------------------------------------------------------------


def test_store_that_cannot_be_made_is_a_note_and_the_run_goes_on(tmp_path):
    (tmp_path / "file").write_text("")
    store = Nights(tmp_path / "file" / "store.sqlite")

    assert store.enter(night()) is None
    assert len(store.notes) == 2
    assert all("--store FILE" in note for note in store.notes)


def test_store_that_is_locked_is_a_note_and_the_run_can_be_entered_later(store, monkeypatch):
    monkeypatch.setattr(database, "BUSY_S", 0.05)
    store.enter(night())
    other = apsw.Connection(str(store.path))
    other.execute("BEGIN IMMEDIATE")

    result = night(finding("eoi"))
    assert store.enter(result) is None
    assert "is locked" in store.notes[-1]
    assert "history --add" in store.notes[-1]

    other.execute("ROLLBACK")
    other.close()
    assert store.enter(result) is not None


def test_store_of_a_newer_schema_is_a_message_and_stays_as_it_is(store):
    store.enter(night())
    with opened(store.path) as connection:
        connection.execute("PRAGMA user_version = 99")
    before = store.path.read_bytes()

    assert store.enter(night()) is None
    assert "has schema 99" in store.notes[-1]
    assert "update irqmatrix" in store.notes[-1]
    assert store.path.read_bytes() == before


def test_database_of_another_program_is_refused_and_stays_as_it_is(store):
    other = apsw.Connection(str(store.path))
    other.execute("CREATE TABLE theirs (x)")
    other.close()

    with pytest.raises(StoreError, match="is no store of irqmatrix"), opened(store.path):
        pass
    assert store.enter(night()) is None


def _truncated(data):
    return data[: len(data) // 2]


def _overwritten_head(data):
    return b"no database at all" + data[18:]


def _overwritten_pages(data):
    return data[:4096] + b"\xff" * (len(data) - 4096)


@pytest.mark.parametrize("damage", [_truncated, _overwritten_head, _overwritten_pages])
def test_damaged_store_is_kept_and_a_new_one_begins(store, damage):
    store.enter(night(finding("eoi")))
    damaged = damage(store.path.read_bytes())
    store.path.write_bytes(damaged)

    assert store.enter(night()) is not None

    assert store.path.with_name("store.sqlite.damaged-1").read_bytes() == damaged
    assert "is damaged" in store.notes[0]
    assert "damaged-1" in store.notes[0]
    with reading(store.path) as history:
        assert len(history.runs()) == 1


def test_damaged_store_that_is_only_read_is_a_message_and_stays(store):
    store.enter(night())
    damaged = _truncated(store.path.read_bytes())
    store.path.write_bytes(damaged)

    with pytest.raises(StoreDamaged, match=r"is damaged.*recover"):
        command.show_history(store.path, None, 10, json=False)
    assert store.path.read_bytes() == damaged


def test_missing_store_is_a_message(store):
    with pytest.raises(StoreError, match="no store in"):
        command.show_history(store.path, None, 10, json=False)


def test_older_store_is_upgraded_and_a_copy_is_kept(store, monkeypatch):
    store.enter(night())
    steps = (*migrations.MIGRATIONS, "ALTER TABLE run ADD COLUMN comment TEXT")
    monkeypatch.setattr(migrations, "MIGRATIONS", steps)
    monkeypatch.setattr(migrations, "SCHEMA", len(steps))

    with opened(store.path) as connection:
        assert connection.execute("SELECT comment FROM run").fetchall() == [(None,)]
    old = apsw.Connection(str(store.path.with_name("store.sqlite.schema-1")))
    assert old.execute("SELECT count(*) FROM case_result").get == 3
    old.close()


# --- Histories ------------------------------------------------------------------------------------


def test_case_has_its_verdict_since_the_first_of_the_runs_in_a_row(store):
    verdicts = [Verdict.PASS, Verdict.STORM, Verdict.PASS, Verdict.STORM, Verdict.STORM]
    for verdict in verdicts:
        store.enter(night(cases=[case("on", verdict, as_expected=verdict is Verdict.PASS)]))

    with reading(store.path) as history:
        found = history.case(ON)
        assert [each.verdict for each in found.nights] == [str(each) for each in verdicts]
        assert found.since.run == 4
        assert str(found.unexpected) == "3 of 5 runs"


def test_case_that_is_shown_in_part_says_since_when_by_all_of_its_runs(store, capsys):
    for verdict in (Verdict.STORM, Verdict.PASS, Verdict.PASS, Verdict.PASS):
        store.enter(night(cases=[case("on", verdict, as_expected=verdict is Verdict.PASS)]))

    command.show_history(store.path, ON, 1, json=True)
    document = json.loads(capsys.readouterr().out)
    command.show_history(store.path, ON, 1, json=False)
    text = capsys.readouterr().out

    assert ([each["run"] for each in document["nights"]], document["since"]["run"]) == ([4], 2)
    assert document["unexpected"] == {"seen": 1, "of": 4}
    assert "pass since run 2" in text
    assert "not as expected in 1 of 4 runs" in text


def test_overview_shows_the_runs_and_what_needs_attention(store, capsys):
    store.enter(night(finding("eoi", Status.BY_DESIGN, "a-rule")))
    store.enter(night(finding("eoi")))
    store.begin(night())

    command.show_history(store.path, None, 10, json=False)

    text = capsys.readouterr().out
    assert "incomplete" in text
    assert f"{EOI.key}  {EOI}: since run 2" in text
    command.show_history(store.path, EOI.key, 10, json=False)
    assert "seen in QEMU 7.2.22, Linux 6.1.170" in capsys.readouterr().out


def test_flaky_case_has_its_rate(store):
    flaky = case("on", first_time="hang: no answer")
    store.enter(night())
    store.enter(night(cases=[flaky]))

    found = store.enter(night(cases=[flaky]))

    assert [(each.case, str(each.rate)) for each in found.flaky_cases] == [(ON, "2 of 3 runs")]


def test_finding_has_a_night_for_each_run_that_could_have_seen_it(store):
    store.enter(night())
    store.enter(night(finding("eoi")))
    store.enter(night(cases=[case("on", Verdict.SKIP), case("split")]))
    store.enter(night(finding("eoi", Status.BY_DESIGN, "a-rule")))

    with reading(store.path) as history:
        found = history.finding(EOI)
        assert [each.was_seen for each in found.nights] == [False, True, None, True]
        assert [each.is_problem for each in found.nights] == [False, True, False, False]
        assert found.nights[-1].rule == "a-rule"
        assert found.versions == (BackendVersions("7.2.22", "6.1.170"),)
        assert str(found.rate) == "2 of 3 runs"
        assert history.finding_of(EOI.key[:6]) == EOI


def test_finding_without_one_of_its_backends_is_the_same_finding(store):
    store.enter(night(finding("eoi")))
    store.enter(night(finding("eoi", modes=("on", "split"))))

    with reading(store.path) as history:
        assert history.findings() == (EOI,)
        assert len(history.finding(EOI).nights) == 2


def test_unknown_case_or_finding_is_a_mistake_with_a_suggestion(store):
    store.enter(night())

    with pytest.raises(ConfigError, match=r"did you mean .*lab-kvm-on"):
        command.show_history(store.path, ON + "x", 10, json=False)


def test_history_of_a_name_like_none_does_not_list_all_of_them(store):
    store.enter(night())
    with pytest.raises(ConfigError) as caught:
        command.show_history(store.path, "nothing", 5, json=False)
    assert "irqmatrix history lists the runs" in str(caught.value)
    assert "lab-kvm" not in str(caught.value)


# --- Baselines ------------------------------------------------------------------------------------


def states(compared):
    return {change.identity.part: change.state for change in compared.changes}


def test_three_nights_new_then_gone(store):
    explained = finding("eoi", Status.BY_DESIGN, "eoi-rule")
    store.enter(night(explained))
    command.accept(store.path, "1", None)

    second = night(finding("eoi"))
    found = store.enter(second, "")
    assert states(found) == {"eoi": State.NEW}
    assert found.changes[0].since.run == 2
    assert exit_status(second, found) == 1

    third = night(explained)
    found = store.enter(third, "")
    assert states(found) == {"eoi": State.GONE}
    assert found.changes[0].reason == "eoi-rule explains it"
    assert exit_status(third, found) == 0


def test_problem_that_was_accepted_is_still_there_and_status_0(store):
    store.enter(night(finding("eoi")))
    command.accept(store.path, "1", "known")
    second = night(finding("eoi"), finding("poll"))

    found = store.enter(second, "known")

    assert states(found) == {"eoi": State.STILL, "poll": State.NEW}
    assert exit_status(second, found) == 1
    again = night(finding("eoi"))
    assert exit_status(again, store.enter(again, "known")) == 0


def test_problem_of_a_case_that_did_not_run_is_not_seen(store):
    store.enter(night(finding("eoi")))
    command.accept(store.path, "1", None)

    found = store.enter(night(cases=[case("on", Verdict.SKIP), case("split"), case("off")]), "")

    assert states(found) == {"eoi": State.NOT_SEEN}


def test_verdict_is_new_on_the_backend_that_it_is_new_on(store):
    storm = [case(mode, Verdict.STORM, as_expected=False) for mode in ("on", "off")]
    store.enter(night(cases=[storm[0], case("off")]))
    command.accept(store.path, "1", None)

    found = store.enter(night(cases=storm), "")

    assert {change.cases: change.state for change in found.changes} == {
        (ON,): State.STILL,
        (OFF,): State.NEW,
    }


def test_run_that_did_not_end_is_no_baseline(store):
    store.begin(night())

    with pytest.raises(ConfigError, match="did not end"):
        command.accept(store.path, "1", None)


def test_baseline_of_a_run_that_is_not_there_is_a_mistake(store):
    store.enter(night())

    with pytest.raises(ConfigError, match="no run '7'"):
        command.accept(store.path, "7", None)


def test_baseline_can_be_accepted_by_the_directory_of_its_run(store):
    store.enter(night(), directory=store.path.parent / "last")

    assert command.accept(store.path, str(store.path.parent / "last"), "x").run == 1


def test_counter_that_left_its_band_is_reported_with_the_band(store):
    def recorded(value):
        record = record_of(night(), store.path.parent, {})
        measured = (
            MeasuredValue(ON, "idle", "handled/cpu/ERR", "guest", value, 5.0),
            MeasuredValue(ON, "idle", "metric/elapsed_ms", "guest", value),
        )
        return replace(record, measured=measured)

    for value in (100, 101, 99, 100, 102, 150):
        record = recorded(value)
        with opened(store.path, create=True) as connection:
            number = writing.complete(connection, record, "x")
            found = compared(StoreReader(connection), number, record, None)

    (counter,) = found.counters
    assert (counter.name, counter.value, counter.band.median) == ("handled/cpu/ERR", 150, 100)
    assert counter.band.low <= 95 < 105 <= counter.band.high < 150
    with reading(store.path) as history:
        by_name = {each.name: each for each in history.counters(ON)}
        assert by_name["handled/cpu/ERR"].left_its_band
        assert by_name["metric/elapsed_ms"].band is None


# --- Pruning --------------------------------------------------------------------------------------


def test_pruning_removes_old_runs_but_baselines_and_when_findings_were_first_seen(store):
    old = {"started": "2020-01-01T00:00:00+0000"}
    store.enter(night(finding("poll"), **old))
    store.enter(night(finding("eoi"), **old))
    store.enter(night(finding("eoi"), started="2999-01-01T00:00:00+0000"))
    command.accept(store.path, "1", "kept")

    assert command.prune(store.path, 30) == (2,)

    with reading(store.path) as history:
        assert [run.number for run in history.runs()] == [1, 3]
        found = history.finding(EOI)
        assert found.first_seen.startswith("2020-01-01")
        assert [each.run for each in found.nights if each.was_seen] == [3]
