"""The entries of the image cache, as a person reads them, or as JSON."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Collection, Iterable, Sequence

from rich.console import Console
from rich.table import Table
from rich.text import Text

from harness.images.model import ImageInfo, Offer


def images_json(infos: Iterable[ImageInfo]) -> str:
    """The cache's entries as JSON."""
    rows = [dataclasses.asdict(info) | {"path": str(info.path)} for info in infos]
    return json.dumps(rows, indent=1)


def images_table(console: Console, infos: Sequence[ImageInfo]) -> None:
    """The cache's entries."""
    if not infos:
        console.print("the image cache is empty: irqmatrix images build", highlight=False)
        return
    table = Table("kind", "name", "version", "from", "MiB", "intact", box=None, pad_edge=False)
    for info in infos:
        intact = Text("yes" if info.intact else "NO", style="green" if info.intact else "red")
        size = f"{info.size_bytes / 2**20:.1f}"
        table.add_row(info.kind, info.name, info.version, info.source, size, intact)
    console.print(table)


def offers_json(offers: Iterable[Offer], cached: Collection[str]) -> str:
    """What can be downloaded, as JSON."""
    rows = [
        {
            "kind": offer.kind,
            "version": offer.version,
            "name": offer.name,
            "source": offer.suite,
            "cached": offer.name in cached,
        }
        for offer in offers
    ]
    return json.dumps(rows, indent=1)


def offers_table(console: Console, offers: Iterable[Offer], cached: Collection[str]) -> None:
    """What can be downloaded; any name or version of it is one for ``lab.kernel`` and the like."""
    table = Table("kind", "version", "name", "from", "cached", box=None, pad_edge=False)
    for offer in offers:
        there = Text("yes", style="green") if offer.name in cached else Text("")
        table.add_row(offer.kind, offer.version, offer.name, offer.suite, there)
    console.print(table)
