"""The launcher, the collectors, the diff and the report of irqmatrix."""


def __getattr__(name: str) -> str:
    """``__version__``, when it is asked for: finding it takes long at the start of a command."""
    if name != "__version__":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import metadata

    try:
        return metadata.version("irqmatrix")
    except metadata.PackageNotFoundError:  # imported from a checkout that was never installed
        return "0+unknown"
