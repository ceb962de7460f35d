from __future__ import annotations

import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

import pytest

from harness.base.errors import ImageError
from harness.images.archive import (
    Archive,
    Download,
    Mirror,
    Suite,
    mark_missing,
    package_key,
    parse_downloads,
    parse_meta_package,
    parse_mirror,
    parse_offers,
    parse_parts,
    parse_versions,
    running_codename,
    suites,
    upstream_version,
    version_key,
)

TARGETS = """\
bookworm|main|http://mirror.example/debian/
bookworm-updates|main|http://mirror.example/debian/
bookworm-security|main|http://mirror.example/debian-security/
nodistro|main|https://other.example/node/
bookworm|contrib|http://mirror.example/other/
"""

MADISON = """\
linux-image-6.1.0-50-cloud-amd64 |  6.1.176-1 | http://m/debian bookworm/main amd64 Packages
linux-image-6.1.0-56-cloud-amd64 |  6.1.192-2 | http://m/debian-security bookworm-security/main amd64 Packages
linux-image-6.12.95+deb12-cloud-amd64 | 6.12.95-1~bpo12+1 | http://m/debian bookworm-backports/main amd64 Packages
"""  # noqa: E501

META = """\
Package: linux-image-cloud-amd64
Version: 6.1.192-2
Depends: linux-image-6.1.0-56-cloud-amd64 (= 6.1.192-2)
Section: kernel
"""

GOLDEN = Path(__file__).parents[2] / "golden" / "images"
SHOWN = (GOLDEN / "trixie-backports.show").read_text()
LISTED = (GOLDEN / "trixie-backports.madison").read_text()
"""What apt-cache of trixie-backports printed on 2026-11-29, of these packages and their parts."""


def test_mirror_is_that_of_the_running_release() -> None:
    assert parse_mirror(TARGETS, "bookworm") == Mirror(
        "http://mirror.example/debian/", "http://mirror.example/debian-security/"
    )


def test_mirror_without_security_has_none() -> None:
    assert parse_mirror("bookworm|main|http://m/debian/\n", "bookworm").security is None


def test_mirror_of_a_release_that_apt_does_not_know_is_an_error() -> None:
    with pytest.raises(ImageError, match=r"no source of trixie: it has bookworm, bookworm-sec"):
        parse_mirror(TARGETS, "trixie")


def test_offers_of_the_own_suite_have_its_updates_newest_first() -> None:
    offers = parse_offers(MADISON.replace("bookworm-backports", "bookworm"), "kernel", "bookworm")

    assert [offer.version for offer in offers] == ["6.12.95", "6.1.192", "6.1.176"]
    assert offers[1].package == "linux-image-6.1.0-56-cloud-amd64"
    assert offers[1].package_version == "6.1.192-2"


def test_offers_of_one_version_have_the_newest_revision_first() -> None:
    madison = "".join(
        f"linux-image-{abi}-cloud-amd64 | 6.1.192-{revision} | http://m/debian bookworm/main\n"
        for abi, revision in (("6.1.0-55", 1), ("6.1.0-57", 10), ("6.1.0-56", 2))
    )

    offers = parse_offers(madison, "kernel", "bookworm")

    assert [offer.package_version for offer in offers] == ["6.1.192-10", "6.1.192-2", "6.1.192-1"]


def test_offers_of_backports_leave_out_what_only_completes_them() -> None:
    offers = parse_offers(MADISON, "kernel", "bookworm-backports")

    assert [(offer.version, offer.suite) for offer in offers] == [("6.12.95", "bookworm-backports")]


def test_meta_package_names_the_kernel_it_stands_for() -> None:
    assert parse_meta_package(META) == "6.1.192-2"


def test_meta_package_without_a_kernel_is_an_error() -> None:
    with pytest.raises(ImageError, match="linux-image-cloud-amd64 names no kernel"):
        parse_meta_package("Package: linux-image-cloud-amd64\n")


