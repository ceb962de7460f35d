"""``python -m soak [--minutes M] [--cases N] [--seed S] [--no-labs]``, from the folder tests."""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path

from soak.soak import soak


def main() -> int:
    """0: everything held; 1: something did not."""
    parser = argparse.ArgumentParser(prog="soak", description="Runs under fault injection.")
    parser.add_argument("--minutes", type=float, default=5)
    parser.add_argument("--cases", type=int, default=2000, help="in one run, to see growth")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--no-labs", action="store_true")
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="soak-") as folder:
        tally = soak(
            Path(folder),
            asked.minutes * 60,
            cases=asked.cases,
            with_labs=not asked.no_labs,
            seed=asked.seed,
            tell=lambda text: print(text, flush=True),
        )
    print("\n".join(tally.lines()))
    return int(bool(tally.broken))


if __name__ == "__main__":
    sys.exit(main())
