"""Whose a run's folder is, and what is in it when a run begins."""

import pytest

from harness.base.errors import StoreError
from harness.store.run_directory import run_directory

CASES = ("flat-ok_local-tcg",)


def left_by_a_run(out):
    """What a run, killed or not, leaves: the result, a case, the trace of another."""
    with run_directory(out, "first", CASES) as place:
        (place.path / "result.json").write_text("{}")
        case = place.path / "another_case"
        case.mkdir()
        (case / "case.json").write_text("{}")
        torn = place.path / CASES[0]
        torn.mkdir()
        (torn / "qemu.trace").write_text("of the first run\n")


def test_run_directory_that_a_run_is_in_is_refused_to_another(tmp_path):
    with (
        run_directory(tmp_path / "out", "first", CASES),
        pytest.raises(StoreError, match="another run is in it"),
        run_directory(tmp_path / "out", "second", CASES),
    ):
        pass


def test_run_directory_has_nothing_of_an_earlier_run_which_is_kept_aside(tmp_path):
    out = tmp_path / "out"
    left_by_a_run(out)
    with run_directory(out, "second", CASES) as place:
        assert {path.name for path in out.iterdir()} == {"run.lock", "earlier"}
        assert place.earlier == out / "earlier" / "1"
        assert (place.earlier / CASES[0] / "qemu.trace").read_text() == "of the first run\n"


def test_run_directory_keeps_each_earlier_run(tmp_path):
    out = tmp_path / "out"
    for _ in range(3):
        left_by_a_run(out)
    kept = sorted(path.name for path in (out / "earlier").iterdir())
    assert kept == ["1", "2"]
    assert all((out / "earlier" / name / "result.json").exists() for name in kept)


def test_run_directory_with_files_of_somebody_else_leaves_them_where_they_are(tmp_path):
    (tmp_path / "notes.txt").write_text("mine")
    (tmp_path / "photos").mkdir()
    with run_directory(tmp_path, "first", CASES) as place:
        assert place.earlier is None
    assert (tmp_path / "notes.txt").read_text() == "mine"
    assert (tmp_path / "photos").is_dir()


def test_run_directory_link_in_the_place_of_a_case_is_not_followed(tmp_path):
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    out = tmp_path / "out"
    out.mkdir()
    (out / CASES[0]).symlink_to(elsewhere)
    with run_directory(out, "first", CASES):
        assert not (out / CASES[0]).is_symlink()
    assert [*elsewhere.iterdir()] == []


def test_run_directory_below_a_file_is_an_error_that_names_it(tmp_path):
    (tmp_path / "file").touch()
    with (
        pytest.raises(StoreError, match="file"),
        run_directory(tmp_path / "file" / "out", "first", CASES),
    ):
        pass
