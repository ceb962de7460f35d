from __future__ import annotations

import sys
from pathlib import Path

import pytest

from harness.base.errors import ImageError
from harness.images.elf import build_id, interpreter, libraries, modinfo
from support.kernel_files import elf_with_build_id, module

PYTHON = Path(sys.executable).resolve()


def test_interpreter_of_a_dynamic_program_is_its_loader() -> None:
    loader = interpreter(PYTHON)

    assert loader is not None
    assert Path(loader).name == "ld-linux-x86-64.so.2"


def test_interpreter_of_a_text_is_an_error(tmp_path: Path) -> None:
    path = tmp_path / "text"
    path.write_text("#!/bin/sh\n")

    with pytest.raises(ImageError, match=f"cannot read {path} as an ELF file"):
        interpreter(path)


def test_libraries_of_a_program_are_files_and_have_the_c_library() -> None:
    found = libraries((str(interpreter(PYTHON)),), PYTHON)

    assert "libc.so.6" in found
    assert all(path.is_file() for path in found.values())


def test_libraries_of_a_text_are_an_error(tmp_path: Path) -> None:
    path = tmp_path / "text"
    path.write_text("no program")

    with pytest.raises(ImageError, match=f"{path} lacks libraries"):
        libraries((str(interpreter(PYTHON)),), path)


def test_modinfo_has_the_dependencies() -> None:
    assert modinfo(module("kvm_amd", "kvm,ccp"))["depends"] == "kvm,ccp"


def test_modinfo_of_what_is_no_module_is_an_error() -> None:
    with pytest.raises(ImageError, match="cannot read a kernel module"):
        modinfo(b"nothing of the kind")


def test_build_id_is_that_of_the_linkers_note() -> None:
    assert build_id(elf_with_build_id(bytes.fromhex("78fb9d15"))) == "78fb9d15"


@pytest.mark.parametrize("content", [module("kvm"), b"#!/bin/sh\n"], ids=["no note", "no ELF"])
def test_build_id_of_what_has_none_is_none(content: bytes) -> None:
    assert build_id(content) is None
