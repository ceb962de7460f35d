from __future__ import annotations

import errno
import json
import os
import threading
from pathlib import Path

import pytest

from harness.base.errors import ImageError
from harness.images.store import CacheEntry, Label, Store

LABEL = Label("kernel", "6.1.192-2", "6.1.192", "bookworm")


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "cache")


def publish(store: Store, content: str = "kernel", label: Label = LABEL) -> CacheEntry:
    with store.building() as scratch:
        (scratch / "tree" / "boot").mkdir(parents=True)
        (scratch / "tree" / "boot" / "vmlinuz").write_text(content)
        return store.publish(label, scratch / "tree")


def overwrite_unnoticed(path: Path, content: str) -> None:
    """Other bytes, of the same length and with the same time."""
    status = path.stat()
    path.write_text(content)
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))


def test_entry_published_is_found_with_its_label_and_files(store: Store) -> None:
    publish(store)

    entry = store.find("kernel", "6.1.192-2")
    assert entry is not None
    assert entry.label == LABEL
    assert [record.path for record in entry.files] == ["boot/vmlinuz"]
    assert (entry.tree / "boot/vmlinuz").read_text() == "kernel"
    assert entry.size_bytes == len("kernel")


def test_entry_that_was_never_published_is_not_found(store: Store) -> None:
    assert store.find("kernel", "6.1.192-2") is None
    assert store.entries("kernel") == ()


def test_entry_with_a_truncated_file_is_not_found(store: Store) -> None:
    entry = publish(store)

    (entry.tree / "boot/vmlinuz").write_text("ker")

    assert store.find("kernel", "6.1.192-2") is None


def test_entry_that_was_copied_without_its_times_is_found(store: Store) -> None:
    entry = publish(store)

    os.utime(entry.tree / "boot/vmlinuz", ns=(0, 0))

    assert store.find("kernel", "6.1.192-2") is not None


def test_entry_with_a_removed_file_is_not_found_nor_intact(store: Store) -> None:
    entry = publish(store)

    (entry.tree / "boot/vmlinuz").unlink()

    assert store.find("kernel", "6.1.192-2") is None
    assert not store.verify(entry)


def test_entry_with_other_bytes_of_the_same_size_and_time_is_not_intact(store: Store) -> None:
    entry = publish(store)
    assert store.verify(entry)

    overwrite_unnoticed(entry.tree / "boot/vmlinuz", "lenrek")

    assert not store.verify(entry)


def test_entry_published_again_replaces_the_damaged_one(store: Store) -> None:
    damaged = publish(store)
    (damaged.tree / "boot/vmlinuz").write_text("")

    publish(store, "again")

    entry = store.find("kernel", "6.1.192-2")
    assert entry is not None
    assert (entry.tree / "boot/vmlinuz").read_text() == "again"
    assert store.verify(entry)


@pytest.mark.parametrize("manifest", ["", "{", "[]", '{"schema": 99}', '{"schema": 1}'])
def test_entry_with_a_damaged_manifest_is_a_folder_but_no_entry(
    store: Store, manifest: str
) -> None:
    entry = publish(store)

    (entry.path / "manifest.json").write_text(manifest)

    assert store.find("kernel", "6.1.192-2") is None
    assert store.entries("kernel") == ()
    assert store.folders("kernel") == (entry.path,)


def test_manifest_says_what_the_entry_is(store: Store) -> None:
    entry = publish(store)

    manifest = json.loads((entry.path / "manifest.json").read_text())
    assert manifest["version"] == "6.1.192"
    assert manifest["source"] == "bookworm"
    assert manifest["files"][0]["size_bytes"] == len("kernel")


def test_build_that_fails_leaves_nothing_behind(store: Store, tmp_path: Path) -> None:
    def build() -> None:
        with store.building() as scratch:
            (scratch / "half").write_text("half")
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        build()

    assert [path.name for path in (tmp_path / "cache").iterdir()] == ["lock"]
    assert store.entries("kernel") == ()


def test_entry_discarded_is_gone(store: Store, tmp_path: Path) -> None:
    entry = publish(store)

    with store.building() as scratch:
        store.discard(entry, scratch)

    assert store.entries("kernel") == ()
    assert list((tmp_path / "cache" / "kernel").iterdir()) == []


def test_scratch_of_a_process_that_was_killed_is_removed(store: Store, tmp_path: Path) -> None:
    leftover = tmp_path / "cache" / "building-killed"
    leftover.mkdir(parents=True)
    (leftover / "half").write_text("half")

    publish(store)

    assert not leftover.exists()


def test_build_without_room_is_an_error_that_says_what_to_do(store: Store) -> None:
    def build() -> None:
        with store.building():
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with pytest.raises(ImageError, match=r"No space left on device \(free some space"):
        build()


def test_lock_held_makes_the_next_one_wait(store: Store) -> None:
    order: list[str] = []
    waiting = threading.Event()

    def second() -> None:
        waiting.set()
        with store.building():
            order.append("second")

    thread = threading.Thread(target=second)
    with store.building():
        thread.start()
        waiting.wait()
        order.append("first")
    thread.join()

    assert order == ["first", "second"]


def test_cache_that_cannot_be_written_is_an_error_that_says_what_to_do(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    store = Store(tmp_path / "file" / "cache")

    with pytest.raises(ImageError, match=r"cannot write to the image cache.*XDG_CACHE_HOME"):
        publish(store)
