"""A standard stream that cannot be written."""

import errno
import io

import pytest

from harness.base.streams import Outlet


class FullDisk(io.StringIO):
    """A redirection to a disk without room."""

    def __init__(self, number, file):
        super().__init__()
        self._file = file
        self._number = number

    def fileno(self):
        return self._file.fileno()

    def flush(self):
        raise OSError(self._number, "no")


@pytest.mark.parametrize(("number", "left"), [(errno.ENOSPC, False), (errno.EPIPE, True)])
def test_outlet_stream_that_fails_is_remembered_and_written_no_more(tmp_path, number, left):
    with (tmp_path / "out").open("w") as file:
        outlet = Outlet(FullDisk(number, file))
        outlet.write("one")
        outlet.flush()
        outlet.write("two")
        outlet.flush()
    assert outlet.failure.errno == number
    assert outlet.reader_left is left
    assert outlet.getvalue() == "one"


def test_outlet_character_that_the_encoding_lacks_is_written_out():
    raw = io.BytesIO()
    outlet = Outlet(io.TextIOWrapper(raw, encoding="ascii"))
    outlet.write("2 × \udcff")
    outlet.flush()
    assert raw.getvalue() == b"2 \\xd7 \\udcff"
