"""``make fresh``: does HEAD work on a machine on which nothing was installed before?

A minimal Debian (debootstrap's ``minbase`` with git, make, python3 and ca-certificates) is
unpacked into a tmpfs, and in a chroot there a clone of HEAD runs ``make run`` to its table, then
``pip install .`` in an empty environment and ``irqmatrix doctor``.

All of it is in mount, PID, IPC and UTS namespaces of its own (``namespaces(7)``): no mount of the
machine can be touched, and when the command ends, in whatever way, the kernel ends every process
and drops every mount in there, and the tmpfs with them.  What is kept, in ``irqmatrix-fresh`` of
the user's cache folder, is the bare root as a tarball and what apt and pip have downloaded;
nothing that is installed or built.
"""
