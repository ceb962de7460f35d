"""The launcher, the collectors, the diff and the report of irqmatrix."""

from importlib import metadata

try:
    __version__ = metadata.version("irqmatrix")
except metadata.PackageNotFoundError:  # imported from a checkout that was never installed
    __version__ = "0+unknown"
