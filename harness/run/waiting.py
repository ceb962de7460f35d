"""Cases that wait for a host, by the host that they need."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from pathlib import Path

from harness.guests.plan import GuestPlan
from harness.model.case import Case, Host, Vmm


@dataclass(frozen=True)
class HostKey:
    """What cases have to share to run on the same booted host."""

    host: Host
    qemu: str
    kernel: str | None
    files: tuple[Path | None, ...] = ()
    """Those of the guest, where a host is opened before all of its guests are known."""
    vmm: Vmm | None = None
    """And who runs it, then."""

    @classmethod
    def of(cls, case: Case) -> HostKey:
        """The host that ``case`` needs."""
        return cls(case.backend.host, case.backend.qemu, case.backend.kernel)


@dataclass(frozen=True)
class Prepared:
    """A case whose images are there, or that cannot be run for the reason ``skip``."""

    case: Case
    plan: GuestPlan
    skip: str | None


class Waiting:
    """The cases that are not yet recorded; more may come until it is closed.

    With ``linger_s`` a host whose cases have all been taken is kept that long for another one,
    unless what waits for other hosts has no other seat.  A *seat* is who takes cases.
    """

    def __init__(self, items: Iterable[Prepared] = (), *, linger_s: float = 0.0) -> None:
        self._by_host: dict[HostKey, list[Prepared]] = {}
        self._linger_s = linger_s
        self._closed = False
        self._free_seats = 0
        self._changed = asyncio.Condition()
        for item in items:
            self._by_host.setdefault(self.key(item), []).append(item)

    def key(self, item: Prepared) -> HostKey:
        """The host that ``item`` needs."""
        key = HostKey.of(item.case)
        if not self._linger_s:
            return key
        files = item.plan.kernel, item.plan.initrd
        return replace(key, files=files, vmm=item.case.backend.vmm)

    async def add(self, item: Prepared, *, first: bool = False) -> None:
        """One more; ``first``: before those that need the same host."""
        async with self._changed:
            items = self._by_host.setdefault(self.key(item), [])
            items.insert(0 if first else len(items), item)
            self._changed.notify_all()

    async def close(self) -> None:
        """Nothing more comes: who has no case to take ends."""
        async with self._changed:
            self._closed = True
            self._changed.notify_all()

    def of(self, key: HostKey) -> list[Prepared]:
        """What waits for that host now."""
        return list(self._by_host.get(key, ()))

    def take_out(
        self, key: HostKey, fits: Callable[[Case], bool] = lambda _: True
    ) -> list[Prepared]:
        """What of ``key`` is not to be recorded: it does not wait any more."""
        items = self._by_host.get(key, [])
        self._by_host[key] = [item for item in items if not fits(item.case)]
        return [item for item in items if fits(item.case)]

    async def next(self) -> Prepared | None:
        """Of the host that most cases wait for; None where nothing waits and nothing comes."""
        async with self._changed:
            self._free_seats += 1
            try:
                await self._changed.wait_for(lambda: self._closed or self._most_wanted())
            finally:
                self._free_seats -= 1
            key = self._most_wanted()
            return None if key is None else self._by_host[key].pop(0)

    async def next_of(self, key: HostKey) -> Prepared | None:
        """The next case for a host that is up; None where it is needed no longer."""
        async with self._changed:
            if self._linger_s and not self._by_host.get(key):
                try:
                    async with asyncio.timeout(self._linger_s):
                        await self._changed.wait_for(lambda: self._ends_waiting_for(key))
                except TimeoutError:
                    return None
            items = self._by_host.get(key)
            return items.pop(0) if items else None

    def _ends_waiting_for(self, key: HostKey) -> bool:
        is_wanted_elsewhere = self._most_wanted() is not None and not self._free_seats
        return self._closed or bool(self._by_host.get(key)) or is_wanted_elsewhere

    def _most_wanted(self) -> HostKey | None:
        counts = {key: len(items) for key, items in self._by_host.items() if items}
        return max(counts, key=counts.__getitem__, default=None)
