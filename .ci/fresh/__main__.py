"""The command line of ``make fresh``.

Exit status: 0 HEAD works on a fresh machine, 1 it does not, 3 this machine cannot show it (0 with
``--or-skip``), 130 interrupted.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from fresh import apart, machine
from fresh.machine import Cache, FreshError
from fresh.settings import local_settings

SUITES: Final = ("bookworm", "trixie")
TIMEOUT_S: Final = 1800.0
"""Of the slowest machine with empty caches; two minutes is the rule."""


def main() -> int:
    """Run what was asked for; the exit status."""
    parser = argparse.ArgumentParser(prog="fresh", description="HEAD on a fresh Debian.")
    parser.add_argument("--suite", choices=SUITES, default=SUITES[0])
    parser.add_argument("--or-skip", action="store_true", help="where it cannot be: status 0")
    parser.add_argument("--inside", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("command", nargs="*", help="run this in the clone instead")
    asked = parser.parse_args()
    cache = machine.user_cache(asked.suite)
    return inside(cache, asked.command) if asked.inside else outside(cache, asked)


def outside(cache: Cache, asked: argparse.Namespace) -> int:
    """On this machine: start the new one, wait for it."""
    if reason := apart.obstacle(cache.mount_point):
        print(f"fresh: skipped, {reason}", flush=True)
        return 0 if asked.or_skip else 3
    try:
        with cache.held():
            started_s = time.monotonic()
            arguments = ("--inside", "--suite", cache.suite, "--", *asked.command)
            status = apart.run_apart("fresh", arguments, TIMEOUT_S)
    except KeyboardInterrupt:
        return 130
    except subprocess.TimeoutExpired:
        print(f"fresh: {cache.suite}: stopped after {TIMEOUT_S:.0f} s", flush=True)
        return 1
    if status == 0 and not asked.command:
        took_s = time.monotonic() - started_s
        print(f"fresh: {cache.suite}: works where nothing was installed ({took_s:.0f} s)")
    return status


def inside(cache: Cache, command: Sequence[str]) -> int:
    """As process 1 of the namespaces: make the machine, run the steps on it."""
    apart.end_with_parent()
    settings = local_settings(cache.suite, os.environ, Path.home())
    try:
        machine.build(cache, settings)
        machine.run(cache.mount_point, settings, (command,) if command else machine.STEPS)
        if not command:
            machine.check_results(machine.below(cache.mount_point, machine.CLONE))
    except FreshError as error:
        print(f"fresh: {cache.suite}: {error}", flush=True)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
