"""``python -m userspace_chip.kvm IMAGE``: the VMM with nothing but the standard library."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import get_args

from userspace_chip.errors import IrqmatrixError
from userspace_chip.kvm.command import run
from userspace_chip.kvm.errors import KvmError
from userspace_chip.kvm.options import Delivery, LiveMode, Options
from userspace_chip.profile import QEMU_VERSIONS

EXIT_BAD_USAGE = 2
EXIT_NOTHING_RUN = 3


def main(arguments: list[str] | None = None) -> int:
    """Parse, run, and say what went wrong in one message; the exit status."""
    options = parse(arguments)
    try:
        return run(options)
    except IrqmatrixError as error:
        sys.stderr.write(f"irqmatrix vmm: {error}\n")
        return EXIT_NOTHING_RUN if isinstance(error, KvmError) else EXIT_BAD_USAGE


def parse(arguments: list[str] | None = None) -> Options:
    """The command line; one that cannot be understood ends the process with status 2."""
    words = vars(_parser().parse_args(arguments))
    given = {name: value for name, value in words.items() if value is not None}
    lists = {name: tuple(value) for name, value in given.items() if isinstance(value, list)}
    return Options(**{**given, **lists})


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m userspace_chip.kvm")
    add = parser.add_argument
    add("image", type=Path)
    add("--irqchip", choices=get_args(LiveMode), default="split")
    add("--module", dest="modules", type=Path, action="append", default=[])
    add("--smp", type=int, default=1)
    add("--append", default="")
    add("--memory", dest="memory_mib", type=int, default=256, metavar="MIB")
    add("--timeout", dest="timeout_s", type=float, metavar="S")
    add("--trace", action="store_true")
    add("--raw-status", action="store_true")
    add("--debug-port", dest="debug_ports", type=lambda text: int(text, 0), action="append")
    add("--delivery", choices=get_args(Delivery), default="route")
    add("--device", dest="kvm", default="/dev/kvm")
    add("--qemu", choices=QEMU_VERSIONS, default="7.2")
    return parser


if __name__ == "__main__":
    sys.exit(main())
