"""Run by the lab's Python: the differential tests of the named chips, a few seeds each.

``lab_runner.py SEEDS NAME...`` writes one line a chip and every disagreement; each line begins
with :data:`MARK`, because the kernel writes to the same console.  Of a name whose module makes no
random steps every test that takes no argument is called once.
"""

import importlib
import inspect
import sys
import traceback
from itertools import cycle

import pytest

from support.differential import assert_agree
from support.kernel_machine import MachineConfig
from support.kvm import local_kvm, local_linux
from support.model_machine import explain, open_pair

MARK = "irqmatrix: "


def say(text):
    for line in text.splitlines():
        sys.stdout.write(f"{MARK}{line}\n")
    sys.stdout.flush()


def configs(module):
    """The test module's machine, or its machines one after the other."""
    flags = getattr(module, "FLAGS", None)
    if flags is None:
        return cycle([module.CONFIG])
    return cycle(MachineConfig("on", module.CPUS, module.OBSERVED, int(flag)) for flag in flags)


def run(name, seeds):
    module = importlib.import_module(f"test_kvm_{name}")
    if hasattr(module, "generate"):
        run_seeds(name, module, seeds)
    else:
        run_tests(name, module)


def run_tests(name, module):
    tests = inspect.getmembers(module, inspect.isfunction)
    tests = [test for test in tests if test[0].startswith("test_")]
    counts = {"passed": 0, "skipped": 0, "failed": 0}
    for test, function in tests:
        try:
            function()
        except pytest.skip.Exception:
            counts["skipped"] += 1
        except Exception:  # an error of any kind is this test's
            counts["failed"] += 1
            say(f"{test}: {traceback.format_exc()}")
        else:
            counts["passed"] += 1
    say(f"{name}: " + ", ".join(f"{count} {word}" for word, count in counts.items() if count))


def run_seeds(name, module, seeds):
    bad = 0
    for seed, config in zip(range(seeds), configs(module), strict=False):
        try:
            assert_agree(module.generate(seed), open_pair(config), explain)
        except AssertionError as error:
            bad += 1
            say(f"{name}, seed {seed}: {error}")
    say(f"{name}: {seeds} seeds, {bad} disagree")


def main(seeds, *names):
    say(f"{local_kvm().module}, profile {local_linux()}")
    for name in names:
        run(name, int(seeds))
    say("done")


if __name__ == "__main__":
    main(*sys.argv[1:])
