"""The workers of a cluster, as its scheduler knows them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from harness.cluster import abilities


@dataclass(frozen=True)
class Worker:
    """One worker."""

    name: str
    seats: int
    resources: Mapping[str, float]

    @property
    def version(self) -> str | None:
        """Its irqmatrix; None for the worker of another program."""
        return next((name for name in self.resources if name.startswith("irqmatrix ")), None)


@dataclass(frozen=True)
class Roster:
    """All of them."""

    workers: tuple[Worker, ...] = ()

    @classmethod
    def of(cls, identity: Mapping[str, Any]) -> Roster:
        """From what a dask scheduler says of itself."""
        found = (
            Worker(str(one["name"]), int(one["nthreads"]), dict(one["resources"]))
            for one in identity["workers"].values()
        )
        return cls(tuple(sorted(found, key=lambda one: one.name)))

    @property
    def ours(self) -> tuple[Worker, ...]:
        """Those of this irqmatrix."""
        return tuple(one for one in self.workers if one.version == abilities.VERSION)

    @property
    def refused(self) -> Iterator[str]:
        """Why each of the others gets nothing."""
        for one in self.workers:
            if one.version != abilities.VERSION:
                what = one.version or "not a worker of irqmatrix"
                yield f"worker {one.name} is not used: it is {what}, and this {abilities.VERSION}"

    def has(self, name: str) -> bool:
        """Whether the worker ``name`` is there."""
        return any(one.name == name for one in self.workers)

    def can(self, needs: Mapping[str, float]) -> bool:
        """Whether one of them has all that is needed."""
        return any(not abilities.lacking(one.resources, needs) for one in self.ours)

    def why_not(self, needs: Mapping[str, float]) -> str:
        """What each of them lacks."""
        return "; ".join(
            f"{one.name} lacks {', '.join(abilities.lacking(one.resources, needs))}"
            for one in self.ours
        )

    def most_common(self, prefix: str) -> str | None:
        """Of the resources with that prefix the one that most of them have, without it."""
        return _most_common(
            name.removeprefix(prefix)
            for one in self.ours
            for name in one.resources
            if name.startswith(prefix)
        )

    def __str__(self) -> str:
        return ", ".join(f"{one.name} ({one.seats} at a time)" for one in self.ours) or "none yet"


def _most_common(names: Iterable[str]) -> str | None:
    return next((name for name, _ in Counter(names).most_common(1)), None)
