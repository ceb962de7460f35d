"""The distribution's package archive, asked through apt without touching the system.

Every suite has its own source list, index and configuration below the cache; the package status
is empty, so that apt resolves a package with everything that it needs. Nothing is installed.
The mirror, proxies and credentials are the system's own.
"""

from __future__ import annotations

import hashlib
import itertools
import os
import re
import subprocess
import tarfile
import time
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final, Literal

from harness.base.errors import ImageError
from harness.base.text import LONG_NUMBER
from harness.images.model import Offer

KERNEL_PACKAGE: Final = re.compile(r"linux-image-\d+\.\d+\.\d+\S*-cloud-amd64")
KERNEL_META_PACKAGE: Final = "linux-image-cloud-amd64"
QEMU_PACKAGE: Final = "qemu-system-x86"
_FOREIGN_SUITES: Final = ("bookworm", "bookworm-backports", "trixie", "trixie-backports")
_KEYRING: Final = Path("/usr/share/keyrings/debian-archive-keyring.gpg")
_TARGETS: Final = "$(RELEASE)|$(COMPONENT)|$(REPO_URI)"
_INDEX_AGE_S: Final = 3600.0
_TIMEOUT_S: Final = 900.0


@dataclass(frozen=True, slots=True)
class Mirror:
    """Base addresses that the system's apt is configured with."""

    main: str
    security: str | None


@dataclass(frozen=True, slots=True)
class Suite:
    """A release of the distribution, with the releases that complete it."""

    name: str
    releases: tuple[str, ...]
    security: str | None = None


@dataclass(frozen=True, slots=True)
class Download:
    """A package file as apt announces it."""

    filename: str
    size_bytes: int
    sha256: str


def running_codename(os_release: Path = Path("/etc/os-release")) -> str:
    """The codename of the running Debian; :class:`ImageError` on anything else."""
    try:
        lines = os_release.read_text().splitlines()
    except OSError as error:
        raise ImageError("cannot find out which distribution this is", str(error), _FIX) from error
    values = dict(line.replace('"', "").split("=", 1) for line in lines if "=" in line)
    codename = values.get("VERSION_CODENAME")
    if values.get("ID") != "debian" or codename is None:
        found = values.get("PRETTY_NAME", "an unnamed distribution")
        raise ImageError("no archive to download from", f"this is {found}, not Debian", _FIX)
    return codename


_FIX: Final = "give kernels and QEMUs as paths, or use the system's QEMU"


def suites(codename: str) -> tuple[Suite, ...]:
    """The suites to offer on that release: its own first, which has priority."""
    own = Suite(codename, (codename, f"{codename}-updates"), f"{codename}-security")
    names = dict.fromkeys((f"{codename}-backports", *_FOREIGN_SUITES))
    others = (Suite(name, _completed(name)) for name in names if name != codename)
    return (own, *others)


def _completed(name: str) -> tuple[str, ...]:
    base = name.removesuffix("-backports")
    return (name,) if base == name else (name, base)


def parse_mirror(index_targets: str, codename: str) -> Mirror:
    """Read ``apt-get indextargets`` in the format release|component|address.

    :class:`ImageError` where ``codename`` is not among the releases.
    """
    rows = [line.split("|") for line in index_targets.splitlines() if line.count("|") == 2]
    addresses = {release: address for release, component, address in rows if component == "main"}
    if codename not in addresses:
        raise ImageError(
            f"apt knows no source of {codename}",
            f"it has {', '.join(sorted(addresses)) or 'none at all'}",
            f"add {codename} main to the system's apt sources",
        )
    return Mirror(addresses[codename], addresses.get(f"{codename}-security"))


def parse_offers(madison: str, kind: Literal["kernel", "qemu"], suite: str) -> tuple[Offer, ...]:
    """Read ``apt-cache madison``: package | version | source, newest version first."""
    rows = [[field.strip() for field in line.split("|")] for line in madison.splitlines()]
    # A suite's index names the suite that it completes too; only its own packages are offered.
    base = suite.removesuffix("-backports")
    offers = dict.fromkeys(
        Offer(kind, upstream_version(version), package, version, suite)
        for package, version, source in (row for row in rows if len(row) == 3)
        if base == suite or f" {suite}/" in f" {source}"
    )
    return tuple(sorted(offers, key=lambda offer: package_key(offer.package_version), reverse=True))


def parse_meta_package(shown: str) -> str:
    """Read ``apt-cache show`` of the meta package: the version of the kernel it depends on.

    :class:`ImageError` where it depends on none.
    """
    match = re.search(rf"^Depends: ({KERNEL_PACKAGE.pattern}) \(= (\S+)\)", shown, re.MULTILINE)
    if match is None:
        raise ImageError(f"{KERNEL_META_PACKAGE} names no kernel", f"apt says {shown[:80]!r}")
    return match[2]


