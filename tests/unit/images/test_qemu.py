from __future__ import annotations

from pathlib import Path

import pytest

from harness.base.errors import ImageError
from harness.images.model import Build, QemuImage
from harness.images.qemu import inspect_qemu, qemu_build, qemu_version


def script(path: Path, text: str) -> Path:
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)
    return path


def test_version_is_what_the_binary_says(tmp_path: Path) -> None:
    qemu = script(tmp_path / "qemu", "echo 'QEMU emulator version 10.0.2 (Debian 1:10.0.2+ds-2)'")

    assert qemu_version((str(qemu),)) == (10, 0, 2)


def test_version_of_another_program_is_an_error(tmp_path: Path) -> None:
    other = script(tmp_path / "other", "echo other 1.0")

    with pytest.raises(ImageError, match=r"other is not a QEMU: --version says 'other 1\.0"):
        qemu_version((str(other),))


def test_qemu_that_fails_is_an_error_with_its_words(tmp_path: Path) -> None:
    broken = script(tmp_path / "broken", "echo 'cannot open shared object' >&2; exit 127")

    with pytest.raises(ImageError, match="broken does not run: cannot open shared object"):
        inspect_qemu("broken", broken, "here")


def test_qemu_that_is_missing_is_an_error_that_names_it(tmp_path: Path) -> None:
    with pytest.raises(ImageError, match=r"gone does not run: .*No such file"):
        inspect_qemu("gone", tmp_path / "gone", "here")


@pytest.mark.parametrize(
    ("version", "package"),
    [
        ("10.0.2 (Debian 1:10.0.2+ds-2+deb13u1~bpo12+1)", "1:10.0.2+ds-2+deb13u1~bpo12+1"),
        ("10.2.50 (v10.1.0-1234-gabcdef)", "v10.1.0-1234-gabcdef"),
        ("10.1.0", "10.1.0"),
    ],
)
def test_build_is_the_package_or_the_commit(tmp_path: Path, version: str, package: str) -> None:
    binary = script(tmp_path / "qemu", f"echo 'QEMU emulator version {version}'; echo Copyright")
    image = QemuImage("q", (10, 0), binary, (str(binary),), (), (), "here")

    assert qemu_build(image) == Build(package, None)
