"""Which builds of QEMU and Linux a run had, from the ``environment`` of its result."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Final

_WHAT: Final = {
    "qemu": "QEMU {name}",
    "lab_kernel": "Linux in the lab, {name}",
    "lab_qemu": "QEMU that runs the lab",
}
"""The parts of ``environment`` that have versions: of several by their names, or of one."""


def version_lines(environment: Mapping[str, Any]) -> Iterator[str]:
    """A line for each: its version, its package's full version, its build ID.

    Of a run that was recorded without its builds: the versions.
    """
    for kind, what in _WHAT.items():
        versions = environment.get(kind)
        builds = environment.get("builds", {}).get(kind)
        if isinstance(versions, Mapping):
            for name, version in versions.items():
                build = (builds or {}).get(name)
                yield f"{what.format(name=name)}: {version}{_build(build)}"
        elif versions is not None:
            yield f"{what}: {versions}{_build(builds)}"


def _build(build: Mapping[str, Any] | None) -> str:
    return f" (package {build['package']}, build ID {build['build_id']})" if build else ""
