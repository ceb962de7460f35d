from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import pytest

from harness.base.errors import ImageError
from harness.images.archive import Archive, Suite
from harness.images.model import Offer
from harness.images.packages import Packages, matches
from harness.images.store import Label, Store
from support.kernel_files import write_kernel


class ListedArchive(Archive):
    """An archive without a network: the suites of its offers, with empty kernels."""

    def __init__(self, root: Path, offers: Sequence[Offer]) -> None:
        super().__init__(root, "bookworm")
        names = dict.fromkeys([offer.suite for offer in offers] or ["backports"])
        self.suites = tuple(Suite(name, (name,)) for name in names)
        self.listed = tuple(offers)

    def offers(
        self, kind: Literal["kernel", "qemu"], suite: Suite, *, refresh: bool = False
    ) -> tuple[Offer, ...]:
        here = (offer for offer in self.listed if offer.suite == suite.name)
        return tuple(offer for offer in here if offer.kind == kind)

    def default_kernel_version(self, suite: Suite, *, refresh: bool = False) -> str:
        return self.listed[0].package_version

    def unpack(self, offer: Offer, tree: Path, scratch: Path) -> None:
        assert not offer.missing
        write_kernel(tree, {"kvm-amd.ko": ""})


def offered(package_version: str, *missing: str, suite: str = "backports") -> Offer:
    version = package_version.partition("-")[0]
    return Offer("kernel", version, "linux-image", package_version, suite, missing)


def cached_names(root: Path) -> list[str]:
    return [entry.label.name for entry in Store(root).entries("kernel")]


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
    expected = r"no kernel '5\.10' is available.*in the cache: 6\.1\.176, 6\.1\.192, 6\.12\.95"

    with pytest.raises(ImageError, match=expected) as raised:
        packages.get("kernel", "5.10")

    assert "offline" in str(raised.value)
    assert raised.value.fix == "check that the archive can be reached, or give a path"


def test_get_offline_with_only_a_damaged_one_is_an_error(packages: Packages) -> None:
    damaged = packages.get("kernel", "6.12")
    (damaged.tree / "vmlinuz").unlink()

    with pytest.raises(ImageError, match=r"no kernel '6\.12' is available"):
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


def with_archive(root: Path, *offers: Offer) -> Packages:
    return Packages(Store(root), root, offline=False, archive=ListedArchive(root / "apt", offers))


@pytest.mark.usefixtures("packages")
def test_newest_fetches_a_newer_one_and_keeps_the_old_one(tmp_path: Path) -> None:
    archived = with_archive(tmp_path, offered("6.12.95-1"), offered("6.12.100-1"))

    assert archived.newest("kernel", "6.12").label.name == "6.12.100-1"
    assert {"6.12.95-1", "6.12.100-1"} <= set(cached_names(tmp_path))


@pytest.mark.usefixtures("packages")
@pytest.mark.parametrize("package_version", ["6.12.94-1", "6.12.95-1", "6.12.95-1~bpo12+1"])
def test_newest_of_what_is_cached_already_fetches_nothing(
    tmp_path: Path, package_version: str
) -> None:
    before = cached_names(tmp_path)

    newest = with_archive(tmp_path, offered(package_version)).newest("kernel", "6.12")

    assert newest.label.name == "6.12.95-1"
    assert cached_names(tmp_path) == before


@pytest.mark.usefixtures("packages")
def test_newest_passes_over_what_has_gone_from_the_archive(tmp_path: Path) -> None:
    archived = with_archive(tmp_path, offered("6.12.100-1", "linux-modules=6.12.100-1"))

    assert archived.newest("kernel", "6.12").label.name == "6.12.95-1"


@pytest.mark.usefixtures("packages")
def test_newest_of_a_series_that_is_not_cached_is_fetched(tmp_path: Path) -> None:
    assert with_archive(tmp_path, offered("7.3.4-1")).newest("kernel", "7").label.version == "7.3.4"


@pytest.mark.parametrize(
    ("later", "taken"),
    [
        ("10.0.13-0", "10.0.13-0"),
        ("10.0.2-2", "10.0.2-2~bpo12+1"),  # the same, built for another release
        ("10.0.1-1", "10.0.2-2~bpo12+1"),
    ],
)
def test_get_takes_the_newest_of_all_suites_and_of_its_builds_the_first(
    tmp_path: Path, later: str, taken: str
) -> None:
    offers = offered("10.0.2-2~bpo12+1"), offered("11.1.3-1"), offered(later, suite="trixie")
    assert with_archive(tmp_path, *offers).get("kernel", "10.0").label.name == taken


@pytest.mark.usefixtures("packages")
def test_get_of_what_has_gone_says_so_and_names_the_nearest(tmp_path: Path) -> None:
    gone = offered("7.0.13-1", "linux-base-7.0.13=7.0.13-1", "linux-modules-7.0.13=7.0.13-1")
    archived = with_archive(tmp_path, offered("7.3.4-1"), offered("7.2.12-1"), gone)

    with pytest.raises(ImageError) as raised:
        archived.get("kernel", "7.0")

    assert (
        "backports lists 7.0.13 but has no linux-base-7.0.13, linux-modules-7.0.13 for it any more"
        in str(raised.value)
    )
    assert raised.value.fix == (
        "name one of these versions (the nearest is 7.2.12), or give a path"
    )


@pytest.mark.usefixtures("packages")
def test_get_of_a_version_newer_than_all_names_the_newest(tmp_path: Path) -> None:
    with pytest.raises(ImageError, match=r"the nearest is 7\.3\.4"):
        with_archive(tmp_path, offered("7.3.4-1")).get("kernel", "8.0")


def test_available_leaves_out_what_has_gone(tmp_path: Path) -> None:
    kept, gone = offered("7.3.4-1"), offered("7.0.13-1", "linux-modules=7.0.13-1")

    assert with_archive(tmp_path, kept, gone).available() == (kept,)


@pytest.mark.usefixtures("packages")
def test_series_are_those_that_are_cached_oldest_first(tmp_path: Path) -> None:
    assert with_archive(tmp_path).series("kernel") == ("6.1", "6.12")


@pytest.mark.usefixtures("packages")
def test_default_kernel_is_asked_for_again_to_refresh_it(tmp_path: Path) -> None:
    (tmp_path / "default-kernel").write_text("6.1.176-1\n")
    archived = with_archive(tmp_path, offered("6.1.200-1"))

    assert archived.default_kernel().label.name == "6.1.176-1"
    assert archived.default_kernel(refresh=True).label.name == "6.1.200-1"
    assert archived.default_kernel().label.name == "6.1.200-1"
