import io
import subprocess
import tarfile
from pathlib import Path

import pytest
import zstandard

from harness.base.errors import StoreError
from harness.images.model import KernelImage, QemuImage
from harness.report import bundle
from harness.repro import catalogue, reproduce
from support import multiboot
from support.repro_entries import ENTRY, case_result, run_result, write_case, write_entry

FLAT = 'kind: flat, path: "small.flat"'

SCENARIO = """
version: 1
scenarios:
  mine: {about: a request, steps: [{ipi: {vector: 0x51, shorthand: self}}]}
"""


class Cache:
    """Images that nobody boots."""

    def __init__(self, probe=None):
        self.probe = lambda: probe

    def qemu(self, name):
        return QemuImage(name, (10, 0, 2), Path("/q"), ("/q",), (), (), "trixie")

    lab_qemu = qemu

    def kernel(self, name):
        return KernelImage(name, "6.1.192", Path("/cache/vmlinuz-6.1.0"), None, "bookworm")

    def lab_initrd(self, kernel, qemu):
        return Path("/cache/lab.cpio")

    def lab_kernel(self, kernel):
        return kernel.vmlinuz

    def linux_initrd(self, kernel):
        return Path("/cache/initrd.cpio")


ENVIRONMENT = {
    "kernel": "6.18.0",
    "qemu": {"10.0": "10.0.2"},
    "lab_kernel": {"6.12": "6.12.117"},
    "builds": {"qemu": {"10.0": {"package": "1:10.0.2+ds-2", "build_id": "0fbbd5ca"}}},
}


def reproduction(tmp_path, text=ENTRY, environment=ENVIRONMENT):
    entry = catalogue.load(write_entry(tmp_path, text))
    directory = tmp_path / "run"
    results = []
    for case in entry.config().cases:
        write_case(directory, case, 1000 if "-on" in case.backend.name else 0)
        results.append(case_result(case))
    result = run_result(*results, environment=environment)
    assessment = reproduce.assess(entry, result, directory)
    return reproduce.Reproduction(entry, entry.config(), result, directory, assessment)


def unpacked(path: Path, folder: Path) -> Path:
    data = zstandard.ZstdDecompressor().stream_reader(io.BytesIO(path.read_bytes())).read()
    with tarfile.open(fileobj=io.BytesIO(data)) as tar:
        assert {(info.uid, info.uname) for info in tar} == {(0, "")}
        tar.extractall(folder, filter="data")
    (root,) = folder.iterdir()
    return root


@pytest.fixture
def root(tmp_path):
    path = tmp_path / "small.tar.zst"
    bundle.write(reproduction(tmp_path), path, Cache())
    assert sorted(tmp_path.glob("*.partial")) == []
    return unpacked(path, tmp_path / "elsewhere")


def test_bundle_has_readme_report_entry_and_everything_recorded(root):
    assert {"README.md", "report.txt", "small.yaml", "run", "by-hand"} <= {
        path.name for path in root.iterdir()
    }
    assert len(list(root.glob("run/*/counters.json"))) == 2
    assert "reproduced" in (root / "report.txt").read_text()


def test_bundle_entry_can_be_run_where_it_is_unpacked(root):
    assert catalogue.find(str(root / "small.yaml")).id == "small"


def test_bundle_readme_names_the_versions_and_the_commands(root):
    readme = (root / "README.md").read_text()
    assert "- QEMU 10.0: 10.0.2 (package 1:10.0.2+ds-2, build ID 0fbbd5ca)\n" in readme
    assert "6.12.117" in readme
    assert "irqmatrix images build --kernel 6.12 --qemu 10.0\n" in readme
    assert "irqmatrix repro ./small.yaml --kernel 6.12 --qemu 10.0\n" in readme


