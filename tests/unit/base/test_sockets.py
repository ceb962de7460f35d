"""Connections that QEMU inherits."""

from harness.base.sockets import pair, roomy


def test_roomy_writer_of_single_bytes_never_waits_for_its_reader():
    with pair() as (ours, theirs), roomy(theirs) as sink:
        for number in range(50_000):
            sink.write(bytes((number % 251,)))
        sink.close()
        read = b"".join(iter(lambda: ours.recv(1 << 16), b""))

    assert read == bytes(number % 251 for number in range(50_000))


def test_roomy_ends_though_nobody_reads():
    with pair() as (ours, theirs), roomy(theirs) as sink:
        sink.write(bytes(900_000))

    assert ours.fileno() == -1
