"""Which CPU a program that has to stay on one gets."""

from __future__ import annotations

import os
import subprocess
import sys
import uuid
from collections import Counter
from contextlib import ExitStack

import pytest

from harness.base.cpus import least_taken_cpu

ALLOWED = os.sched_getaffinity(0)
HOLD = """
import sys
from harness.base.cpus import least_taken_cpu
with least_taken_cpu(sys.argv[1]) as cpu:
    print(cpu, flush=True)
    input()
"""


@pytest.fixture
def group() -> str:
    """One that no other process of this machine is in."""
    return uuid.uuid4().hex


def test_least_taken_cpu_of_two_blocks_a_cpu_is_each_one_twice(group):
    with ExitStack() as stack:
        taken = [stack.enter_context(least_taken_cpu(group)) for _ in range(2 * len(ALLOWED))]

    assert Counter(taken) == dict.fromkeys(ALLOWED, 2)


def test_least_taken_cpu_whose_block_ended_is_free_again(group):
    with ExitStack() as stack:
        others = {stack.enter_context(least_taken_cpu(group)) for _ in range(len(ALLOWED) - 1)}
        with least_taken_cpu(group) as last:
            pass
        with least_taken_cpu(group) as again:
            pass

    assert again == last not in others


def test_least_taken_cpu_of_as_many_processes_as_cpus_is_another_one_in_each(group):
    with ExitStack() as stack:
        others = [
            stack.enter_context(
                subprocess.Popen(
                    [sys.executable, "-c", HOLD, group],
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    text=True,
                )
            )
            for _ in ALLOWED
        ]
        theirs = {int(one.stdout.readline()) for one in others}
        for one in others:
            one.communicate("\n")

    assert theirs == ALLOWED
