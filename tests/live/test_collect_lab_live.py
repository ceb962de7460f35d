"""``collect`` of a guest on a mainline KVM, as root; ``explain`` of it where no QEMU is."""

from __future__ import annotations

import asyncio
from typing import NamedTuple

import pytest

from harness.commands.explain import ExplainOptions
from harness.commands.explain import run as explain
from harness.record.collectors.foreign import archive
from support.collect_lab import COLLECT, PID, collect_lab

pytestmark = [
    *(pytest.mark.kvm, pytest.mark.live, pytest.mark.lab, pytest.mark.slow, pytest.mark.nightly),
    pytest.mark.timeout(1800),
]

ON = ("-machine", "q35,accel=kvm,kernel-irqchip=on", "-cpu", "qemu64,+tsc-deadline", "-m", "256")
SCRIPTS = "irqmatrix-collect.tar.gz"


class Collections(NamedTuple):
    """Three archives of an idle Linux, and what was printed meanwhile."""

    command: object
    script: object
    without_hpet: object
    said: str
    left: str


@pytest.fixture(scope="module")
def collections(tmp_path_factory):
    """With the HPET by the command and by the script, and without it by the script."""
    return asyncio.run(_collected(tmp_path_factory.mktemp("lab")))


async def _collected(folder):
    async with collect_lab(folder, "10.0", "6.12") as lab:
        script = f"cd /tmp && sh {lab.script} {PID} 5"
        await lab.start_linux(*ON)
        said = await lab.run(f"{COLLECT} --seconds 5 --out /tmp/command.tar.gz")
        command = await lab.fetch("/tmp/command.tar.gz", "command.tar.gz")
        await lab.run(script)
        scripts = await lab.fetch(f"/tmp/{SCRIPTS}", "script.tar.gz")
        await lab.stop()
        await lab.start_linux(*ON, "-machine", "hpet=off")
        await lab.run(script)
        without = await lab.fetch(f"/tmp/{SCRIPTS}", "without-hpet.tar.gz")
        left = await lab.run("ls /sys/kernel/tracing/instances; ls /tmp | grep irqmatrix-")
        return Collections(command, scripts, without, said, left)


def explained(path, tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    return explain(ExplainOptions((path,), (), None, None))


def test_command_reads_every_source_but_those_that_only_a_user_gives(collections):
    missing = collections.said.partition("not collected\n")[2].splitlines()

    assert [line.partition(":")[0].strip() for line in missing[:-1]] == [
        "libvirt's XML",
        "guest interrupts",
    ]
    names = {name for name, _ in archive.members(collections.command)}
    assert {"trace.txt", "query-stats.json", "info-irq.txt", "threads.txt"} <= names
    assert "module-parameters.txt" in names


def test_nothing_is_left_in_tracefs_and_no_scratch(collections):
    assert collections.left == f"{SCRIPTS}\n"


@pytest.mark.parametrize("form", ["command", "script"])
def test_idle_guest_with_the_hpet_has_ghost_ticks(form, collections, tmp_path, monkeypatch):
    answer = explained(getattr(collections, form), tmp_path, monkeypatch)

    assert answer.verdict.startswith("it looks like hpet-ghost-ticks")
    assert any("gsi/0/low" in text and "a second" in text for text in answer.fitting[0].seen)
    assert answer.refused == ()
    assert answer.vm.linux[:2] == (6, 12)
    assert answer.vm.qemu == ((10, 0, 13) if form == "command" else None)
    assert answer.vm.apicv is False
    rates = {each.quantity.name for each in answer.measured}
    assert {"exit/total", "exit/halt", "thread/main", "thread/vcpu"} <= rates
    assert all(laws.checked and not laws.broken for laws in answer.laws)


def test_idle_guest_without_an_hpet_has_nothing_unusual(collections, tmp_path, monkeypatch):
    answer = explained(collections.without_hpet, tmp_path, monkeypatch)

    assert answer.verdict == "nothing unusual"
    assert answer.is_quiet
    assert not any(text.startswith("the lines that QEMU moves") for text in answer.not_observable)
