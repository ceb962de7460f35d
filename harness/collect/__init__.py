"""What can be read of a running VM, in one archive without names of persons, hosts and disks."""
