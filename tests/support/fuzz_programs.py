"""Random programs of the shipped grammars, as the fuzzer makes them."""

from __future__ import annotations

from itertools import islice

from harness.fuzz import grammar
from harness.fuzz.programs import Program, Source
from userspace_chip.profile import Profile

CPUS = 4
"""As many as any of them needs."""


def fuzz_programs(seed: int, number: int, profile: Profile) -> list[Program]:
    """The first ``number`` programs of the mixed grammar that are sound on ``profile``."""
    return list(islice(Source(seed, grammar.selected("mixed"), [profile]).programs(), number))
