"""What processes there are."""

from pathlib import Path


def is_running(pid: int) -> bool:
    """Whether ``pid`` has not ended; a zombie has."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text(encoding="ascii")
    except FileNotFoundError:
        return False
    return stat.rsplit(")", 1)[1].split()[0] != "Z"
