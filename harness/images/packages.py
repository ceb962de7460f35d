"""Kernels and QEMUs by version: from the cache if they are there, else from the archive."""

from __future__ import annotations

import itertools
import re
import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import Final, Literal

from harness.base.errors import ImageError
from harness.images.archive import Archive, package_key, running_codename, version_key
from harness.images.kernel import kernel_build, unpacked_kernel
from harness.images.model import Choice, KernelImage, Offer
from harness.images.qemu import gather
from harness.images.store import CacheEntry, Label, Store

PackageKind = Literal["kernel", "qemu"]
KINDS: Final[tuple[PackageKind, ...]] = ("kernel", "qemu")


def matches(version: str, query: str) -> bool:
    """Whether ``version`` is ``query`` or begins with it: ``6.1`` is 6.1.192 but not 6.12."""
    return version == query or version.startswith(f"{query}.")


class Packages:
    """Unpacked packages in a :class:`Store`, fetched when they are not there yet."""

    def __init__(
        self, store: Store, root: Path, *, offline: bool, archive: Archive | None = None
    ) -> None:
        self._store = store
        self._root = root
        self._offline = offline
        self._archive_or_none = archive

    def get(self, kind: PackageKind, query: str) -> CacheEntry:
        """The newest entry that ``query`` (a version, its beginning, an entry's name) fits.

        What is cached goes before what could be downloaded, so that runs can be repeated. Raises
        :class:`ImageError` naming what can be had.
        """
        entry = self.cached(kind, query)
        if entry is not None:
            return entry
        with self._store.building() as scratch:
            # Another process may have fetched it while we waited for the lock.
            return self.cached(kind, query) or self._fetch(kind, query, scratch)

    def cached(self, kind: PackageKind, query: str) -> CacheEntry | None:
        """The newest whole entry that fits, or None."""
        fitting = (
            entry
            for entry in self._store.entries(kind)
            if query == entry.label.name or matches(entry.label.version, query)
        )
        newest_first = sorted(
            fitting, key=lambda entry: package_key(entry.label.name), reverse=True
        )
        whole = (self._store.find(kind, entry.label.name) for entry in newest_first)
        return next((entry for entry in whole if entry is not None), None)

    def newest(self, kind: PackageKind, query: str) -> CacheEntry:
        """As :meth:`get`, but a newer version that the archives offer is fetched; old ones stay.

        A rebuild of the same version for another release is not newer.
        """
        with self._store.building() as scratch:
            cached = self.cached(kind, query)
            listed, failure = self._listed(kind)
            fitting = [offer for offer in listed if _fits(offer, query) and not offer.missing]
            offer = max(fitting, key=lambda offer: package_key(offer.name), default=None)
            if failure is not None and not listed:
                raise failure
            if cached is not None and (
                offer is None or _revision(offer.name) <= _revision(cached.label.name)
            ):
                return cached
            if offer is None:
                raise _unavailable(kind, query, self._store.entries(kind), listed, failure)
            return self._download(offer, scratch)

    def series(self, kind: PackageKind) -> tuple[str, ...]:
        """The series that are cached, such as ``6.12``, oldest first."""
        keys = {version_key(entry.label.version)[:2] for entry in self._store.entries(kind)}
        return tuple(".".join(map(str, key)) for key in sorted(keys))

    def default_kernel(self, *, refresh: bool = False) -> CacheEntry:
        """The running release's own kernel; which one that is, is remembered in the cache.

        To ``refresh`` it the archive is asked again.
        """
        alias = self._root / "default-kernel"
        name = alias.read_text().strip() if alias.is_file() and not refresh else None
        if name is not None and (entry := self._store.find("kernel", name)) is not None:
            return entry
        with self._store.building() as scratch:
            suite = self.archive.suites[0]
            name = self.archive.default_kernel_version(suite, refresh=refresh)
            entry = self.cached("kernel", name) or self._fetch("kernel", name, scratch)
            (scratch / "alias").write_text(name + "\n")
            (scratch / "alias").replace(alias)
        return entry

    def debug_module(self, kernel: KernelImage, module: str, scratch: Path) -> bytes:
        """A module of ``kernel`` with its debug information, from the kernel's debug package.

        :class:`ImageError` where the archive has none of exactly that kernel.
        """
        if kernel.modules_dir is None:
            raise ImageError(f"{kernel.name} has no modules")
        package, version = (
            f"linux-image-{kernel.modules_dir.name}-dbg",
            kernel_build(kernel).package,
        )
        return self.archive.file_of(package, version, f"/{module}.ko", scratch)

    def available(self) -> tuple[Offer, ...]:
        """What can be downloaded; a suite that cannot be asked is left out if another can."""
        with self._store.building():
            asked = [self._listed(kind) for kind in KINDS]
        listed = tuple(offer for offers, _ in asked for offer in offers)
        failure = next((failure for _, failure in asked if failure is not None), None)
        if not listed and failure is not None:
            raise failure
        return tuple(offer for offer in listed if not offer.missing)

    def choices(self, kind: PackageKind) -> tuple[Choice, ...]:
        """Each version that is cached or offered, once, oldest first.

        Without the archive these are the cached ones; :class:`ImageError` if there are none.
        """
        cached = [
            Choice(entry.label.name, entry.label.version, True, entry.label.source)
            for entry in sorted(
                self._store.entries(kind), key=lambda e: package_key(e.label.name), reverse=True
            )
        ]
        try:
            offers = self.available()
        except ImageError:
            if not cached:
                raise
            offers = ()
        offered = [
            Choice(offer.name, offer.version, False, offer.suite)
            for offer in offers
            if offer.kind == kind
        ]
        once: dict[str, Choice] = {}
        for choice in (*cached, *offered):
            if not any(matches(version, choice.version) for version in once):
                once[choice.version] = choice
        return tuple(sorted(once.values(), key=lambda choice: version_key(choice.version)))

    @property
    def archive(self) -> Archive:
        """The archive of the running release; :class:`ImageError` where there is none."""
        if self._archive_or_none is None:
            self._archive_or_none = Archive(
                self._root / "apt", running_codename(), offline=self._offline
            )
        return self._archive_or_none

    def _listed(self, kind: PackageKind) -> tuple[tuple[Offer, ...], ImageError | None]:
        """What the suites list, gone or not, and the first failure to ask one."""
        listed: list[Offer] = []
        failure: ImageError | None = None
        for suite in self.archive.suites:
            try:
                listed += self.archive.offers(kind, suite, refresh=True)
            except ImageError as error:
                failure = failure or error
        return tuple(listed), failure

    def _fetch(self, kind: PackageKind, query: str, scratch: Path) -> CacheEntry:
        """The newest that fits, of its builds for several releases the first suite's.

        An old index may name what is gone, so look twice.
        """
        seen: list[Offer] = []
        failure: ImageError | None = None
        for refresh in (False, True):
            newest: list[Offer] = []
            for suite in self.archive.suites:
                try:
                    offers = self.archive.offers(kind, suite, refresh=refresh)
                except ImageError as error:
                    failure = failure or error
                    continue
                seen += offers
                fitting = (one for one in offers if _fits(one, query) and not one.missing)
                newest += itertools.islice(fitting, 1)
            # Sorting is stable: the suites' order decides between builds of one revision.
            for offer in sorted(newest, key=lambda offer: _revision(offer.name), reverse=True):
                try:
                    return self._download(offer, scratch)
                except ImageError as error:
                    failure = failure or error
        raise _unavailable(kind, query, self._store.entries(kind), seen, failure) from failure

    def _download(self, offer: Offer, scratch: Path) -> CacheEntry:
        scratch = Path(tempfile.mkdtemp(dir=scratch))
        unpacked = scratch / "unpacked"
        self.archive.unpack(offer, unpacked, scratch / "packages")
        if offer.kind == "kernel":
            unpacked_kernel(offer.name, unpacked, offer.suite)
            label = Label("kernel", offer.name, offer.version, offer.suite)
            return self._store.publish(label, unpacked)
        tree = scratch / "tree"
        version = ".".join(map(str, gather(unpacked, tree)))
        return self._store.publish(Label("qemu", offer.name, version, offer.suite), tree)


