"""What a QEMU on this machine leaves."""

import asyncio
from types import SimpleNamespace

import pytest

from harness.backends.local import LocalGuest


@pytest.mark.parametrize(
    ("files", "text"),
    [
        ({"trace": "one\n"}, "one\n"),
        (
            {"trace.12": "b\n", "trace.11": "a\n"},
            "irqmatrix: thread 11\na\nirqmatrix: thread 12\nb\n",
        ),
        ({}, ""),
    ],
    ids=["one", "threads", "none"],
)
def test_collected_trace_has_what_every_thread_wrote(tmp_path, files, text):
    folder, out = tmp_path / "qemu", tmp_path / "out"
    folder.mkdir()
    for name, said in {"stderr": "", **files}.items():
        (folder / name).write_text(said)

    async def collect():
        ended = SimpleNamespace(pid=1, wait=asyncio.Event().wait)
        guest = LocalGuest(ended, SimpleNamespace(), SimpleNamespace(), folder)
        await guest.collect(tmp_path / "stderr", out)

    asyncio.run(collect())

    assert out.read_text() == text
