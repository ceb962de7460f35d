import dataclasses
from pathlib import Path

from harness.doctor.doctor import busybox_finding, lab_faults_of
from harness.images.model import QemuImage
from harness.model import lab_faults
from harness.model.case import Accel


def test_doctor_without_busybox_says_what_to_install(tmp_path):
    finding = busybox_finding(tmp_path / "busybox")
    assert finding.can is False
    assert finding.fix == "install the package busybox-static"


def test_doctor_with_a_busybox_that_needs_a_loader_says_that_it_cannot_be_used():
    finding = busybox_finding(Path("/bin/sh"))
    assert finding.can is False
    assert finding.why is not None
    assert finding.why.startswith("it is dynamically linked")


QEMU = QemuImage("10.0", (10, 0, 2), Path("/usr/bin/qemu"), ("/usr/bin/qemu",), (), (), "here")


def test_doctor_counts_the_known_faults_of_a_lab_by_the_version_of_its_qemu():
    new = lab_faults_of(QEMU, Accel.TCG)
    old = lab_faults_of(dataclasses.replace(QEMU, version=(7, 2, 22)), Accel.TCG)
    assert "svm-cr8-window" in new.value
    assert "svm-stale-exitintinfo (Linux >=6.14)" in new.value
    assert "svm-shadow-lost" not in new.value
    assert "svm-shadow-lost" in old.value
    total = len(lab_faults.shipped())
    assert old.value.startswith(f"{total} of {total} known ")
    assert new.value.startswith(f"{total - 1} of {total} known ")


def test_doctor_knows_no_faults_of_a_lab_that_a_kvm_runs():
    assert lab_faults_of(QEMU, Accel.KVM).can
