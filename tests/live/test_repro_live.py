"""`irqmatrix repro` with real QEMUs: answers, exit statuses, and a bundle that does it again."""

from __future__ import annotations

import io
import json
import shutil
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest
import zstandard

pytestmark = pytest.mark.live

ENTRY = """
version: 1
id: small
symptom: an image fails one of its checks
kind: known-bug
modes: [tcg]
links: [https://example.org/thread]
about: what is behind it
recipe:
  matrix: {{host: local, accel: tcg}}
  guests: [{{kind: flat, path: small.flat}}]
signs:
  - {{what: the second check, verdict: {check}, expect: {{tcg: fail}}}}
seen:
  - {{qemu: "7.2.22", host: local, saw: {{tcg: fails}}}}
"""


def irqmatrix(
    *arguments: object, cwd: Path | None = None, timeout_s: float = 120
) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(
        [sys.executable, "-m", "harness", *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=timeout_s,
        stdin=subprocess.DEVNULL,
        check=False,
        cwd=cwd,
    )
    assert "Traceback" not in done.stderr
    return done


@pytest.fixture
def entry(tmp_path, flats):
    """A reproducer of an image's failing check."""
    shutil.copy(flats["failing"], tmp_path / "small.flat")
    path = tmp_path / "small.yaml"
    path.write_text(ENTRY.format(check="two"))
    return path


@pytest.fixture
def absent(entry):
    """The same, of a check that passes: it does not show."""
    entry.write_text(ENTRY.format(check="one"))
    return entry


def test_repro_that_shows_is_status_0_and_reproduced(entry, tmp_path):
    done = irqmatrix("repro", entry, "--out", tmp_path / "out")
    assert done.returncode == 0
    assert "small: reproduced: the second check: tcg fail" in done.stdout


def test_repro_that_should_show_and_does_not_is_status_1(absent, tmp_path):
    done = irqmatrix("repro", absent, "--out", tmp_path / "out")
    assert done.returncode == 1
    assert "not reproduced here: the second check: tcg pass (expected fail)" in done.stdout


def test_repro_json_is_only_json(entry, tmp_path):
    done = irqmatrix("repro", entry, "--out", tmp_path / "out", "--json")
    assert json.loads(done.stdout)["outcome"] == "reproduced"


def test_repro_bisect_bad_is_1(entry, tmp_path):
    assert irqmatrix("repro", entry, "--bisect", "--out", tmp_path / "out").returncode == 1


def test_repro_bisect_good_is_0(absent, tmp_path):
    assert irqmatrix("repro", absent, "--bisect", "--out", tmp_path / "out").returncode == 0


def test_repro_bisect_build_that_does_not_run_is_125(entry, tmp_path):
    broken = tmp_path / "qemu-system-x86_64"
    broken.write_bytes(b"\x7fELF")
    done = irqmatrix("repro", entry, "--bisect", "--qemu", broken, "--out", tmp_path / "out")
    assert done.returncode == 125


def test_repro_bisect_mistake_of_the_command_line_ends_the_bisection(tmp_path):
    assert irqmatrix("repro", "no-such-thing", "--bisect").returncode == 128


def test_repro_bundle_unpacked_elsewhere_reproduces(entry, tmp_path):
    bundle = tmp_path / "small.tar.zst"
    irqmatrix("repro", entry, "--out", tmp_path / "out", "--bundle", bundle)
    data = zstandard.ZstdDecompressor().stream_reader(io.BytesIO(bundle.read_bytes())).read()
    with tarfile.open(fileobj=io.BytesIO(data)) as tar:
        tar.extractall(tmp_path / "elsewhere", filter="data")
    folder = tmp_path / "elsewhere" / "small"
    (tmp_path / "small.flat").unlink()
    (command,) = [
        line
        for line in (folder / "README.md").read_text().splitlines()
        if "irqmatrix repro" in line
    ]
    again = irqmatrix(*command.split()[1:], "--out", tmp_path / "again", cwd=folder)
    assert again.returncode == 0
    assert "small: reproduced" in again.stdout
    (script,) = folder.glob("by-hand/*.sh")
    by_hand = subprocess.run(
        ["sh", script], capture_output=True, text=True, timeout=60, stdin=subprocess.DEVNULL
    )
    assert "FAIL: two" in by_hand.stdout


def test_repro_bundle_that_cannot_be_written_is_status_2_before_anything_runs(entry, tmp_path):
    bundle = tmp_path / "absent" / "small.tar.zst"
    done = irqmatrix("repro", entry, "--out", tmp_path / "out", "--bundle", bundle)
    assert done.returncode == 2
    assert "cannot write the bundle" in done.stderr
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("repro", "hpet-gost-ticks"), "did you mean 'hpet-ghost-ticks'"),
        (("repro",), "no reproducer given"),
        (("repro", "double-line", "--kernel", "/absent/vmlinuz"), "cannot read the kernel"),
        (("bisect", "double-line"), "there is nothing to bisect"),
        (("bisect", "double-line", "--kernels", "6.1.."), "is not a version"),
    ],
)
def test_repro_mistake_is_status_2_and_a_message(tmp_path, arguments, message):
    done = irqmatrix(*arguments, cwd=tmp_path)
    assert done.returncode == 2
    assert message in done.stderr


def test_repro_list_has_every_entry():
    done = irqmatrix("repro", "--list", "--json")
    assert {"hpet-ghost-ticks", "rtc-slew-storm"} <= {row["id"] for row in json.loads(done.stdout)}


@pytest.mark.lab
@pytest.mark.slow
def test_repro_in_the_lab_double_line_is_reproduced(tmp_path):
    done = irqmatrix("repro", "double-line", "--out", tmp_path / "out", timeout_s=280)
    assert done.returncode == 0, done.stdout
    assert "double-line: reproduced" in done.stdout