def _fits(offer: Offer, query: str) -> bool:
    return query == offer.name or matches(offer.version, query)


def _revision(name: str) -> tuple[tuple[int, ...], ...]:
    """Orders packages by version and revision, whichever release they are built for."""
    return package_key(name)[:2]


def _unavailable(
    kind: PackageKind,
    query: str,
    entries: Iterable[CacheEntry],
    listed: Iterable[Offer],
    failure: ImageError | None,
) -> ImageError:
    noun = "kernel" if kind == "kernel" else "QEMU"
    cached = [entry.label.version for entry in entries]
    why = [f"in the cache: {', '.join(cached) or 'none'}"]
    # Of each series only the newest: the archive keeps dozens of kernels.
    newest: dict[tuple[str, tuple[int, ...]], Offer] = {}
    gone: dict[str, Offer] = {}
    for offer in listed:
        if not offer.missing:
            newest.setdefault((offer.suite, version_key(offer.version)[:2]), offer)
        elif _fits(offer, query):
            gone.setdefault(offer.suite, offer)
    for offer in gone.values():
        parts = ", ".join(part.partition("=")[0] for part in offer.missing)
        why.append(f"{offer.suite} lists {offer.version} but has no {parts} for it any more")
    why += [f"{offer.suite} offers {offer.version}" for offer in newest.values()]
    if failure is not None:
        why.append(f"{failure.what} ({failure.why})" if failure.why else failure.what)
    fix = "name one of these versions, or give a path"
    if failure is not None and not newest:
        fix = "check that the archive can be reached, or give a path"
    elif nearest := _nearest(query, [*cached, *(offer.version for offer in newest.values())]):
        fix = f"name one of these versions (the nearest is {nearest}), or give a path"
    return ImageError(f"no {noun} {query!r} is available", "; ".join(why), fix)


def _nearest(query: str, versions: Iterable[str]) -> str | None:
    """The next newer version, or else the newest older one; None if ``query`` is no version."""
    if not re.fullmatch(r"\d+(\.\d+)*", query):
        return None
    wanted = version_key(query)
    ordered = sorted(set(versions), key=version_key)
    newer = next((version for version in ordered if version_key(version) > wanted), None)
    return newer or next(reversed(ordered), None)
