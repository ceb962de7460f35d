"""What is read while a guest runs: the guest itself, QMP, the kernel's trace, QEMU's trace."""
