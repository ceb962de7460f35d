"""Which profile of the Python chips stands for the backend of a case."""

from __future__ import annotations

from typing import TypeVar

from harness.case import Irqchip
from harness.casefile import CaseFile
from harness.errors import StoreError
from harness.versions import parse_version
from userspace_chip.profile import LINUX_VERSIONS, QEMU_VERSIONS, Profile, profile


def profile_of(case: CaseFile) -> tuple[Profile, tuple[str, ...]]:
    """The profile for ``case``, and what is not quite right about it.

    A version that the model does not know is taken for the latest one before it.
    :class:`StoreError` for a case that names no version.
    """
    qemu, warnings = _nearest("QEMU", case.qemu, QEMU_VERSIONS)
    if case.irqchip is Irqchip.TCG:
        return profile("tcg", qemu=qemu), warnings
    if case.linux is None:
        raise StoreError("case.json names no kernel", "its guest ran under KVM", "run it again")
    linux, other_linux = _nearest("Linux", case.linux, LINUX_VERSIONS)
    if case.irqchip is Irqchip.OFF:
        qemu = "7.2"  # later ones refuse it
    return profile(case.irqchip.value, qemu=qemu, linux=linux), (*warnings, *other_linux)


_V = TypeVar("_V", bound=str)


def _nearest(what: str, text: str, known: tuple[_V, ...]) -> tuple[_V, tuple[str, ...]]:
    try:
        version = parse_version(text)
    except ValueError as error:
        raise StoreError(f"the version of {what}", str(error), "run the case again") from None
    earlier = [name for name in known if parse_version(name) <= version]
    chosen = earlier[-1] if earlier else known[0]
    bound = parse_version(chosen)
    if version[: len(bound)] == bound:
        return chosen, ()
    return chosen, (f"{what} {text} is not modelled: taken for {chosen}",)
