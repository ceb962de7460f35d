"""Whatever a file, a guest, QEMU or the kernel says, its reader has an answer or a refusal.

``make fuzz-readers`` tries more than a million texts; here it is a few of each.
"""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path
from random import Random

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from support.foreign import READERS, random_text, seeds_of, spoilt

INPUTS = int(os.environ.get("FOREIGN_INPUTS", "200"))
"""Random texts for each reader, or as many as its cost allows."""
SEED = int(os.environ.get("FOREIGN_SEED", "0"))
KEPT = Path(__file__).parent.parent / "golden" / "foreign"


def read(name: str, data: bytes) -> None:
    reader = READERS[name]
    with suppress(*reader.refusals):
        reader.read(data)


@pytest.mark.parametrize("name", READERS)
@settings(max_examples=25, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.data())
def test_reader_of_any_text_reads_or_refuses_it(name, data):
    """Few texts, and the shortest that breaks a reader."""
    read(name, data.draw(spoilt(name)))


@pytest.mark.timeout(7200)
@pytest.mark.parametrize("name", READERS)
def test_reader_of_many_texts_reads_or_refuses_each(name, tmp_path):
    """Many texts; one that breaks a reader is said, to be kept in ``tests/golden/foreign``."""
    random = Random(f"{SEED} {name}")
    for number in range(INPUTS * READERS[name].share // 100):
        data = random_text(name, random)
        try:
            read(name, data)
        except Exception as error:
            broke = tmp_path / "text"
            broke.write_bytes(data)
            pytest.fail(
                f"text {number} broke the reader: {error!r}; it is {broke}:\n{data[:2000]!r}"
            )


@pytest.mark.parametrize("name", READERS)
def test_reader_of_the_texts_that_it_knows_reads_them(name):
    assert seeds_of(name)
    for data in seeds_of(name):
        read(name, data)


@pytest.mark.parametrize("path", sorted(KEPT.glob("*/*")), ids=lambda path: path.stem)
def test_reader_of_a_text_that_broke_one_reads_or_refuses_it(path):
    read(path.parent.name, path.read_bytes())
