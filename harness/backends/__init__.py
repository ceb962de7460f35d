"""Where a QEMU process can be owned: this machine, or a virtual lab host."""
