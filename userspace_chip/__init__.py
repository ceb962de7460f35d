"""The x86 interrupt controllers as pure state machines.

Nothing here reads a clock, a file or a descriptor, except the corner :mod:`userspace_chip.kvm`.
The package imports nothing from ``harness``.
"""
