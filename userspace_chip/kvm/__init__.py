"""The one impure corner of the package: /dev/kvm, its ioctls and its state layouts."""
