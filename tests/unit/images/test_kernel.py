from __future__ import annotations

from pathlib import Path

import pytest

from harness.base.errors import ImageError
from harness.images.kernel import inspect_kernel, kernel_build, unpacked_kernel
from harness.images.model import Build
from support.kernel_files import RELEASE, bzimage, elf_with_build_id, write_kernel


def test_kernel_of_debian_has_the_version_it_was_built_from(tmp_path: Path) -> None:
    vmlinuz = write_kernel(tmp_path, {})

    assert inspect_kernel("x", vmlinuz, None, "here").version == "6.1.192"


def test_kernel_of_ones_own_has_its_release_as_version(tmp_path: Path) -> None:
    vmlinuz = tmp_path / "bzImage"
    vmlinuz.write_bytes(bzimage("6.18.0-rc3+ (me@here) #7 SMP"))

    image = inspect_kernel("x", vmlinuz, None, "here")

    assert image.version == "6.18.0"
    assert image.modules_dir is None


def test_kernel_finds_its_modules_beside_it(tmp_path: Path) -> None:
    vmlinuz = write_kernel(tmp_path, {})

    image = inspect_kernel("x", vmlinuz, None, "here")

    assert image.modules_dir == tmp_path / "lib" / "modules" / RELEASE


def test_kernel_beside_its_modules_finds_them(tmp_path: Path) -> None:
    folder = tmp_path / "usr" / "lib" / "modules" / RELEASE
    (folder / "kernel").mkdir(parents=True)
    (folder / "vmlinuz").write_bytes(bzimage())
    (folder / "modules.builtin").write_text("")

    assert unpacked_kernel("x", tmp_path, "here").modules_dir == folder


def test_kernel_below_a_symbolic_link_finds_its_modules_below_it_too(tmp_path: Path) -> None:
    write_kernel(tmp_path / "real", {})
    (tmp_path / "link").symlink_to("real")

    image = unpacked_kernel("x", tmp_path / "link", "here")

    assert image.modules_dir == tmp_path / "link" / "lib" / "modules" / RELEASE


def test_kernel_with_modules_that_are_not_there_is_an_error(tmp_path: Path) -> None:
    vmlinuz = write_kernel(tmp_path, {})

    with pytest.raises(ImageError, match=rf"no kernel modules at .*lib/modules/{RELEASE}"):
        inspect_kernel("x", vmlinuz, tmp_path / "gone", "here")


def test_kernel_that_is_no_bzimage_is_an_error(tmp_path: Path) -> None:
    path = tmp_path / "vmlinux"
    path.write_bytes(b"\x7fELF" + bytes(4096))

    with pytest.raises(ImageError, match=r"is not a kernel: a bzImage has 'HdrS'.*not a vmlinux"):
        inspect_kernel("x", path, None, "here")


def test_kernel_that_is_cut_off_is_an_error(tmp_path: Path) -> None:
    path = tmp_path / "vmlinuz"
    path.write_bytes(bzimage()[:0x300])

    with pytest.raises(ImageError, match="does not contain its version"):
        inspect_kernel("x", path, None, "here")


def test_kernel_that_is_missing_is_an_error_that_names_it(tmp_path: Path) -> None:
    with pytest.raises(ImageError, match=r"cannot read the kernel .*gone: No such file"):
        inspect_kernel("x", tmp_path / "gone", None, "here")


def test_package_without_a_kernel_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ImageError, match="holds 0 kernels, not one"):
        unpacked_kernel("x", tmp_path, "here")


def test_package_without_a_list_of_what_is_built_in_is_an_error(tmp_path: Path) -> None:
    write_kernel(tmp_path, {})
    (tmp_path / "lib" / "modules" / RELEASE / "modules.builtin").unlink()

    with pytest.raises(ImageError, match=r"is incomplete: it has no modules\.builtin"):
        unpacked_kernel("x", tmp_path, "here")


def test_build_of_a_package_is_its_full_version_and_the_build_id_of_kvm(tmp_path: Path) -> None:
    vmlinuz = write_kernel(tmp_path, {"kvm-amd.ko": "kvm"})
    modules = tmp_path / "lib" / "modules" / RELEASE / "kernel"
    (modules / "kvm.ko").write_bytes(elf_with_build_id(b"\x12\x34"))

    build = kernel_build(inspect_kernel("x", vmlinuz, None, "here"))

    assert build == Build("6.1.192-2", "1234")


def test_build_of_ones_own_is_its_banner(tmp_path: Path) -> None:
    vmlinuz = tmp_path / "bzImage"
    vmlinuz.write_bytes(bzimage("6.18.0-rc3+ (me@here) #7 SMP"))

    build = kernel_build(inspect_kernel("x", vmlinuz, None, "here"))

    assert build == Build("6.18.0-rc3+ (me@here) #7 SMP", None)
