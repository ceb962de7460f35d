"""``collect`` of a real QEMU, and ``explain`` of its archive."""

import asyncio
import shutil
import socket
import subprocess

import pytest

from harness.commands.collect import CollectOptions
from harness.commands.collect import run as collect
from harness.commands.explain import ExplainOptions
from harness.commands.explain import run as explain
from harness.record.collectors.foreign import archive
from harness.record.collectors.foreign.model import IrqTexts, LapicTexts, Registers

pytestmark = pytest.mark.live

ARGUMENTS = (
    *("-accel", "tcg", "-S", "-M", "q35,hpet=off", "-smp", "2", "-m", "32", "-display", "none"),
    *("-nodefaults", "-name", "guest=web-of-anna", "-uuid", "11111111-2222-3333-4444-555555555555"),
    *("-smbios", "type=1,serial=SERIAL-OF-ANNA"),
    *("-device", "virtio-net-pci,mac=52:54:00:aa:bb:cc,id=nic-of-anna"),
)


@pytest.fixture
def qemu(tmp_path):
    """A QEMU that stands still, and its QMP socket."""
    with socket.socket(socket.AF_UNIX) as listener:
        path = tmp_path / "qmp.sock"
        listener.bind(str(path))
        listener.listen(1)
        number = str(listener.fileno())
        chardev = f"socket,id=mon,server=on,wait=off,fd={number}"
        with subprocess.Popen(
            ["qemu-system-x86_64", *ARGUMENTS, "-chardev", chardev, "-mon",
             "chardev=mon,mode=control"],
            pass_fds=[listener.fileno()],
            stderr=subprocess.DEVNULL,
        ) as process:  # fmt: skip
            try:
                with socket.socket(socket.AF_UNIX) as first:  # it answers once it runs
                    first.connect(str(path))
                    assert b"QMP" in first.recv(4096)
                yield process, path
            finally:
                process.kill()


def options(tmp_path, process, path):
    return CollectOptions(process.pid, path, None, 0.1, (), tmp_path / "a.tar.gz", True)


def test_collect_of_a_qemu_is_explained_and_names_no_one(qemu, tmp_path):
    lines = list(asyncio.run(collect(options(tmp_path, *qemu))))

    assert any(line.startswith("  monitor: query-stats") for line in lines)  # TCG has none
    everything = "".join(text for _, text in archive.members(tmp_path / "a.tar.gz"))
    for secret in ("anna", "ANNA", "52:54:00", "11111111-", str(tmp_path)):
        assert secret not in everything
    answer = explain(ExplainOptions((tmp_path / "a.tar.gz",), (), None, None))
    assert answer.refused == ()
    assert (answer.vm.machine.family, answer.vm.smp, answer.vm.machine.hpet) == ("q35", 2, False)
    assert answer.vm.qemu is not None
    assert answer.vm.linux is not None
    found = {type(each.content) for each in answer.evidence}
    assert {Registers, LapicTexts, IrqTexts} <= found


def test_collect_beside_another_client_goes_without_the_monitor(qemu, tmp_path):
    process, path = qemu
    with socket.socket(socket.AF_UNIX) as other:
        other.connect(str(path))
        assert b"QMP" in other.recv(4096)
        lines = list(asyncio.run(collect(options(tmp_path, process, path))))
    assert "  cmdline.txt" in lines
    assert any("another client may hold it" in line for line in lines)


@pytest.mark.skipif(shutil.which("virsh") is None, reason="needs virsh: libvirt-clients")
def test_domain_of_libvirts_own_test_driver_is_read_and_names_no_one(tmp_path, monkeypatch):
    monkeypatch.setenv("LIBVIRT_DEFAULT_URI", "test:///default")
    asked = CollectOptions(None, None, "test", 0.1, (), tmp_path / "a.tar.gz", True)

    asyncio.run(collect(asked))

    text = dict(archive.members(tmp_path / "a.tar.gz"))["libvirt.xml"]
    assert '<vcpu placement="static">2</vcpu>' in text
    for secret in ("6695eb01-", "aa:bb:cc:dd:ee:ff", "diskimage1", "testnet0"):
        assert secret not in text
    answer = explain(ExplainOptions((tmp_path / "a.tar.gz",), (), None, None))
    assert answer.refused == ()
    assert answer.vm.smp == 2


@pytest.mark.skipif(shutil.which("virsh") is None, reason="needs virsh: libvirt-clients")
def test_domain_that_libvirt_does_not_know_is_said(tmp_path, monkeypatch):
    monkeypatch.setenv("LIBVIRT_DEFAULT_URI", "test:///default")
    asked = CollectOptions(None, None, "web-of-anna", 0.1, (), tmp_path / "a.tar.gz", True)

    lines = list(asyncio.run(collect(asked)))

    assert any(line.startswith("  libvirt's XML: virsh failed") for line in lines)
