"""What everyone who drives a boot can do with it."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest

from harness.guests.plan import GuestPlan
from harness.model.case import Host, Vmm
from harness.record import boot
from harness.record.boot import Boot, Files, PartialRecording
from harness.record.collectors import qmp
from support import cases

LIVE = replace(cases.SPLIT, vmm=Vmm.PYCHIP)


async def connect(backend, folder):
    ours, theirs = socket.socketpair()
    plan = GuestPlan(cases.case(backend=backend), Path("kernel"), None, False, False)
    guest = SimpleNamespace(monitor=ours)
    files = Files(folder, "state")
    one = Boot(plan, guest, None, files, None, PartialRecording(), lambda step: None)
    with theirs:
        async with contextlib.AsyncExitStack() as stack:
            await one.connected(stack)


@pytest.mark.parametrize(
    ("backend", "limit"),
    [(LIVE, "0.02 s"), (replace(LIVE, host=Host.LOCAL), "0.01 s"), (cases.SPLIT, "0.01 s")],
    ids=["live-in-lab", "live", "qemu"],
)
def test_monitor_that_never_greets_is_waited_for_longer_where_a_python_starts_in_a_lab(
    backend, limit, tmp_path, monkeypatch
):
    monkeypatch.setattr(boot, "LAB_PYTHON_S", 0.02)
    monkeypatch.setattr(qmp, "TIMEOUT_S", 0.01)

    with pytest.raises(qmp.MonitorError, match=f"no QMP greeting within {limit}"):
        asyncio.run(connect(backend, tmp_path))