def parse_parts(shown: str) -> Mapping[str, tuple[str, ...]]:
    """Read ``apt-cache show``: of each ``package=version`` the packages that it is split into.

    Those are its dependencies on exactly its own version. Debian's kernels from 6.19 on are split
    into ``linux-binary`` (the kernel), ``linux-modules`` and ``linux-base`` (``modules.builtin``,
    configuration); an older one has all in itself, and needs no ``linux-base``.
    """
    return {
        f"{fields['Package']}={fields['Version']}": _parts(fields)
        for stanza in shown.split("\n\n")
        if {"Package", "Version"}
        <= (fields := dict(re.findall(r"^(\S+): (.*)$", stanza, re.MULTILINE))).keys()
    }


def _parts(fields: Mapping[str, str]) -> tuple[str, ...]:
    pinned = re.findall(r"(?:^|, )(\S+) \(= ([^)\s]+)\)(?=,|$)", fields.get("Depends", ""))
    names = [name for name, version in pinned if version == fields["Version"]]
    if fields["Package"].startswith("linux-image-"):
        split = any(name.startswith("linux-modules-") for name in names)
        names = names if split else []
    return tuple(f"{name}={fields['Version']}" for name in names)


def parse_versions(madison: str) -> frozenset[str]:
    """Read ``apt-cache madison``: every ``package=version`` that can be downloaded."""
    rows = ([field.strip() for field in line.split("|")] for line in madison.splitlines())
    return frozenset(f"{row[0]}={row[1]}" for row in rows if len(row) == 3)


def mark_missing(
    offers: Iterable[Offer], parts: Mapping[str, Iterable[str]], there: Collection[str]
) -> tuple[Offer, ...]:
    """The offers, each with those of its parts that are not ``there`` (``package=version``)."""
    return tuple(
        replace(
            offer, missing=tuple(part for part in parts.get(_exact(offer), ()) if part not in there)
        )
        for offer in offers
    )


def upstream_version(package_version: str) -> str:
    """``1:10.0.2+ds-2+deb13u1~bpo12+1`` to ``10.0.2``; :class:`ImageError` for no version."""
    match = re.match(r"(?:\d+:)?(\d+(?:\.\d+)*)", package_version)
    if match is None or LONG_NUMBER.search(package_version) is not None:
        raise ImageError(f"cannot read the package version {package_version!r}")
    return match[1]


def version_key(version: str) -> tuple[int, ...]:
    """``6.1.192`` to ``(6, 1, 192)``, to compare by."""
    return tuple(int(part) for part in version.split("."))


def package_key(package_version: str) -> tuple[tuple[int, ...], ...]:
    """Upstream's version, then the numbers of the revision: 6.1.192-2 is newer than 6.1.192-1.

    Last, what follows a tilde: 6.12.117-1~deb12u1 is 6.12.117-1 built again for an older release,
    and counts as older (Debian Policy, 5.6.12 "Version").
    """
    upstream = upstream_version(package_version)
    revision, tilde, rebuilt = package_version.partition(upstream)[2].partition("~")
    return version_key(upstream), _numbers(revision), (0, *_numbers(rebuilt)) if tilde else (1,)


def _numbers(text: str) -> tuple[int, ...]:
    return tuple(int(number) for number in re.findall(r"\d+", text))


def parse_downloads(print_uris: str) -> tuple[Download, ...]:
    """Read ``apt-get --print-uris``: 'address' file size SHA256:hash."""
    pattern = re.compile(r"^'[^']+' (\S+) (\d{1,20}) SHA256:([0-9a-f]{64})$", re.MULTILINE)
    return tuple(
        Download(name, int(size), sha256) for name, size, sha256 in pattern.findall(print_uris)
    )


