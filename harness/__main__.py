"""The entry point: ``irqmatrix``, and ``python -m harness``.

Nothing is imported before Ctrl-C has a meaning: the imports take most of the first second.
"""

from __future__ import annotations

import os
import signal

EXIT_INTERRUPTED = 130


def main() -> None:
    """Run the command line; Ctrl-C ends it quietly from the first moment on."""
    is_ours = signal.getsignal(signal.SIGINT) is signal.default_int_handler  # else: nohup's
    if is_ours:
        signal.signal(signal.SIGINT, lambda *_: os._exit(EXIT_INTERRUPTED))
    from harness import cli

    if is_ours:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    cli.main()


if __name__ == "__main__":
    main()
