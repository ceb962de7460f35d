"""An archive of somebody else: its known files, and nothing that it asks for."""

import gzip
import io
import tarfile

import pytest

from harness.base.errors import CollectError
from harness.record.collectors.foreign import archive
from harness.record.collectors.foreign.model import FileKind
from harness.record.collectors.foreign.read import kind_of_file


def tar(path, *entries, mode="w:gz"):
    with tarfile.open(path, mode) as file:
        for entry, data in entries:
            info = tarfile.TarInfo(entry) if isinstance(entry, str) else entry
            info.size = len(data)
            file.addfile(info, io.BytesIO(data))
    return path


def link(name, target):
    info = tarfile.TarInfo(name)
    info.type, info.linkname = tarfile.SYMTYPE, target
    return info


def test_texts_of_an_archive_come_back(tmp_path):
    texts = {"contents.json": "{}", "cmdline.txt": "qemu-kvm\n", "guest-interrupts-2.txt": "é"}
    (tmp_path / "a").write_bytes(archive.packed(texts))
    assert dict(archive.members(tmp_path / "a")) == texts


def test_same_texts_are_the_same_archive():
    assert archive.packed({"trace.txt": "a"}) == archive.packed({"trace.txt": "a"})


@pytest.mark.parametrize("mode", ["w:gz", "w"])
def test_archive_is_known_by_its_content(tmp_path, mode):
    assert kind_of_file(tar(tmp_path / "x", ("trace.txt", b"a"), mode=mode)) is FileKind.ARCHIVE


def test_text_that_is_packed_is_no_archive(tmp_path):
    (tmp_path / "x").write_bytes(gzip.compress(b"           CPU0\n  8: 5 IO-APIC 8-edge rtc0\n"))
    assert kind_of_file(tmp_path / "x") is FileKind.INTERRUPTS


def test_name_that_leads_elsewhere_is_only_its_last_part(tmp_path):
    path = tar(tmp_path / "x", ("../../trace.txt", b"a"), ("/etc/versions.txt", b"b"))
    assert dict(archive.members(path)) == {"trace.txt": "a", "versions.txt": "b"}


def test_file_that_is_not_known_a_link_and_a_second_one_are_left_out(tmp_path):
    path = tar(
        tmp_path / "x",
        ("passwd", b"a"),
        (link("cmdline.txt", "/etc/passwd"), b""),
        ("versions.txt", b"first"),
        ("versions.txt", b"second"),
        ("guest-interrupts-0.txt", b"a"),
    )
    assert dict(archive.members(path)) == {"versions.txt": "first"}


def test_file_over_its_limit_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(archive, "MEMBER_MIB", 0)
    with pytest.raises(CollectError, match=r"trace\.txt has more than 0 MiB"):
        list(archive.members(tar(tmp_path / "x", ("trace.txt", b"a"))))


def test_archive_that_unpacks_to_more_than_its_limit_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(archive, "TOTAL_MIB", 1)
    path = tar(tmp_path / "x", ("other", b"\0" * (2 << 20)), ("trace.txt", b"a"))
    assert path.stat().st_size < 10_000
    with pytest.raises(CollectError, match="more than 1 MiB in an archive"):
        list(archive.members(path))


def test_archive_with_too_many_files_is_refused(tmp_path):
    path = tar(tmp_path / "x", *((f"f{n}", b"") for n in range(archive.MOST_MEMBERS + 1)))
    with pytest.raises(CollectError, match="more than 200 files"):
        list(archive.members(path))


@pytest.mark.parametrize("end", [20, -30])
def test_archive_that_was_cut_is_refused(tmp_path, end):
    whole = archive.packed({"trace.txt": "a\n" * 1000, "threads.txt": "b"})
    (tmp_path / "x").write_bytes(whole[:end])
    with pytest.raises(CollectError, match="cannot be unpacked"):
        list(archive.members(tmp_path / "x"))