def test_parts_of_a_split_kernel_are_its_binary_modules_and_what_is_common() -> None:
    assert parse_parts(SHOWN)["linux-image-7.3.4+deb13-cloud-amd64=7.3.4-1~bpo13+1"] == (
        "linux-base-7.3.4+deb13-cloud-amd64=7.3.4-1~bpo13+1",
        "linux-binary-7.3.4+deb13-cloud-amd64=7.3.4-1~bpo13+1",
        "linux-modules-7.3.4+deb13-cloud-amd64=7.3.4-1~bpo13+1",
    )


def test_parts_of_a_whole_kernel_are_none() -> None:
    assert parse_parts(SHOWN)["linux-image-6.12.117+deb13-cloud-amd64=6.12.117-1"] == ()


def test_parts_of_a_whole_kernel_leave_out_the_common_ones_that_it_has_itself() -> None:
    version = "6.18.15+deb13-cloud-amd64=6.18.15-1~bpo13+1"
    assert parse_parts(SHOWN)[f"linux-image-{version}"] == ()


def test_parts_of_a_qemu_are_what_it_needs_of_its_own_version() -> None:
    assert parse_parts(SHOWN)["qemu-system-x86=1:11.1.3+ds-1~bpo13+1"] == (
        "qemu-system-common=1:11.1.3+ds-1~bpo13+1",
    )


def test_offers_of_which_parts_have_gone_from_the_archive_are_marked() -> None:
    offers = parse_offers(LISTED, "kernel", "trixie-backports")

    marked = mark_missing(offers, parse_parts(SHOWN), parse_versions(LISTED))

    kernels = {offer.version: offer.missing for offer in marked if "image" in offer.package}
    assert kernels == {
        "7.3.4": (),
        "7.0.13": (
            "linux-base-7.0.13+deb13-cloud-amd64=7.0.13-1~bpo13+1",
            "linux-modules-7.0.13+deb13-cloud-amd64=7.0.13-1~bpo13+1",
        ),
        "6.18.15": (),
    }


@pytest.mark.parametrize(
    ("older", "newer"),
    [
        ("6.12.9-1", "6.12.10-1"),
        ("6.1.192-1", "6.1.192-2"),
        ("6.12.117-1~deb12u1", "6.12.117-1"),
        ("7.3.4-1~bpo13+1", "7.3.4-1~bpo13+2"),
        ("7.2+dfsg-7+deb12u15", "7.2+dfsg-7+deb12u18+b3"),
    ],
)
def test_package_key_orders_as_the_archive_does(older: str, newer: str) -> None:
    assert package_key(older) < package_key(newer)


@pytest.mark.parametrize(
    ("package_version", "expected"),
    [
        ("6.1.192-2", "6.1.192"),
        ("1:7.2+dfsg-7+deb12u18+b3", "7.2"),
        ("1:10.0.2+ds-2+deb13u1~bpo12+1", "10.0.2"),
    ],
)
def test_upstream_version_is_without_epoch_and_revision(
    package_version: str, expected: str
) -> None:
    assert upstream_version(package_version) == expected


def test_version_key_orders_numbers_not_texts() -> None:
    assert sorted(["6.12.9", "6.1.192", "6.12.10"], key=version_key) == [
        *("6.1.192", "6.12.9", "6.12.10")
    ]


def test_downloads_have_file_size_and_hash() -> None:
    announced = f"'http://m/pool/a_1%3a2_amd64.deb' a_1%3a2_amd64.deb 123 SHA256:{'ab' * 32}\n"

    assert parse_downloads(announced) == (Download("a_1%3a2_amd64.deb", 123, "ab" * 32),)


def test_codename_is_that_of_the_running_debian(tmp_path: Path) -> None:
    os_release = tmp_path / "os-release"
    os_release.write_text('ID=debian\nVERSION_CODENAME=bookworm\nNAME="Debian GNU/Linux"\n')

    assert running_codename(os_release) == "bookworm"


