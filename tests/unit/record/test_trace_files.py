import pytest

from harness.base.errors import CollectError
from harness.record import trace_files

TEXT = "".join(f"line {number}\r\n" for number in range(50_000))


@pytest.fixture
def trace(tmp_path):
    path = tmp_path / "kernel.trace"
    path.write_bytes(TEXT.encode())
    return path


def read(path):
    with trace_files.lines_of(path) as lines:
        return list(lines)


def test_trace_that_was_compressed_is_read_as_it_was(trace):
    plain = read(trace)
    kept = trace_files.compressed(trace)
    assert kept.name == "kernel.trace.zst"
    assert read(kept) == plain
    assert [path.name for path in trace.parent.iterdir()] == [kept.name]


def test_trace_that_was_cut_off_is_an_error_and_no_shorter_trace(trace):
    kept = trace_files.compressed(trace)
    kept.write_bytes(kept.read_bytes()[:-10])
    with pytest.raises(CollectError, match="cut off"):
        read(kept)


def test_trace_that_is_damaged_is_an_error(trace):
    kept = trace_files.compressed(trace)
    kept.write_bytes(b"something else altogether")
    with pytest.raises(CollectError, match=r"kernel\.trace\.zst"):
        read(kept)


def test_trace_that_cannot_be_compressed_stays_as_it_is(trace):
    (trace.parent / "kernel.trace.partial").mkdir()
    with pytest.raises(IsADirectoryError):
        trace_files.compressed(trace)
    assert trace.exists()


@pytest.mark.parametrize(("text", "has_text"), [(b"", False), (b"x\n", True)])
def test_trace_has_text_where_anything_is_in_it(tmp_path, text, has_text):
    path = tmp_path / "qemu.trace"
    path.write_bytes(text)
    assert trace_files.has_text(trace_files.compressed(path)) is has_text
