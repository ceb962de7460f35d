"""`irqmatrix doctor` and `irqmatrix images` on this machine."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

pytestmark = [pytest.mark.live, pytest.mark.timeout(600)]


def irqmatrix(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "harness", *arguments],
        capture_output=True,
        text=True,
        timeout=500,
        stdin=subprocess.DEVNULL,
        check=False,
    )


@pytest.fixture(scope="module")
def findings() -> list[dict]:
    done = irqmatrix("doctor", "--json")
    assert (done.returncode, done.stderr) == (0, "")
    return json.loads(done.stdout)


def by_name(findings: list[dict], area: str) -> dict[str, dict]:
    return {finding["name"]: finding for finding in findings if finding["area"] == area}


def test_doctor_every_cannot_has_a_reason_or_what_to_do(findings):
    cannot = [finding for finding in findings if finding["can"] is False]
    assert [finding for finding in cannot if not (finding["why"] or finding["fix"])] == []


def test_doctor_boots_the_lab_whose_images_are_there(findings):
    lab = by_name(findings, "lab")["boots"]
    if lab["can"] is None:
        pytest.skip(lab["why"])
    assert lab["can"] is True


def test_doctor_knows_what_the_systems_qemu_has(findings):
    qemu = by_name(findings, "qemu system")
    assert qemu["tcg"]["can"] is True
    assert {"version", "query-stats", "x-query-irq", "kvm, irqchip split"} <= qemu.keys()


def test_doctor_measures_the_local_kvm_where_there_is_one(findings):
    kvm = by_name(findings, "kvm")
    if kvm["/dev/kvm"]["can"] is False:
        pytest.skip(kvm["/dev/kvm"]["why"])
    assert "instructions/s" in kvm["guest speed"]["value"]


def test_images_list_is_json_on_demand():
    done = irqmatrix("images", "list", "--json")
    assert done.returncode == 0
    assert all({"kind", "version", "intact"} <= row.keys() for row in json.loads(done.stdout))


def test_images_build_of_a_version_that_is_not_to_be_had_is_status_2_and_names_what_is():
    done = irqmatrix("images", "build", "--kernel", "0.99")
    assert done.returncode == 2
    assert "0.99" in done.stderr
    assert "Traceback" not in done.stderr
