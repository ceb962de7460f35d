"""The entries of the image cache, as a person reads them, or as JSON."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Collection, Iterable, Sequence

from harness.base.emphasis import Emphasis
from harness.images.model import ImageInfo, Offer
from harness.report.page import Cell, Page, Table, TextLine, cells, columns


def images_json(infos: Iterable[ImageInfo]) -> str:
    """The cache's entries as JSON."""
    rows = [dataclasses.asdict(info) | {"path": str(info.path)} for info in infos]
    return json.dumps(rows, indent=1)


def images_table(infos: Sequence[ImageInfo]) -> Page:
    """The cache's entries."""
    if not infos:
        yield TextLine("the image cache is empty: irqmatrix images build")
        return
    rows = tuple(
        (
            *cells(info.kind, info.name, info.version, info.source),
            Cell(f"{info.size_bytes / 2**20:.1f}"),
            Cell("yes", Emphasis.GOOD) if info.intact else Cell("NO", Emphasis.BAD),
        )
        for info in infos
    )
    yield Table(columns("kind", "name", "version", "from", "MiB", "intact"), rows)


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


def offers_table(offers: Iterable[Offer], cached: Collection[str]) -> Page:
    """What can be downloaded; any name or version of it is one for ``lab.kernel`` and the like."""
    rows = tuple(
        (
            *cells(offer.kind, offer.version, offer.name, offer.suite),
            Cell("yes", Emphasis.GOOD) if offer.name in cached else Cell(),
        )
        for offer in offers
    )
    yield Table(columns("kind", "version", "name", "from", "cached"), rows)
