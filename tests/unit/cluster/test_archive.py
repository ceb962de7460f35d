"""Folders that travel: as they were, within limits, and nowhere else."""

import io
import random
import tarfile

import pytest
import zstandard

from harness.base.errors import StoreError
from harness.cluster import archive
from harness.cluster.archive import Folder, digest, pack, unpack


def tarred(name, kind=tarfile.REGTYPE, data=b"x"):
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w") as tar:
        member = tarfile.TarInfo(name)
        member.type, member.size, member.linkname = kind, len(data), "/etc/passwd"
        tar.addfile(member, io.BytesIO(data))
    return zstandard.compress(packed.getvalue())


def test_archive_has_the_files_of_its_folders_as_they_were(tmp_path):
    for name, data in {"a.json": b"{}", "raw.zst": bytes(range(256)) * 999, "log": b""}.items():
        (tmp_path / name).write_bytes(data)
    packed = pack({"case": [tmp_path / "a.json", tmp_path / "raw.zst"], "logs": [tmp_path / "log"]})
    case, logs = tmp_path / "x/case", tmp_path / "x"
    unpack(packed, digest(packed), {"case": Folder(case), "logs": Folder(logs, "lo*")})

    assert {path.name for path in case.iterdir()} == {"a.json", "raw.zst"}
    assert (case / "raw.zst").read_bytes() == (tmp_path / "raw.zst").read_bytes()
    assert (logs / "log").read_bytes() == b""


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("case/../x", tarfile.REGTYPE),
        ("case/..", tarfile.REGTYPE),
        ("/etc/x", tarfile.REGTYPE),
        ("case/a/b", tarfile.REGTYPE),
        ("other/x", tarfile.REGTYPE),
        ("x", tarfile.REGTYPE),
        ("case/link", tarfile.SYMTYPE),
        ("case/link", tarfile.LNKTYPE),
        ("case/fifo", tarfile.FIFOTYPE),
        ("case", tarfile.DIRTYPE),
        ("logs/result.json", tarfile.REGTYPE),
    ],
)
def test_archive_with_anything_but_files_of_its_folders_writes_nothing(tmp_path, name, kind):
    packed = tarred(name, kind)
    folders = {"case": Folder(tmp_path / "case"), "logs": Folder(tmp_path, "lab-*")}
    with pytest.raises(StoreError, match="an archive is refused"):
        unpack(packed, digest(packed), folders)
    assert not list(tmp_path.iterdir())


def test_archive_that_was_changed_or_cut_is_refused(tmp_path):
    packed = tarred("case/a", data=b"x" * 9999)
    with pytest.raises(StoreError, match="damaged on its way"):
        unpack(packed[:-1], digest(packed), {"case": Folder(tmp_path)})
    with pytest.raises(StoreError, match="cannot unpack"):
        unpack(packed[:-9], digest(packed[:-9]), {"case": Folder(tmp_path / "cut")})
    with pytest.raises(StoreError, match="cannot unpack"):
        unpack(b"no archive", digest(b"no archive"), {"case": Folder(tmp_path)})


def test_archive_over_its_limits_is_refused_on_both_sides(tmp_path, monkeypatch):
    path = tmp_path / "zeros"
    path.write_bytes(bytes(3 << 20))
    packed = pack({"case": [path]})
    monkeypatch.setenv("IRQMATRIX_LIMITS", "unpacked_mib=2")
    with pytest.raises(StoreError, match="unpacked_mib=N"):
        unpack(packed, digest(packed), {"case": Folder(tmp_path / "case")})

    monkeypatch.setattr(archive, "MAX_FILES", 1)
    two = pack({"case": [path, path]})
    monkeypatch.setenv("IRQMATRIX_LIMITS", "archive_mib=1")
    with pytest.raises(StoreError, match="more than 1 files"):
        unpack(two, digest(two), {"case": Folder(tmp_path / "case")})
    path.write_bytes(random.Random(1).randbytes(2 << 20))
    with pytest.raises(StoreError, match="archive_mib=N"):
        pack({"case": [path]})


def test_archive_of_a_file_that_is_not_there_says_so(tmp_path):
    with pytest.raises(StoreError, match="cannot pack"):
        pack({"case": [tmp_path / "absent"]})
