"""The reports' seam: one more form, and `irqmatrix report` has an option that writes it."""

import typer
from typer.testing import CliRunner

from harness import cli
from harness.report.formats import FORMATS, Format
from harness.store import result
from support import runs


def toy(view):
    checks = sum(len(group.checks) for group in view.checks)
    return f"{view.run.name}: {len(view.run.cases)} cases, {checks} checks\n"


def test_form_that_is_put_into_the_table_is_an_option_of_report(tmp_path, monkeypatch):
    monkeypatch.setitem(FORMATS, "toy", Format("a toy", toy))
    result.write(runs.EVERYTHING, tmp_path / "result.json")
    app = typer.Typer()
    app.command()(cli.with_formats(cli.report.__wrapped__))

    done = CliRunner().invoke(app, [str(tmp_path), "--toy", str(tmp_path / "toy.txt")])

    assert done.exit_code == 0, done.output
    (line,) = (tmp_path / "toy.txt").read_text().splitlines()
    assert line.startswith(f"{runs.EVERYTHING.name}: {len(runs.EVERYTHING.cases)} cases, ")
    assert not line.endswith(" 0 checks")


def test_forms_are_shown_in_the_help_of_report():
    done = CliRunner().invoke(cli.app, ["report", "--help"])
    assert "Also write JUnit XML to FILE." in done.output
    assert "Also write TAP 14 to FILE." in done.output
