"""What is left and what is read where tracefs goes away during a case."""

import asyncio

import pytest

from harness.backends.local import LocalFiles
from harness.base.errors import CollectError
from harness.record.collectors.tracefs import Trace, TraceFill


def test_trace_that_is_gone_is_an_error_and_no_empty_trace(tmp_path):
    trace = Trace(LocalFiles(), str(tmp_path / "instances" / "gone"), (), only_followed=True)
    with pytest.raises(CollectError, match=r"trace is gone: .*/gone/trace.*unmounted"):
        asyncio.run(trace.save(tmp_path / "kernel.trace"))


def test_trace_without_events_is_read(tmp_path):
    (tmp_path / "trace").write_text("# tracer: nop\n")
    asyncio.run(Trace(LocalFiles(), str(tmp_path), (), only_followed=True).save(tmp_path / "kept"))
    assert (tmp_path / "kept").read_text() == "# tracer: nop\n"


STATS = "entries: 12\noverrun: 3\ncommit overrun: 0\nbytes: 99\ndropped events: 4\nread events: 0\n"


def test_fill_of_a_processor_is_what_its_buffer_has_and_what_did_not_stay(tmp_path):
    (tmp_path / "per_cpu" / "cpu0").mkdir(parents=True)
    (tmp_path / "per_cpu" / "cpu0" / "stats").write_text(STATS)
    trace = Trace(LocalFiles(), str(tmp_path), (), only_followed=True)
    assert asyncio.run(trace.fill(0)) == TraceFill(12, 7)
    assert asyncio.run(trace.fill(1)) == TraceFill(0, 0)


def test_local_files_folder_whose_parent_is_out_of_reach_is_removed(tmp_path, monkeypatch):
    """As that of a tracefs that is unmounted lazily while we hold it."""
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    parent = tmp_path / "instances"
    parent.mkdir()

    async def make_and_remove():
        files = LocalFiles()
        await files.make_dir(str(parent / "ours"))
        parent.rename(tmp_path / "elsewhere")
        await files.remove_dir(str(parent / "ours"))

    asyncio.run(make_and_remove())
    assert not list((tmp_path / "elsewhere").iterdir())
