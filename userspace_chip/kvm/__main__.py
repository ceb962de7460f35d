"""``python -m userspace_chip.kvm IMAGE``: the VMM with nothing but the standard library."""

from __future__ import annotations

import argparse
import sys
import traceback
from pathlib import Path
from typing import get_args

from userspace_chip.errors import IrqmatrixError
from userspace_chip.kvm.command import EXIT_FAULT, run
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
        status = EXIT_NOTHING_RUN if isinstance(error, KvmError) else EXIT_BAD_USAGE
    except Exception:
        if not options.raw_status:
            raise
        traceback.print_exc()
        status = EXIT_FAULT
    # Any odd one would be the guest's.
    return EXIT_FAULT if options.raw_status else status


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
    add("--no-debug-port", dest="debug_ports", action="store_const", const=[])
    add("--delivery", choices=get_args(Delivery), default="route")
    add("--device", dest="kvm", default="/dev/kvm")
    add("--qemu", choices=QEMU_VERSIONS, default="7.2")
    add("--board", choices=("pc", "q35"), default="q35")
    add("--no-serial", dest="serial", action="store_false")
    add("--virtio-serial", action="store_true")
    add("--no-edu", dest="edu", action="store_false")
    add("--x2apic", action="store_true")
    add("--tsc-deadline", action="store_true")
    add("--console", metavar="PLACE", help="for the guest's text: a path, or fd:N")
    add("--monitor", metavar="PLACE", help="for QMP: a path, or fd:N")
    add("--trace-log", metavar="FILE", help="for what --trace prints")
    add("--paused", action="store_true", help="wait for the monitor's cont")
    return parser


if __name__ == "__main__":
    sys.exit(main())
