"""The lab's Python: what is in its archive."""

from __future__ import annotations

import importlib.util
import marshal
import sys
import tarfile

import pytest

from harness.images import python


@pytest.fixture(scope="module")
def archive(tmp_path_factory):
    path = tmp_path_factory.mktemp("python") / "python.tar"
    python.write_archive(path)
    with tarfile.open(path) as tar:
        yield tar


def test_archive_has_interpreter_loader_standard_library_and_chips(archive):
    names = set(archive.getnames())
    version = f"python{sys.version_info.major}.{sys.version_info.minor}"

    assert {"py/bin/python", "py/ld.so", f"py/lib/{version}/argparse.py"} <= names
    assert {"project/userspace_chip/kvm/vmm.py", "project/userspace_chip/lapic.py"} <= names
    assert not [name for name in names if "/site-packages/" in name or "/test/" in name]


def test_chips_are_compiled_for_this_python_and_named_as_they_are_there(archive):
    name = f"project/userspace_chip/kvm/__pycache__/vmm.{sys.implementation.cache_tag}.pyc"

    data = archive.extractfile(name).read()

    assert data[:4] == importlib.util.MAGIC_NUMBER
    assert int.from_bytes(data[4:8], "little") == 1  # by hash, which is not checked
    assert marshal.loads(data[16:]).co_filename == "/project/userspace_chip/kvm/vmm.py"


def test_unpacking_takes_a_path_as_it_is():
    assert python.unpacking("/payload/0-a b.tar") == "busybox tar xf '/payload/0-a b.tar' -C /"
