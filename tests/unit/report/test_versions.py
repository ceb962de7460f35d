from __future__ import annotations

from harness.report.versions import version_lines

QEMU = {"package": "1:11.1.3+ds-1~bpo13+1", "build_id": "fc693c98"}
LINUX = {"package": "7.3.4-1~bpo13+1", "build_id": "c9fc5c5a"}
RUNNER = {"package": "1:10.0.13+ds-0+deb13u1", "build_id": "e5588a4a"}
ENVIRONMENT = {
    "qemu": {"11": "11.1.3"},
    "lab_kernel": {"7": "7.3.4"},
    "lab_qemu": "10.0.13",
    "builds": {"qemu": {"11": QEMU}, "lab_kernel": {"7": LINUX}, "lab_qemu": RUNNER},
}


def test_versions_are_of_packages_and_builds_the_labs_qemu_too():
    assert list(version_lines(ENVIRONMENT)) == [
        "QEMU 11: 11.1.3 (package 1:11.1.3+ds-1~bpo13+1, build ID fc693c98)",
        "Linux in the lab, 7: 7.3.4 (package 7.3.4-1~bpo13+1, build ID c9fc5c5a)",
        "QEMU that runs the lab: 10.0.13 (package 1:10.0.13+ds-0+deb13u1, build ID e5588a4a)",
    ]


def test_versions_of_a_run_without_builds_are_just_versions():
    lines = list(version_lines({**ENVIRONMENT, "builds": {"lab_qemu": None}}))

    assert lines[0] == "QEMU 11: 11.1.3"
    assert lines[-1] == "QEMU that runs the lab: 10.0.13"


def test_versions_of_a_run_without_a_lab_have_no_lab():
    environment = {"qemu": {"system": "7.2.22"}, "lab_kernel": {}, "lab_qemu": None}

    assert list(version_lines(environment)) == ["QEMU system: 7.2.22"]
