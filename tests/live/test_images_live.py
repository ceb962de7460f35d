"""The image cache against the real archive, and the lab that it builds.

Uses the user's own cache: what is there is not downloaded again.  What needs the network is
skipped where the archive cannot be asked.
"""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from harness.backends.lab import LAB_APPEND
from harness.base.errors import ImageError
from harness.images import ImageCache, KernelImage, QemuImage
from harness.images.cpio import File, write_cpio

pytestmark = [pytest.mark.live, pytest.mark.slow]

BOOT_TIMEOUT_S = 120


@pytest.fixture(scope="module")
def cache() -> ImageCache:
    return ImageCache()


def kernel_or_skip(cache: ImageCache, name: str) -> KernelImage:
    try:
        return cache.kernel(name)
    except ImageError as error:
        pytest.skip(f"not cached, and the archive cannot be asked: {error}")


def qemu_or_skip(cache: ImageCache, name: str) -> QemuImage:
    try:
        return cache.qemu(name)
    except ImageError as error:
        pytest.skip(f"not cached, and the archive cannot be asked: {error}")


@pytest.fixture(scope="module")
def kernel(cache: ImageCache) -> KernelImage:
    return kernel_or_skip(cache, "default")


@pytest.fixture(scope="module")
def foreign_qemu(cache: ImageCache) -> QemuImage:
    return qemu_or_skip(cache, "10.0")


def copied_entry(kernel: KernelImage, root: Path) -> Path:
    """The cache entry of ``kernel``, alone in another cache."""
    entry = next(path for path in kernel.vmlinuz.parents if (path / "manifest.json").exists())
    copy = root / "kernel" / entry.name
    shutil.copytree(entry, copy, symlinks=True)
    return copy


def test_default_kernel_has_modules_with_kvm(kernel: KernelImage) -> None:
    assert kernel.modules_dir is not None
    assert list(kernel.modules_dir.rglob("kvm-amd.ko*"))


def test_kernel_in_a_warm_cache_needs_no_network(cache: ImageCache, kernel: KernelImage) -> None:
    offline = ImageCache(cache.root, offline=True)

    assert offline.kernel("default") == kernel
    assert offline.kernel(kernel.version) == kernel


def test_kernel_that_was_truncated_offline_is_an_error(kernel: KernelImage, tmp_path: Path) -> None:
    entry = copied_entry(kernel, tmp_path)
    vmlinuz = entry / "tree" / kernel.vmlinuz.relative_to(kernel.vmlinuz.parents[1])
    vmlinuz.write_bytes(vmlinuz.read_bytes()[:1000])

    with pytest.raises(ImageError, match=f"no kernel '{kernel.version}' is available"):
        ImageCache(tmp_path, offline=True).kernel(kernel.version)


def test_kernel_that_was_truncated_is_fetched_again(kernel: KernelImage, tmp_path: Path) -> None:
    entry = copied_entry(kernel, tmp_path)
    vmlinuz = entry / "tree" / kernel.vmlinuz.relative_to(kernel.vmlinuz.parents[1])
    vmlinuz.write_bytes(vmlinuz.read_bytes()[:1000])

    again = kernel_or_skip(ImageCache(tmp_path), kernel.version)

    assert again.vmlinuz.read_bytes() == kernel.vmlinuz.read_bytes()


def test_available_has_kernels_and_qemus_of_more_than_one_series(cache: ImageCache) -> None:
    try:
        offers = cache.available()
    except ImageError as error:
        pytest.skip(f"the archive cannot be asked: {error}")

    assert {offer.kind for offer in offers} == {"kernel", "qemu"}
    assert len({offer.version.rsplit(".", 1)[0] for offer in offers if offer.kind == "kernel"}) > 1
    assert len({offer.suite for offer in offers}) > 1


def test_kernel_in_several_packages_is_whole(cache: ImageCache) -> None:
    """Linux 7 has virtio_pci built in; that is known from a package of its own."""
    kernel = kernel_or_skip(cache, "7")
    assert kernel.modules_dir is not None

    assert "virtio_pci.ko" in (kernel.modules_dir / "modules.builtin").read_text()
    assert cache.linux_initrd(kernel).is_file()


