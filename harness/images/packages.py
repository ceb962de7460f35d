"""Kernels and QEMUs by version: from the cache if they are there, else from the archive."""

from __future__ import annotations

import itertools
import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import Final, Literal

from harness.base.errors import ImageError
from harness.images.archive import Archive, package_key, running_codename, version_key
from harness.images.kernel import unpacked_kernel
from harness.images.model import Choice, Offer
from harness.images.qemu import gather
from harness.images.store import Entry, Label, Store

PackageKind = Literal["kernel", "qemu"]
KINDS: Final[tuple[PackageKind, ...]] = ("kernel", "qemu")


def matches(version: str, query: str) -> bool:
    """Whether ``version`` is ``query`` or begins with it: ``6.1`` is 6.1.192 but not 6.12."""
    return version == query or version.startswith(f"{query}.")


class Packages:
    """Unpacked packages in a :class:`Store`, fetched when they are not there yet."""

    def __init__(self, store: Store, root: Path, *, offline: bool) -> None:
        self._store = store
        self._root = root
        self._offline = offline
        self._archive_or_none: Archive | None = None

    def get(self, kind: PackageKind, query: str) -> Entry:
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

    def cached(self, kind: PackageKind, query: str) -> Entry | None:
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

    def default_kernel(self) -> Entry:
        """The running release's own kernel; which one that is, is remembered in the cache."""
        alias = self._root / "default-kernel"
        name = alias.read_text().strip() if alias.is_file() else None
        if name is not None and (entry := self._store.find("kernel", name)) is not None:
            return entry
        with self._store.building() as scratch:
            name = self.archive.default_kernel_version(self.archive.suites[0])
            entry = self.cached("kernel", name) or self._fetch("kernel", name, scratch)
            (scratch / "alias").write_text(name + "\n")
            (scratch / "alias").replace(alias)
        return entry

    def available(self) -> tuple[Offer, ...]:
        """What the archives offer; a suite that cannot be asked is left out if another can."""
        offers: list[Offer] = []
        failure: ImageError | None = None
        with self._store.building():
            for suite in self.archive.suites:
                try:
                    for kind in KINDS:
                        offers += self.archive.offers(kind, suite, refresh=True)
                except ImageError as error:
                    failure = failure or error
        if not offers and failure is not None:
            raise failure
        return tuple(offers)

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
            Choice(_entry_name(offer), offer.version, False, offer.suite)
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

    def _fetch(self, kind: PackageKind, query: str, scratch: Path) -> Entry:
        """From the first suite that has it; an old index may name what is gone, so look twice."""
        seen: list[Offer] = []
        failure: ImageError | None = None
        for refresh, suite in itertools.product((False, True), self.archive.suites):
            try:
                offers = self.archive.offers(kind, suite, refresh=refresh)
                for offer in offers:
                    if query == _entry_name(offer) or matches(offer.version, query):
                        return self._download(offer, scratch)
            except ImageError as error:
                failure = failure or error
                continue
            seen += offers
        raise _unavailable(kind, query, self._store.entries(kind), seen, failure) from failure

    def _download(self, offer: Offer, scratch: Path) -> Entry:
        scratch = Path(tempfile.mkdtemp(dir=scratch))
        unpacked = scratch / "unpacked"
        self.archive.unpack(offer, unpacked, scratch / "packages")
        name = _entry_name(offer)
        if offer.kind == "kernel":
            unpacked_kernel(name, unpacked, offer.suite)
            label = Label("kernel", name, offer.version, offer.suite)
            return self._store.publish(label, unpacked)
        tree = scratch / "tree"
        version = ".".join(map(str, gather(unpacked, tree)))
        return self._store.publish(Label("qemu", name, version, offer.suite), tree)


def _entry_name(offer: Offer) -> str:
    """The package version without its epoch: colons separate a loader's library path."""
    return offer.package_version.rpartition(":")[2]


def _unavailable(
    kind: PackageKind,
    query: str,
    entries: Iterable[Entry],
    offers: Iterable[Offer],
    failure: ImageError | None,
) -> ImageError:
    noun = "kernel" if kind == "kernel" else "QEMU"
    cached = ", ".join(entry.label.version for entry in entries) or "none"
    why = [f"in the cache: {cached}"]
    # Of each series only the newest: the archive keeps dozens of kernels.
    newest: dict[tuple[str, tuple[int, ...]], Offer] = {}
    for offer in offers:
        newest.setdefault((offer.suite, version_key(offer.version)[:2]), offer)
    why += [f"{offer.suite} offers {offer.version}" for offer in newest.values()]
    if failure is not None:
        why.append(f"{failure.what} ({failure.why})" if failure.why else failure.what)
    fix = "name one of these versions, or give a path"
    if failure is not None and not newest:
        fix = "see that the archive can be reached, or give a path"
    return ImageError(f"there is no {noun} {query!r} to be had", "; ".join(why), fix)
