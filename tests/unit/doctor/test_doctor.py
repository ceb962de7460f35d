from pathlib import Path

from harness.doctor.doctor import busybox_finding


def test_doctor_without_busybox_says_what_to_install(tmp_path):
    finding = busybox_finding(tmp_path / "busybox")
    assert finding.can is False
    assert finding.fix == "install the package busybox-static"


def test_doctor_with_a_busybox_that_needs_a_loader_says_that_it_cannot_be_used():
    finding = busybox_finding(Path("/bin/sh"))
    assert finding.can is False
    assert finding.why is not None
    assert finding.why.startswith("it is dynamically linked")
