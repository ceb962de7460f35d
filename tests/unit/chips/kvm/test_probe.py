"""Probing where there is no KVM; what a real KVM answers is in tests/live/test_kvm_live.py."""

from pathlib import Path

import pytest

from userspace_chip.kvm.errors import KvmError, KvmUnavailableError
from userspace_chip.kvm.fds import KvmFd
from userspace_chip.kvm.probe import measure_guest_speed, probe_kvm


def module(root, name, nested):
    parameters = root / "module" / name / "parameters"
    parameters.mkdir(parents=True)
    (parameters / "nested").write_text(nested + "\n")


def cpuinfo(root, flags):
    root.mkdir(exist_ok=True)
    (root / "cpuinfo").write_text(f"processor\t: 0\nflags\t\t: fpu {flags} lm\n")


def test_probe_with_missing_device_says_what_to_load(tmp_path):
    probe = probe_kvm(str(tmp_path / "kvm"), sys=tmp_path, proc=tmp_path)

    assert not probe.usable
    assert "ENOENT" in probe.error
    assert "kvm_intel or kvm_amd" in probe.error
    assert probe.why_not("on") == probe.why_not("split") == probe.error
    assert (probe.module, probe.nested, probe.cpu_flag) == (None, None, None)


def test_probe_with_another_device_says_that_it_is_not_kvm(tmp_path):
    probe = probe_kvm("/dev/null", sys=tmp_path, proc=tmp_path)

    assert "this is not KVM" in probe.error


@pytest.mark.parametrize(
    ("name", "text", "flag", "nested"),
    [
        ("kvm_intel", "Y", "vmx", True),
        ("kvm_intel", "N", "vmx", False),
        ("kvm_amd", "1", "svm", True),
        ("kvm_amd", "0", "svm", False),
    ],
)
def test_probe_with_vendor_module_tells_it_its_nesting_and_the_cpu(
    tmp_path, name, text, flag, nested
):
    module(tmp_path, name, text)
    cpuinfo(tmp_path, flag)

    probe = probe_kvm(str(tmp_path / "kvm"), sys=tmp_path, proc=tmp_path)

    assert (probe.module, probe.nested, probe.cpu_flag) == (name, nested, flag)


def test_probe_with_two_vendor_modules_cannot_tell_which_is_in_use(tmp_path):
    module(tmp_path, "kvm_intel", "Y")
    module(tmp_path, "kvm_amd", "1")

    assert probe_kvm(str(tmp_path / "kvm"), sys=tmp_path, proc=tmp_path).module is None


def test_probe_with_module_without_nested_parameter_leaves_it_open(tmp_path):
    (tmp_path / "module" / "kvm_pvm").mkdir(parents=True)
    cpuinfo(tmp_path, "ht")

    probe = probe_kvm(str(tmp_path / "kvm"), sys=tmp_path, proc=tmp_path)

    assert (probe.module, probe.nested, probe.cpu_flag) == ("kvm_pvm", None, None)


def test_open_without_permission_tells_the_group(tmp_path):
    error = KvmUnavailableError("/dev/kvm", 13)

    assert str(error) == (
        "open /dev/kvm failed: EACCES, Permission denied"
        " (join the group that owns it (usually kvm), or run as root)"
    )
    assert isinstance(error, KvmError)


def test_guest_speed_without_device_raises_unavailable(tmp_path):
    with pytest.raises(KvmUnavailableError):
        measure_guest_speed(str(tmp_path / "kvm"))


def test_kvm_fd_refused_leaves_no_descriptor_open(tmp_path):
    before = _open_descriptors()

    with pytest.raises(KvmUnavailableError):
        KvmFd("/dev/null")

    assert _open_descriptors() == before


def _open_descriptors():
    return [entry.name for entry in Path("/proc/self/fd").iterdir()]
