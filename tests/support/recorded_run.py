"""The recorded run of one Linux guest under every irqchip mode (tests/golden/diff)."""

from __future__ import annotations

import json
from typing import Any

from harness.compare.diff import Measurement, Sample
from harness.compare.known import BackendFacts
from harness.model.case import Irqchip, Machine
from harness.model.counters import Counter, CounterKey, CounterSet, blind_spots
from support import golden

MODES = ("on", "split", "off", "tcg")
WORKLOADS = ("idle", "serial", "block-intx", "block-msix")


def recorded(mode: str, **changes: Any) -> Measurement:
    """The recorded run of a mode; ``changes`` are values of counters of block-intx, by path."""
    run = json.loads((golden.COLLECT.parent / "diff" / f"{mode}.json").read_text())
    samples = {}
    for workload in WORKLOADS:
        part = run[workload]
        counters = [
            Counter(CounterKey(stage, controller, source, number, name, cpu), value)
            for stage, controller, source, number, name, cpu, value in part["counters"]
        ]
        if workload == "block-intx":
            counters = [
                Counter(counter.key, changes.get(counter.key.path, counter.value))
                for counter in counters
            ]
        counted = CounterSet.of(counters, part["sources"], blind_spots(Irqchip(mode)))
        samples[workload] = (Sample(counted, part["metrics"]),)
    linux = None if mode == "tcg" else (6, 1, 192)
    facts = BackendFacts(Irqchip(mode), Machine.Q35, (7, 2, 22), linux)
    return Measurement(mode, facts, samples, run["observations"], {"irqchip": mode})