def test_codename_on_another_distribution_is_an_error_that_names_it(tmp_path: Path) -> None:
    os_release = tmp_path / "os-release"
    os_release.write_text('ID=fedora\nPRETTY_NAME="Fedora Linux 43"\n')

    with pytest.raises(ImageError, match=r"Fedora Linux 43, not Debian \(give kernels and QEMUs"):
        running_codename(os_release)


def test_suites_begin_with_the_own_one_and_repeat_none() -> None:
    names = [suite.name for suite in suites("trixie")]

    assert names == ["trixie", "trixie-backports", "bookworm", "bookworm-backports"]


def test_suites_of_backports_are_completed_by_their_base() -> None:
    releases = {suite.name: suite.releases for suite in suites("bookworm")}

    assert releases["bookworm-backports"] == ("bookworm-backports", "bookworm")
    assert releases["trixie"] == ("trixie",)


def test_archive_offline_without_an_index_says_so(tmp_path: Path) -> None:
    archive = Archive(tmp_path, "bookworm", offline=True)

    with pytest.raises(ImageError, match=r"index of bookworm is not in the cache.*offline"):
        archive.offers("kernel", archive.suites[0])


class StubArchive(Archive):
    """An archive of one package file, without apt."""

    def __init__(self, root: Path, package: Path) -> None:
        super().__init__(root, "bookworm")
        self.package = package
        self.asked: list[str] = []

    def _index(self, suite: Suite, *, refresh: bool) -> None:
        pass

    def _apt(self, suite: Suite, *command: str, cwd: Path | None = None) -> str:
        self.asked.append(suite.name)
        return "dbg | 6.1.192-3 | http://m/debian bookworm/main amd64 Packages\n"

    def _download(
        self, suite: Suite, command: Sequence[str], package: str, scratch: Path
    ) -> tuple[Path, ...]:
        assert command == ("apt-get", "download", "dbg=6.1.192-3")
        return (self.package,)


@pytest.fixture
def archive(tmp_path: Path) -> StubArchive:
    """One with a package that has two modules."""
    if shutil.which("dpkg-deb") is None:
        pytest.skip("there is no dpkg-deb")
    tree = tmp_path / "dbg"
    for name in ("DEBIAN/control", "usr/kvm/kvm-amd.ko", "usr/kvm/kvm.ko"):
        (tree / name).parent.mkdir(parents=True, exist_ok=True)
        (tree / name).write_text(f"content of {name}")
    (tree / "DEBIAN" / "control").write_text(
        "Package: dbg\nVersion: 6.1.192-3\nArchitecture: all\nMaintainer: a\nDescription: b\n"
    )
    package = tmp_path / "dbg.deb"
    build = ["dpkg-deb", "--root-owner-group", "--build", str(tree), str(package)]
    subprocess.run(build, check=True, capture_output=True)
    return StubArchive(tmp_path / "apt", package)


def test_file_of_a_package_is_the_one_whose_path_ends_so(
    archive: StubArchive, tmp_path: Path
) -> None:
    found = archive.file_of("dbg", "6.1.192-3", "/kvm.ko", tmp_path)

    assert found == b"content of usr/kvm/kvm.ko"


def test_file_that_a_package_has_not_is_an_error(archive: StubArchive, tmp_path: Path) -> None:
    with pytest.raises(ImageError, match=r"no file that ends in /missing\.ko"):
        archive.file_of("dbg", "6.1.192-3", "/missing.ko", tmp_path)


def test_package_that_no_suite_has_in_that_version_is_an_error(
    archive: StubArchive, tmp_path: Path
) -> None:
    with pytest.raises(ImageError, match=r"no suite of the archive has dbg=6\.1\.192-9"):
        archive.file_of("dbg", "6.1.192-9", "/kvm.ko", tmp_path)
    assert set(archive.asked) == {suite.name for suite in archive.suites}
