from __future__ import annotations

import gzip
import shutil
from pathlib import Path

import pytest

from harness.base import resources
from harness.base.errors import ImageError
from harness.images import ImageCache, KernelImage, dwarf, elf
from harness.images.cache import default_root
from harness.images.helper import compiler
from harness.images.rootfs import BUSYBOX
from support import debug_module
from support.kernel_files import bzimage, vmlinux, write_kernel

needs_busybox = pytest.mark.skipif(not BUSYBOX.exists(), reason="busybox-static is not installed")

MODULES = {"virtio_pci.ko": "", "virtio_blk.ko": ""}


@pytest.fixture
def cache(tmp_path: Path) -> ImageCache:
    return ImageCache(tmp_path / "cache", offline=True)


@pytest.fixture
def kernel(cache: ImageCache, tmp_path: Path) -> KernelImage:
    return cache.kernel(str(write_kernel(tmp_path / "kernel", MODULES)))


@pytest.fixture
def sources(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the guests' sources that a test may change."""
    copy = tmp_path / "images"
    shutil.copytree(resources.images(), copy)
    monkeypatch.setattr(resources, "images", lambda: copy)
    return copy


def test_default_root_follows_the_xdg_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", "/somewhere")

    assert default_root() == Path("/somewhere/irqmatrix")


def test_default_root_without_the_variable_is_below_home(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setenv("HOME", "/home/somebody")

    assert default_root() == Path("/home/somebody/.cache/irqmatrix")


def test_kernel_by_path_is_not_cached(kernel: KernelImage, cache: ImageCache) -> None:
    assert kernel.version == "6.1.192"
    assert not cache.root.exists()


def test_kernel_by_path_with_its_modules_has_them(cache: ImageCache, tmp_path: Path) -> None:
    vmlinuz = write_kernel(tmp_path / "kernel", MODULES)
    (tmp_path / "modules").mkdir()

    assert cache.kernel(f"{vmlinuz}:{tmp_path}/modules").modules_dir == tmp_path / "modules"


def test_kernel_that_is_not_cached_is_an_error_offline(cache: ImageCache) -> None:
    with pytest.raises(ImageError, match=r"no kernel '6\.12' is available: in the cache: none"):
        cache.kernel("6.12")


def test_qemu_that_the_system_lacks_is_an_error_that_says_what_to_install(
    cache: ImageCache, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", "/nowhere")

    with pytest.raises(ImageError, match=r"no qemu-system-x86_64 in PATH \(install the package"):
        cache.qemu("system")


@needs_busybox
def test_initrd_is_made_once(cache: ImageCache, kernel: KernelImage) -> None:
    first = cache.linux_initrd(kernel)
    made_ns = first.stat().st_mtime_ns

    again = cache.linux_initrd(kernel)

    assert again == first
    assert again.stat().st_mtime_ns == made_ns


@needs_busybox
def test_initrd_from_the_same_inputs_has_the_same_bytes(
    cache: ImageCache, kernel: KernelImage, tmp_path: Path
) -> None:
    other = ImageCache(tmp_path / "other", offline=True)

    assert cache.linux_initrd(kernel).read_bytes() == other.linux_initrd(kernel).read_bytes()


@needs_busybox
def test_initrd_is_made_anew_when_a_source_changes(
    cache: ImageCache, kernel: KernelImage, sources: Path
) -> None:
    before = cache.linux_initrd(kernel)

    (sources / "linux" / "workloads" / "new").write_text("work() { :; }\n")

    after = cache.linux_initrd(kernel)
    assert after != before
    assert b"workloads/new\0" in after.read_bytes()


@needs_busybox
def test_initrd_that_was_truncated_is_made_again(cache: ImageCache, kernel: KernelImage) -> None:
    initrd = cache.linux_initrd(kernel)
    whole = initrd.read_bytes()

    initrd.write_bytes(whole[:1000])

    assert cache.linux_initrd(kernel).read_bytes() == whole


@needs_busybox
def packaged(cache: ImageCache) -> KernelImage:
    """A kernel of the cache, which can be unpacked."""
    vmlinuz = cache.root / "kernel" / "vmlinuz"
    vmlinuz.parent.mkdir(parents=True)
    vmlinuz.write_bytes(bzimage(payload=gzip.compress(vmlinux())))
    return KernelImage("7.3", "7.3.4", vmlinuz, None, "trixie")


def test_lab_kernel_is_unpacked_once(cache: ImageCache) -> None:
    kernel = packaged(cache)

    first = cache.lab_kernel(kernel)

    assert first.read_bytes() == vmlinux()
    assert cache.lab_kernel(kernel) == first
    assert [info.kind for info in cache.list() if info.intact] == ["vmlinux"]


def test_lab_kernel_in_a_cache_that_cannot_be_written_stays_packed(cache: ImageCache) -> None:
    kernel = packaged(cache)
    (cache.root / "lock").mkdir()

    assert cache.lab_kernel(kernel) == kernel.vmlinuz


def test_lab_kernel_of_ones_own_stays_packed(kernel: KernelImage, cache: ImageCache) -> None:
    kernel.vmlinuz.write_bytes(bzimage(payload=gzip.compress(vmlinux())))

    assert cache.lab_kernel(kernel) == kernel.vmlinuz


def test_list_tells_the_intact_from_the_damaged(cache: ImageCache, kernel: KernelImage) -> None:
    initrd = cache.linux_initrd(kernel)
    (whole,) = cache.list()

    initrd.write_bytes(b"damaged")

    (damaged,) = cache.list()
    assert (whole.kind, whole.intact, damaged.intact) == ("initrd", True, False)
    assert whole.version == "6.1.192"
    assert whole.size_bytes > 1_000_000


def test_list_shows_a_folder_without_a_manifest_as_damaged(cache: ImageCache) -> None:
    (cache.root / "kernel" / "half").mkdir(parents=True)

    (info,) = cache.list()

    assert (info.name, info.intact) == ("half", False)


@pytest.fixture
def debuggable(tmp_path: Path) -> tuple[str, str]:
    """A kernel whose module kvm has debug information: its name, and the module's build ID."""
    if compiler() is None:
        pytest.skip("there is no C compiler")
    folder = tmp_path / "source"
    folder.mkdir()
    module = debug_module.build(folder, {"arch/x86/kvm/lapic.c": "int lapic(void) { return 1; }\n"})
    vmlinuz = write_kernel(tmp_path / "kernel", {"kvm.ko": ""})
    for path in (tmp_path / "kernel").rglob("kvm.ko"):
        path.write_bytes(module)
    return str(vmlinuz), elf.build_id(module) or ""


def test_line_table_of_a_module_with_debug_information_needs_no_archive(
    cache: ImageCache, debuggable: tuple[str, str]
) -> None:
    table = cache.line_table(*debuggable)

    assert [function.name for function in table.functions] == ["lapic"]
    assert (table.kernel, table.build_id) == debuggable


def test_line_table_is_made_once(
    cache: ImageCache, debuggable: tuple[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    made = cache.line_table(*debuggable)
    monkeypatch.setattr(dwarf, "line_table", None)

    assert cache.line_table(*debuggable).lines == made.lines


def test_line_table_of_another_build_than_the_kernel_is_an_error(
    cache: ImageCache, debuggable: tuple[str, str]
) -> None:
    with pytest.raises(ImageError, match="not the one that was recorded"):
        cache.line_table(debuggable[0], "00ff")


def test_line_table_without_debug_information_and_network_is_an_error(
    cache: ImageCache, debuggable: tuple[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dwarf, "has_lines", lambda module: False)

    with pytest.raises(ImageError):
        cache.line_table(*debuggable)
