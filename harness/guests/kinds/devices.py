"""QEMU's test devices, for guests that are multiboot images."""

from __future__ import annotations

from typing import Final

from harness.guests import probe
from userspace_chip.architecture import IOAPIC_PINS

EXIT_DEVICE: Final = ("-device", f"isa-debug-exit,iobase={probe.EXIT_PORT:#x},iosize=4")
"""A way out with a status."""
TEST_DEVICES: Final = (*EXIT_DEVICE, *("-device", "pc-testdev"))
"""And a port that drives any ISA line."""

MICROVM_LINES: Final = (
    *("-global", "virtio-mmio.ioeventfd=off"),
    *(
        argument
        for slot in range(IOAPIC_PINS)
        for argument in (
            "-device",
            f"virtio-serial-device,max_ports=1,bus=virtio-mmio-bus.{slot}",
        )
    ),
)
"""A device at each line of microvm's second IOAPIC, that drives it within the write that asks."""

VIRTIO_PORT: Final = (
    *("-device", "virtio-serial-pci,ioeventfd=off"),
    *("-device", "virtserialport,nr=1,chardev=console"),
)
"""A way to talk: takes a text of any length with one access, and at once, not by another thread."""


def debug_console(port: int) -> tuple[str, ...]:
    """A console that raises no interrupt: each byte that is written to ``port``."""
    return ("-device", f"isa-debugcon,iobase={port:#x},chardev=console")


def append(text: str) -> tuple[str, ...]:
    """``text`` as the image's command line, where there is any."""
    return ("-append", text) if text else ()
