"""What is left and what is read where tracefs goes away during a case."""

import asyncio

import pytest

from harness.backends.local import LocalFiles
from harness.base.errors import CollectError
from harness.record.collectors.tracefs import Trace


def test_trace_that_is_gone_is_an_error_and_no_empty_trace(tmp_path):
    trace = Trace(LocalFiles(), str(tmp_path / "instances" / "gone"), only_followed=True)
    with pytest.raises(CollectError, match=r"trace is gone: .*/gone/trace.*unmounted"):
        asyncio.run(trace.save(tmp_path / "kernel.trace"))


def test_trace_without_events_is_read(tmp_path):
    (tmp_path / "trace").write_text("# tracer: nop\n")
    asyncio.run(Trace(LocalFiles(), str(tmp_path), only_followed=True).save(tmp_path / "kept"))
    assert (tmp_path / "kept").read_text() == "# tracer: nop\n"


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
