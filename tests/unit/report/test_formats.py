"""The reports' seam: one more form, and `irqmatrix report` has an option that writes it."""

import shutil
from dataclasses import replace

import pytest
import typer
from typer.testing import CliRunner

from harness import cli
from harness.base.errors import CollectError
from harness.report import files
from harness.report.formats import FORMATS, Format
from harness.report.run_view import FEW
from harness.store import result
from support import runs
from support.judging import run_of
from support.showing import shown_run


def toy(view):
    """The tables of a run in Markdown, its findings and how it ended."""
    lines = [f"# {view.run.name}", view.conclusion]
    for subject in view.subjects:
        table = subject.table.part(range(subject.table.size))
        lines.append(f"## {subject.subject}")
        names = [column.name for column in table.columns]
        rows = [[cell.text for cell in row] for row in table.rows]
        lines += ("| " + " | ".join(row) + " |" for row in (names, *rows))
    lines += (finding.headline for finding in view.findings)
    lines.append(f"{sum(len(group.checks) for group in view.checks)} checks")
    return "\n".join(lines) + "\n"


def test_form_that_is_put_into_the_table_is_an_option_of_report(tmp_path, monkeypatch):
    monkeypatch.setitem(FORMATS, "toy", Format("a toy", toy))
    result.write(run_of(tmp_path), tmp_path / "result.json")
    app = typer.Typer()
    app.command()(cli.with_formats(cli.report.__wrapped__))

    done = CliRunner().invoke(app, [str(tmp_path), "--toy", str(tmp_path / "toy.txt")])

    assert done.exit_code == 0, done.output
    lines = (tmp_path / "toy.txt").read_text().splitlines()
    assert lines[:2] == ["# nightly", "2 cases, all as expected"]
    (row,) = [line for line in lines if line.startswith("|   ioapic 20:virtio0 [guest] |")]
    assert row.split("|")[2:4] == [" 200 ", " 150 "]
    assert lines[-1] == "8 checks"


@pytest.mark.parametrize("name", [*FORMATS, "toy"])
def test_form_is_made_of_the_view_alone(tmp_path, monkeypatch, name):
    monkeypatch.setitem(FORMATS, "toy", Format("a toy", toy))
    directory = tmp_path / "run"
    directory.mkdir()
    view = files.view_of(run_of(directory), directory)
    before = FORMATS[name].render(view)

    shutil.rmtree(directory)

    assert FORMATS[name].render(view) == before


def test_forms_are_shown_in_the_help_of_report():
    done = CliRunner().invoke(cli.app, ["report", "--help"])
    assert "Also write JUnit XML to FILE." in done.output
    assert "Also write TAP 14 to FILE." in done.output


def test_view_of_a_run_reads_no_repeat_unless_asked(tmp_path):
    run = run_of(tmp_path)
    again = replace(run.cases[0], id="again", axes={**run.cases[0].axes, "repeat": 1}, dir="again")
    repeated = run.with_cases((*run.cases, again))
    (tmp_path / "again").mkdir()
    (tmp_path / "again" / "ledger.json").write_text("no ledger")

    assert "200" in shown_run(repeated, tmp_path)
    with pytest.raises(CollectError, match="again"):
        files.view_of(repeated, tmp_path, repeats=True)


def test_view_of_a_run_of_many_cases_reads_only_what_its_tables_show(tmp_path):
    many = [replace(runs.GOOD, id=str(number), dir=str(number)) for number in range(FEW + 1)]
    (tmp_path / "0").mkdir()
    (tmp_path / "0" / "ledger.json").write_text("no ledger")

    (subject,) = files.view_of(runs.run_of(*many), tmp_path).subjects

    assert subject.table is None
    with pytest.raises(CollectError):
        files.view_of(runs.run_of(*many), tmp_path, verbose=True)


def test_ledgers_of_a_run_has_an_error_for_one_that_cannot_be_read(tmp_path):
    run = runs.run_of(runs.GOOD, replace(runs.GOOD, id="none", dir="none"))
    (tmp_path / runs.GOOD.dir).mkdir()
    (tmp_path / runs.GOOD.dir / "ledger.json").write_text("no ledger")

    (found,) = files.ledgers_of(run, tmp_path).items()

    assert found[0] == runs.GOOD.id
    assert isinstance(found[1], CollectError)
