from __future__ import annotations

from pathlib import Path

import pytest

from harness.base.errors import ImageError
from harness.images.model import Offer
from harness.images.packages import Packages, matches
from harness.images.store import Label, Store


@pytest.fixture
def packages(tmp_path: Path) -> Packages:
    store = Store(tmp_path)
    for version in ("6.1.176", "6.1.192", "6.12.95"):
        with store.building() as scratch:
            (scratch / "tree").mkdir()
            (scratch / "tree" / "vmlinuz").write_text(version)
            label = Label("kernel", f"{version}-1", version, "bookworm")
            store.publish(label, scratch / "tree")
    return Packages(store, tmp_path, offline=True)


@pytest.mark.parametrize(
    ("version", "query", "expected"),
    [
        ("6.1.192", "6.1", True),
        ("6.1.192", "6.1.192", True),
        ("6.12.95", "6.1", False),
        ("10.0.2", "10", True),
        ("10.0.2", "1", False),
        ("6.1.192", "6.1.19", False),
    ],
)
def test_matches_compares_whole_numbers(version: str, query: str, expected: bool) -> None:
    assert matches(version, query) is expected


@pytest.mark.parametrize(
    ("query", "name"),
    [
        ("6.1", "6.1.192-1"),
        ("6", "6.12.95-1"),
        ("6.1.176", "6.1.176-1"),
        ("6.1.176-1", "6.1.176-1"),
    ],
)
def test_get_takes_the_newest_cached_one_that_fits(
    packages: Packages, query: str, name: str
) -> None:
    assert packages.get("kernel", query).label.name == name


def test_get_passes_over_a_damaged_one(packages: Packages) -> None:
    damaged = packages.get("kernel", "6.1")
    (damaged.tree / "vmlinuz").write_text("6.1")

    assert packages.get("kernel", "6.1").label.name == "6.1.176-1"


def test_get_offline_names_what_is_cached_and_what_to_do(packages: Packages) -> None:
    expected = r"no kernel '5\.10' to be had.*in the cache: 6\.1\.176, 6\.1\.192, 6\.12\.95"

    with pytest.raises(ImageError, match=expected) as raised:
        packages.get("kernel", "5.10")

    assert "offline" in str(raised.value)
    assert raised.value.fix == "see that the archive can be reached, or give a path"


def test_get_offline_with_only_a_damaged_one_is_an_error(packages: Packages) -> None:
    damaged = packages.get("kernel", "6.12")
    (damaged.tree / "vmlinuz").unlink()

    with pytest.raises(ImageError, match=r"no kernel '6\.12' to be had"):
        packages.get("kernel", "6.12")


def test_default_kernel_is_the_one_remembered(packages: Packages, tmp_path: Path) -> None:
    (tmp_path / "default-kernel").write_text("6.1.176-1\n")

    assert packages.default_kernel().label.version == "6.1.176"


def test_choices_without_the_archive_are_what_is_cached_oldest_first(packages: Packages) -> None:
    found = [(choice.version, choice.cached) for choice in packages.choices("kernel")]
    assert found == [("6.1.176", True), ("6.1.192", True), ("6.12.95", True)]


def test_choices_without_archive_and_cache_are_an_error(tmp_path: Path) -> None:
    with pytest.raises(ImageError):
        Packages(Store(tmp_path), tmp_path, offline=True).choices("kernel")


def test_choices_offered_and_cached_are_each_version_once(
    packages: Packages, monkeypatch: pytest.MonkeyPatch
) -> None:
    offers = (
        Offer("kernel", "6.12.95", "linux-image", "6.12.95-1~bpo12+1", "backports"),
        Offer("kernel", "6.12.100", "linux-image", "6.12.100-1", "trixie"),
        Offer("kernel", "6.12.100", "linux-image", "6.12.100-0", "bookworm"),
        Offer("qemu", "10.0.2", "qemu", "1:10.0.2-1", "trixie"),
    )
    monkeypatch.setattr(packages, "available", lambda: offers)
    found = [(choice.name, choice.cached) for choice in packages.choices("kernel")]
    assert found == [
        ("6.1.176-1", True),
        ("6.1.192-1", True),
        ("6.12.95-1", True),
        ("6.12.100-1", False),
    ]
    assert [choice.name for choice in packages.choices("qemu")] == ["10.0.2-1"]