def test_bundle_readme_of_ones_own_builds_asks_for_the_readers(tmp_path):
    environment = {"qemu": {"/src/qemu": "10.2.50"}, "lab_kernel": {"6.12": "6.12.117"}}
    path = tmp_path / "small.tar.zst"
    bundle.write(reproduction(tmp_path, environment=environment), path, Cache())
    readme = (unpacked(path, tmp_path / "elsewhere") / "README.md").read_text()
    assert "--kernel 6.12 --qemu PATH_OF_YOUR_QEMU\n" in readme


def test_bundle_scripts_are_shell_and_take_qemu_kernel_and_disk_from_the_reader(root):
    scripts = sorted(root.glob("by-hand/*.sh"))
    assert len(scripts) == 2
    text = scripts[0].read_text()
    assert '"${QEMU:-qemu-system-x86_64}"' in text
    assert '"$VMLINUZ"' in text
    assert "kernel-irqchip=on" in text
    assert "/cache/" not in text
    subprocess.run(["sh", "-n", *scripts], check=True)


def test_bundle_of_a_guest_that_moves_says_how_by_hand(tmp_path, root):
    text = ENTRY.replace("workloads: [idle]", "workloads: [idle], migrate: true")
    path = tmp_path / "moving.tar.zst"
    bundle.write(reproduction(tmp_path, text), path, Cache())
    readme = (unpacked(path, tmp_path / "moving") / "README.md").read_text()
    assert "migrate exec:cat>FILE" in readme
    assert "migrate exec:cat>FILE" not in (root / "README.md").read_text()


def test_bundle_of_a_flat_image_has_it_and_a_script_that_boots_it(tmp_path):
    (tmp_path / "small.flat").write_bytes(multiboot.elf())
    text = ENTRY.replace("kind: linux, workloads: [idle]", FLAT)
    path = tmp_path / "small.tar.zst"
    bundle.write(reproduction(tmp_path, text), path, Cache())
    folder = unpacked(path, tmp_path / "elsewhere")
    assert (folder / "small.flat").read_bytes() == multiboot.elf()
    assert "-kernel small.flat" in next(folder.glob("by-hand/*.sh")).read_text()


@pytest.mark.parametrize(
    ("pattern", "place"),
    [("configs/scenarios/pic.yaml", "configs/scenarios"), ("mine/*.yaml", "mine")],
)
def test_bundle_of_the_probe_has_it_and_the_scenarios_where_the_entry_finds_them(
    tmp_path, tmp_path_factory, pattern, place
):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine/mine.yaml").write_text(SCENARIO)
    probe = f"kind: probe, scenarios: [{pattern}]"
    text = ENTRY.replace("kind: linux, workloads: [idle]", probe)
    path, image = tmp_path / "small.tar.zst", tmp_path_factory.mktemp("cache") / "probe.elf"
    image.write_bytes(multiboot.elf())
    bundle.write(reproduction(tmp_path, text), path, Cache(image))
    folder = unpacked(path, tmp_path / "elsewhere")
    entry = catalogue.find(str(folder / "small.yaml"))
    scenarios = [one for case in entry.config().cases for one in case.guest.scenarios]
    assert {one.path.parent for one in scenarios} == {folder / place}
    assert {file.name for file in (folder / "images").iterdir()} >= {"probe.elf"}
    assert "-kernel images/probe.elf" in next(folder.glob("by-hand/*.sh")).read_text()


@pytest.mark.parametrize("name", ["absent/x.tar.zst", "."])
def test_bundle_that_cannot_be_written_is_told_before_anything_runs(tmp_path, name):
    with pytest.raises(StoreError, match="cannot write the bundle"):
        bundle.check(tmp_path / name)


def test_bundle_that_breaks_off_leaves_nothing_and_keeps_an_older_one(tmp_path, monkeypatch):
    found = reproduction(tmp_path)
    path = tmp_path / "small.tar.zst"
    path.write_text("older")

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(bundle, "_add_text", full)
    with pytest.raises(StoreError, match="No space left"):
        bundle.write(found, path, Cache())
    assert path.read_text() == "older"
    assert sorted(tmp_path.glob("*.partial")) == []
