"""Plots of the store: rates of storms over time, and counters by irqchip mode (matplotlib)."""

from __future__ import annotations

import importlib
import io
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, Final

from harness.base.errors import CannotRun
from harness.base.text import plain, shortened
from harness.store.history import Series

COLOURS: Final[Mapping[str, str]] = {
    "on": "#0072B2",
    "split": "#D55E00",
    "off": "#009E73",
    "tcg": "#CC79A7",
}
"""Of the irqchip modes: also for readers who see few colours (Okabe and Ito's palette)."""
_MARKERS: Final[Mapping[str, str]] = {"on": "o", "split": "s", "off": "^", "tcg": "D"}
MOST: Final = 12
"""Panels in one file."""
_WIDTH_IN: Final = 10.0
_PANEL_IN: Final = 2.6
_TITLE_CHARACTERS: Final = 90


def render(panels: Sequence[Series], suffix: str) -> bytes:
    """The first :data:`MOST` of ``panels``, one below the other; ``svg``, ``png`` or ``pdf``.

    :class:`CannotRun` where matplotlib is not installed.
    """
    try:
        matplotlib, figures = map(importlib.import_module, ("matplotlib", "matplotlib.figure"))
    except ModuleNotFoundError:
        raise CannotRun(
            "cannot plot", "matplotlib is not installed", "pip install 'irqmatrix[plot]'"
        ) from None
    shown = panels[:MOST]
    with matplotlib.rc_context(
        {"svg.fonttype": "none", "svg.hashsalt": "irqmatrix", "text.parse_math": False}
    ):
        figure = figures.Figure(figsize=(_WIDTH_IN, _PANEL_IN * len(shown)), layout="constrained")
        for axes, series in zip(
            figure.subplots(len(shown), squeeze=False)[:, 0], shown, strict=True
        ):
            _draw(axes, series)
        file = io.BytesIO()
        figure.savefig(file, format=suffix, metadata={"Date": None} if suffix == "svg" else None)
    return file.getvalue()


def _draw(axes: Any, series: Series) -> None:
    """One counter: a line for each mode, over the times of the runs."""
    for mode, points in series.by_mode.items():
        times = [datetime.fromisoformat(point.started) for point in points]
        axes.plot(
            times,
            [point.value for point in points],
            label=mode,
            color=COLOURS.get(mode),
            marker=_MARKERS.get(mode, "."),
            markersize=4,
        )
    if series.unit == "Hz":
        axes.set_yscale("symlog")
    else:
        axes.set_ylim(bottom=0)
    axes.set_title(shortened(plain(series.name), _TITLE_CHARACTERS), fontsize=9, loc="left")
    axes.set_ylabel(series.unit, fontsize=8)
    axes.tick_params(labelsize=8)
    axes.grid(visible=True, alpha=0.3)
    axes.legend(fontsize=8, loc="upper left", ncols=len(series.by_mode))
