"""The command coverage: what it prints and writes."""

import json

import pytest

from harness.base.errors import ConfigError
from harness.commands import coverage
from harness.commands.coverage import CoverageOptions
from support.covered import TABLE, executed, run_in, tables


@pytest.fixture
def ran(tmp_path):
    """A run's folder."""
    return run_in(tmp_path / "run", executed(0, 4), floor=executed(0))


def test_command_prints_the_table(ran, capsys):
    coverage.run(CoverageOptions([ran]), tables)

    assert "arch/x86/kvm/lapic.c" in capsys.readouterr().out


def test_command_prints_json(ran, capsys):
    coverage.run(CoverageOptions([ran], json=True), tables)

    (found,) = json.loads(capsys.readouterr().out)
    assert found["files"]["all"]["lines"]["reached"] == 2


def test_command_writes_a_tracefile_and_pages_with_the_source(ran, tmp_path, capsys):
    for file in TABLE.files:
        (tmp_path / "linux" / file).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "linux" / file).write_text("a line of it\n" * 30)
    places = {"lcov": tmp_path / "info", "html": tmp_path / "a" / "pages"}

    coverage.run(CoverageOptions([ran], source=tmp_path / "linux", **places), tables)

    assert f"SF:{tmp_path / 'linux' / TABLE.files[0]}" in places["lcov"].read_text()
    assert "a line of it" in (places["html"] / "6.1.192-3-lapic.c.html").read_text()
    assert (places["html"] / "index.html").is_file()


def test_command_with_the_source_of_something_else_is_an_error(ran, tmp_path):
    with pytest.raises(ConfigError, match="--source"):
        coverage.run(CoverageOptions([ran], html=tmp_path / "p", source=tmp_path), tables)