def file_sha256(path: Path) -> str:
    """The SHA-256 of a file, in hexadecimal."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


class Archive:
    """The suites of the running release's archive, with their indexes below ``root``.

    What apt refuses, or cannot do ``offline``, is an :class:`ImageError` of every method.
    """

    def __init__(self, root: Path, codename: str, *, offline: bool = False) -> None:
        self.suites = suites(codename)
        self._root = root
        self._codename = codename
        self._offline = offline

    def offers(
        self, kind: Literal["kernel", "qemu"], suite: Suite, *, refresh: bool = False
    ) -> tuple[Offer, ...]:
        """What ``suite`` lists; fetches its index if there is none, or an old one to refresh.

        An offer of which parts are ``missing`` is listed, but cannot be downloaded any more: the
        archive keeps signed kernels longer than the modules that they were built with.
        """
        self._index(suite, refresh=refresh)
        packages: Iterable[str] = (QEMU_PACKAGE,)
        if kind == "kernel":
            names = self._apt(suite, "apt-cache", "pkgnames", "linux-image-").split()
            packages = sorted(filter(KERNEL_PACKAGE.fullmatch, names))
        listed = self._apt(suite, "apt-cache", "madison", *packages)
        offers = parse_offers(listed, kind, suite.name)
        parts = self._parts(suite, [_exact(offer) for offer in offers])
        names = sorted({part.partition("=")[0] for pinned in parts.values() for part in pinned})
        there = parse_versions(self._apt(suite, "apt-cache", "madison", *names)) if names else ()
        return mark_missing(offers, parts, there)

    def _parts(self, suite: Suite, packages: Sequence[str]) -> Mapping[str, tuple[str, ...]]:
        return parse_parts(self._apt(suite, "apt-cache", "show", *packages)) if packages else {}

    def default_kernel_version(self, suite: Suite, *, refresh: bool = False) -> str:
        """The package version of the kernel that the suite's meta package stands for."""
        self._index(suite, refresh=refresh)
        shown = self._apt(suite, "apt-cache", "show", "--no-all-versions", KERNEL_META_PACKAGE)
        return parse_meta_package(shown)

    def unpack(self, offer: Offer, tree: Path, scratch: Path) -> None:
        """Download ``offer`` (a QEMU with its whole closure) to ``scratch``, unpack it to ``tree``.

        Every file is compared with the hash of the signed index before it is unpacked.
        """
        suite = next(suite for suite in self.suites if suite.name == offer.suite)
        package = _exact(offer)
        # Named, because of each dependency apt would take the newest version.
        wanted = (package, *self._parts(suite, [package]).get(package, ()))
        if offer.kind == "kernel":
            command: Sequence[str] = ("apt-get", "download", *wanted)
        else:
            command = ("apt-get", "install", "--download-only", "--yes")
            command += ("--no-install-recommends", "-t", offer.suite, *wanted, "ipxe-qemu")
        tree.mkdir(parents=True, exist_ok=True)
        for path in self._download(suite, command, package, scratch):
            _run(["dpkg-deb", "-x", str(path), str(tree)])
            path.unlink()

    def file_of(self, package: str, version: str, ending: str, scratch: Path) -> bytes:
        """The file whose path ends so, out of a package, of which nothing else is unpacked.

        The package is downloaded to ``scratch``, from the first suite that has that very version.
        """
        wanted = f"{package}={version}"
        failure: ImageError | None = None
        for refresh, suite in itertools.product((False, True), self.suites):
            try:
                self._index(suite, refresh=refresh)
                there = parse_versions(self._apt(suite, "apt-cache", "madison", package))
                if wanted in there:
                    (path,) = self._download(
                        suite, ("apt-get", "download", wanted), wanted, scratch
                    )
                    return _member(path, ending)
            except ImageError as error:
                failure = failure or error
        raise failure or ImageError(
            f"no suite of the archive has {wanted}",
            f"asked {', '.join(suite.name for suite in self.suites)}",
            "the archive keeps the newest versions only: refresh the kernel and record again",
        )

    def _download(
        self, suite: Suite, command: Sequence[str], package: str, scratch: Path
    ) -> tuple[Path, ...]:
        """What ``command`` downloads, each file as the signed index has it."""
        options = ("-o", f"Dir::Cache::archives={scratch}", "-o", "Acquire::ForceHash=SHA256")
        (scratch / "partial").mkdir(parents=True, exist_ok=True)
        announced = parse_downloads(
            self._apt(suite, *command, "-qq", "--print-uris", *options, cwd=scratch)
        )
        if not announced:
            raise ImageError(f"apt does not report how to get {package} from {suite.name}")
        self._apt(suite, *command, "-qq", *options, cwd=scratch)
        return tuple(_verified(scratch / each.filename, each) for each in announced)

    def _index(self, suite: Suite, *, refresh: bool) -> None:
        stamp = self._root / suite.name / "updated"
        age_s = time.time() - stamp.stat().st_mtime if stamp.exists() else None
        if age_s is not None and (self._offline or not refresh or age_s < _INDEX_AGE_S):
            return
        if self._offline:
            raise ImageError(
                f"the index of {suite.name} is not in the cache", "working offline", "go online"
            )
        self._configure(suite)
        self._apt(suite, "apt-get", "update", "-qq", "--error-on=any")
        stamp.touch()

    def _configure(self, suite: Suite) -> None:
        targets = ["apt-get", "indextargets", "--format", _TARGETS, "Created-By: Packages"]
        mirror = parse_mirror(_run(targets), self._codename)
        root = self._root / suite.name
        for folder in ("lists/partial", "cache/archives/partial"):
            (root / folder).mkdir(parents=True, exist_ok=True)
        (root / "status").touch()
        (root / "sources.list").write_text(_source_lines(suite, mirror))
        # Proxies may hold a password: the copy is for the owner's eyes.
        config = root / "apt.conf"
        config.touch(mode=0o600)
        config.write_text(_run(["apt-config", "dump", "Acquire"]) + _configuration(root))

    def _apt(self, suite: Suite, *command: str, cwd: Path | None = None) -> str:
        if self._offline and command[0] == "apt-get":
            raise ImageError(f"cannot download from {suite.name}", "working offline", "go online")
        return _run(command, apt_config=self._root / suite.name / "apt.conf", cwd=cwd)