def test_foreign_qemu_runs_with_its_own_libraries_and_firmware(foreign_qemu: QemuImage) -> None:
    said = subprocess.run(
        [*foreign_qemu.launcher, "-L", "help"], capture_output=True, text=True, check=True
    ).stdout
    libraries = {path for path, inside in foreign_qemu.files if ".so" in inside}

    assert foreign_qemu.version[:2] == (10, 0)
    assert str(foreign_qemu.launcher[0]).removesuffix("/ld.so") in said
    assert all("/qemu/" in str(path) for path in libraries)
    assert any(path.name == "libc.so.6" for path in libraries)


def test_foreign_qemu_boots_what_the_bios_finds_nothing_in(foreign_qemu: QemuImage) -> None:
    """SeaBIOS, VGA BIOS and loader code of its own tree: it gets as far as having no kernel."""
    ended = subprocess.run(
        [
            *foreign_qemu.launcher,
            *("-M", "q35,accel=tcg", "-nodefaults", "-display", "none", "-m", "64"),
            *("-device", "VGA", "-device", "isa-debugcon,iobase=0x402,chardev=bios"),
            *("-chardev", "stdio,id=bios,mux=off", "-boot", "reboot-timeout=1", "-no-reboot"),
        ],
        capture_output=True,
        text=True,
        timeout=BOOT_TIMEOUT_S,
        stdin=subprocess.DEVNULL,
        check=True,
    )

    assert "SeaBIOS" in ended.stdout
    assert "No bootable device" in ended.stdout


@pytest.mark.lab
@pytest.mark.parametrize(
    ("kernel_name", "qemu_name"), [("default", "system"), ("6.12", "10.0")], ids=["own", "newer"]
)
def test_lab_boots_has_kvm_and_its_qemu_runs_under_it(
    cache: ImageCache, kernel_name: str, qemu_name: str, tmp_path: Path
) -> None:
    kernel = kernel_or_skip(cache, kernel_name)
    qemu = qemu_or_skip(cache, qemu_name)
    initrd = cache.lab_initrd(kernel, qemu)
    script = tmp_path / "run"
    script.write_text(
        "[ -c /dev/kvm ] && echo has-kvm\n"
        f"{qemu.lab_binary} -L {qemu.lab_data_dirs[0]} --version\n"
        f"{qemu.lab_binary} -L {qemu.lab_data_dirs[0]} -M q35,accel=kvm -nodefaults"
        " -display none -m 64 -no-reboot -boot reboot-timeout=1"
        " -chardev stdio,id=bios -device isa-debugcon,iobase=0x402,chardev=bios </dev/null\n"
    )

    said = subprocess.run(
        [
            *cache.qemu("system").launcher,
            *("-M", "q35,accel=tcg", "-cpu", "EPYC,+svm,+npt", "-m", "2048", "-no-reboot"),
            *("-nodefaults", "-display", "none", "-serial", "stdio"),
            *("-kernel", str(kernel.vmlinuz), "-initrd", str(initrd)),
            *("-append", LAB_APPEND),
            *("-fw_cfg", f"name=opt/irqmatrix/run,file={script}"),
        ],
        capture_output=True,
        text=True,
        timeout=BOOT_TIMEOUT_S,
        stdin=subprocess.DEVNULL,
        check=True,
    ).stdout

    assert "has-kvm" in said
    assert f"version {'.'.join(map(str, qemu.version))}" in said
    assert "No bootable device" in said


def test_initrd_is_accepted_by_the_kernel_as_an_archive(
    cache: ImageCache, kernel: KernelImage, tmp_path: Path
) -> None:
    """A tree of one file: the kernel finds and runs it, and its death is the kernel's panic."""
    initrd = tmp_path / "initrd"
    with initrd.open("wb") as out:
        write_cpio({"/init": File(b"\x7fELF and then nothing", 0o755)}, out)

    said = subprocess.run(
        [
            *cache.qemu("system").launcher,
            *("-M", "q35,accel=tcg", "-m", "256", "-no-reboot", "-nodefaults"),
            *("-display", "none", "-serial", "stdio"),
            *("-kernel", str(kernel.vmlinuz), "-initrd", str(initrd)),
            *("-append", "console=ttyS0 panic=-1"),
        ],
        capture_output=True,
        text=True,
        timeout=BOOT_TIMEOUT_S,
        stdin=subprocess.DEVNULL,
        check=True,
    ).stdout

    assert "Failed to execute /init (error -8)" in said
