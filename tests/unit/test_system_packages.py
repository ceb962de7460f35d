"""What ``.ci/system-packages`` finds missing, on machines made of a folder and a PATH."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path
from typing import NamedTuple

import pytest

REPOSITORY = Path(__file__).parents[2]
SCRIPT = REPOSITORY / ".ci" / "system-packages"


class Row(NamedTuple):
    package: str
    kind: str
    what: str
    reason: str


TABLE = SCRIPT.read_text().partition("<<'END'\n")[2].partition("\nEND\n")[0]
ROWS = [Row(*line.split(maxsplit=3)) for line in TABLE.splitlines()]


def check(root: Path, *options: str) -> subprocess.CompletedProcess[str]:
    """Ask for what is missing on the machine ``root``, whose programs are in its bin."""
    return subprocess.run(
        ["/bin/sh", SCRIPT, *options, "--check"],
        env={"PATH": str(root / "bin"), "ROOT": str(root), "PYTHON": str(root / "bin" / "python3")},
        capture_output=True,
        text=True,
    )


def add(path: Path, content: str = "#!/bin/sh\n") -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content)
    path.chmod(0o755)


def compile_program(path: Path, *options: str) -> None:
    """In the place of busybox, which is static or is not."""
    path.unlink(missing_ok=True)
    path.parent.mkdir(parents=True, exist_ok=True)
    command = ["gcc", *options, "-x", "c", "-", "-o", str(path)]
    subprocess.run(command, input="int main(void) { return 0; }", text=True, check=True)


@pytest.fixture
def complete(tmp_path: Path) -> Path:
    """A machine that has what every row asks for."""
    for row in ROWS:
        if row.kind == "program":
            add(tmp_path / "bin" / row.what)
        elif row.kind == "file":
            add(tmp_path / row.what.lstrip("/"))
        elif row.kind == "static":
            compile_program(tmp_path / row.what.lstrip("/"), "-static")
    add(tmp_path / "bin" / "python3")
    (tmp_path / "bin" / "ldd").symlink_to(shutil.which("ldd") or "/usr/bin/ldd")
    return tmp_path


def remove(root: Path, row: Row) -> None:
    """Take away what the row asks for."""
    if row.kind == "python":
        add(root / "bin" / "python3", "#!/bin/sh\nexit 1\n")
    elif row.kind == "program":
        (root / "bin" / row.what).unlink()
    else:
        (root / row.what.lstrip("/")).unlink()


def test_check_with_nothing_installed_reports_every_package(tmp_path: Path) -> None:
    done = check(tmp_path)
    assert done.stdout.splitlines() == [f"missing: {row.package} ({row.reason})" for row in ROWS]
    assert done.returncode == 1


def test_check_with_everything_installed_reports_nothing(complete: Path) -> None:
    done = check(complete)
    assert (done.stdout, done.stderr, done.returncode) == ("", "", 0)


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.package)
def test_check_with_one_package_missing_reports_that_alone(complete: Path, row: Row) -> None:
    remove(complete, row)
    done = check(complete)
    assert done.stdout == f"missing: {row.package} ({row.reason})\n"
    assert done.returncode == 1


def test_check_for_the_tests_reports_the_browser_too(complete: Path) -> None:
    done = check(complete, "--tests")
    assert [line.split()[1] for line in done.stdout.splitlines()] == ["chromium", "chromium-driver"]
    assert done.returncode == 1


def test_check_for_the_tests_with_everything_installed_reports_nothing(complete: Path) -> None:
    for name in ("chromium", "chromedriver"):
        add(complete / "bin" / name)
    done = check(complete, "--tests")
    assert (done.stdout, done.stderr, done.returncode) == ("", "", 0)


def test_check_of_a_busybox_that_needs_a_loader_reports_the_static_one(complete: Path) -> None:
    compile_program(complete / "bin" / "busybox")
    assert check(complete).stdout.startswith("missing: busybox-static ")


def test_readme_names_the_packages_that_the_command_needs() -> None:
    readme = " ".join((REPOSITORY / "README.md").read_text().split())
    sentence = readme.partition("from any directory. It needs ")[2].partition(";")[0]
    for_make_alone = {"python3-venv", "debian-archive-keyring", "debootstrap"}
    assert set(sentence.split("`")[1::2]) == {row.package for row in ROWS} - for_make_alone