def _exact(offer: Offer) -> str:
    return f"{offer.package}={offer.package_version}"


def _source_lines(suite: Suite, mirror: Mirror) -> str:
    signed = f"[signed-by={_KEYRING}] " if _KEYRING.exists() else ""
    sources = [(mirror.main, release) for release in suite.releases]
    if suite.security is not None and mirror.security is not None:
        sources.append((mirror.security, suite.security))
    return "".join(f"deb {signed}{address} {release} main\n" for address, release in sources)


def _configuration(root: Path) -> str:
    settings = {
        "Dir::Etc::sourcelist": root / "sources.list",
        "Dir::Etc::sourceparts": "/dev/null",
        "Dir::Etc::parts": "/dev/null",
        "Dir::Etc::main": "/dev/null",
        "Dir::Etc::preferences": "/dev/null",
        "Dir::Etc::preferencesparts": "/dev/null",
        "Dir::State": root,
        "Dir::State::lists": root / "lists",
        "Dir::State::status": root / "status",
        "Dir::Cache": root / "cache",
        "Dir::Cache::srcpkgcache": "",
        "Acquire::Languages": "none",
        "Acquire::Retries": "2",
        "APT::Sandbox::User": "",
        "Debug::NoLocking": "true",
    }
    return "".join(f'{key} "{value}";\n' for key, value in settings.items())


def _verified(package: Path, download: Download) -> Path:
    found = file_sha256(package) if package.exists() else "no such file"
    if found != download.sha256:
        raise ImageError(
            f"the download {download.filename} is damaged",
            f"SHA-256 is {found}, the archive's index says {download.sha256}",
            "try again; if it happens again, the mirror is broken",
        )
    return package


def _member(package: Path, ending: str) -> bytes:
    """The file in a package whose path ends so; the rest is not even decompressed."""
    command = ("dpkg-deb", "--fsys-tarfile", str(package))
    try:
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as unpack:
            try:
                with tarfile.open(fileobj=unpack.stdout, mode="r|") as tar:
                    for member in tar:
                        if member.isreg() and member.name.endswith(ending):
                            file = tar.extractfile(member)
                            assert file is not None
                            return file.read()
            finally:
                unpack.kill()
    except (OSError, tarfile.TarError) as error:
        raise ImageError(f"cannot unpack {package.name}", str(error), _FIX) from error
    raise ImageError(f"{package.name} has no file that ends in {ending}")


def _run(command: Sequence[str], *, apt_config: Path | None = None, cwd: Path | None = None) -> str:
    environment = {**os.environ, "LC_ALL": "C", "DEBIAN_FRONTEND": "noninteractive"}
    if apt_config is not None:
        environment["APT_CONFIG"] = str(apt_config)
    try:
        return subprocess.run(
            command,
            check=True,
            capture_output=True,
            text=True,
            timeout=_TIMEOUT_S,
            env=environment,
            cwd=cwd,
            stdin=subprocess.DEVNULL,
        ).stdout
    except FileNotFoundError as error:
        raise ImageError(
            f"{command[0]} is missing", "kernels and QEMUs are downloaded with apt", _FIX
        ) from error
    except subprocess.CalledProcessError as error:
        said = error.stderr.strip().splitlines()[-3:] or [f"exit status {error.returncode}"]
        raise ImageError(f"{' '.join(command[:2])} failed", "; ".join(said)) from error
    except subprocess.TimeoutExpired as error:
        raise ImageError(
            f"{' '.join(command[:2])} did not end", f"within {error.timeout:.0f} s"
        ) from error
