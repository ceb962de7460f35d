"""A VM that is there in part -> an archive that says what it has and what it has not."""

import asyncio
import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from harness.backends.local import LocalFiles
from harness.base.errors import CannotRun, CollectError, ConfigError
from harness.collect import sources, target
from harness.collect.collect import collect, redacted_copy
from harness.collect.sources import Asked, gathered
from harness.collect.target import QemuProcess, VmTarget, qemus, target_of
from harness.commands.explain import ExplainOptions, run
from harness.record.collectors.foreign import archive
from harness.record.collectors.tracefs import Trace

Q35 = "qemu-system-x86_64\0-M\0q35\0-accel\0kvm,kernel-irqchip=split\0-name\0guest=web-of-anna\0"
SNAPSHOT = "{}\n           CPU0\n  8: {} IO-APIC   8-edge      rtc0\n"
ROWS = SNAPSHOT.format("12:00:00", 1000) + SNAPSHOT.format("12:00:10", 11000)


def asked(target=None, seconds=0.0, files=()):
    return Asked(target or VmTarget(os.getpid()), seconds, tuple(files), LocalFiles(), None)


def collected(*arguments, redact=True, **options):
    return asyncio.run(collect(asked(*arguments, **options), redact=redact))


def test_collection_of_this_process_has_its_threads_and_the_host_s_interrupts():
    found = collected(redact=False)
    assert f"{os.getpid()}" not in found.texts["threads.txt"]
    assert "percent of a CPU" in found.texts["threads.txt"]
    assert found.texts["host-interrupts.txt"].count("CPU0") == 2
    assert "Linux version" in found.texts["versions.txt"]
    assert "tracefs" in found.missing["trace"]
    assert "--guest-interrupts" in found.missing["guest interrupts"]
    assert found.contents["redaction"] == "not redacted"


def test_collection_without_a_process_says_it_of_each_source_that_needs_one():
    found = collected(VmTarget())
    for name in ("command line", "threads"):
        assert found.missing[name] == "QEMU's process is not known"
    assert found.contents["redaction"] == "redacted"


def test_collection_of_an_ended_process_says_so():
    child = subprocess.run([sys.executable, "-c", "import os; print(os.getpid())"],
                           capture_output=True, check=True, text=True)  # fmt: skip
    found = collected(VmTarget(int(child.stdout)))
    assert "No such file" in found.missing["command line"]
    assert "has ended" in found.missing["threads"]


def test_monitor_that_another_client_holds_is_not_waited_for(tmp_path, monkeypatch):
    monkeypatch.setattr(sources, "GREETING_S", 0.05)
    with socket.socket(socket.AF_UNIX) as held:  # it accepts nobody, as QEMU with a client
        held.bind(str(tmp_path / "qmp"))
        held.listen(1)
        found = collected(VmTarget(qmp=tmp_path / "qmp"))
    assert "no QMP greeting within 0.05 s" in found.missing["monitor"]
    assert "another client may hold it" in found.missing["monitor"]


def test_monitor_that_is_not_there_is_said(tmp_path):
    found = collected(VmTarget(qmp=tmp_path / "qmp"), redact=False)
    assert found.missing["monitor"] == "QMP cannot be reached: No such file or directory"


def test_libvirt_is_asked_read_only_and_its_refusal_is_said(tmp_path, monkeypatch):
    virsh = tmp_path / "virsh"
    virsh.write_text('#!/bin/sh\necho "error: no domain: $*" >&2; exit 1\n')
    virsh.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    found = collected(VmTarget(domain="web-of-anna"), redact=False)
    said = "virsh failed: error: no domain: --readonly dumpxml --domain web-of-anna"
    assert found.missing["libvirt's XML"] == said


def test_name_of_the_guest_is_in_no_reason_of_a_redacted_collection(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    found = collected(VmTarget(domain="web-of-anna", qmp=Path("/home/anna/web-of-anna.sock")))
    assert "anna" not in json.dumps(found.contents)


def test_reason_has_the_placeholders_of_the_texts(tmp_path):
    listed = json.dumps({"missing": {"monitor of anna-db": "no /run/anna-db.sock at 10.0.0.7"}})
    texts = {"contents.json": listed, "trace.txt": "10.0.0.7\n", "cmdline.txt": "kvm -name anna-db"}
    (tmp_path / "a").write_bytes(archive.packed(texts))
    copy = redacted_copy(tmp_path / "a")
    assert "anna" not in json.dumps(copy.contents)
    (why,) = copy.missing.values()
    assert why.endswith(f"at {copy.texts['trace.txt'].strip()}")


def test_every_source_that_fails_stops_no_other():
    found = asyncio.run(gathered(asked(VmTarget())))
    assert [source.name for source, _ in found] == [each.name for each in sources.SOURCES]
    assert all(each.texts or each.missing for _, each in found)


def test_sources_begin_one_after_another_and_wait_for_the_same_end():
    said = []

    def source(name):
        async def gather(_, interval):
            said.append(f"{name} begins")
            await asyncio.sleep(0)
            said.append(f"{name} waits")
            await interval()
            said.append(f"{name} ends")
            return sources.Found({})

        return sources.CollectSource(name, "", gather)

    asyncio.run(gathered(asked(), [source("a"), source("b")]))

    assert said == ["a begins", "a waits", "b begins", "b waits", "a ends", "b ends"]


def buffer(folder, entries, lost):
    (folder / "per_cpu" / "cpu0").mkdir(parents=True)
    stats = f"entries: {entries}\noverrun: 0\ndropped events: {lost}\n"
    (folder / "per_cpu" / "cpu0" / "stats").write_text(stats)
    return Trace(LocalFiles(), str(folder), (), only_followed=True)


@pytest.mark.parametrize(("entries", "lost"), [(200_001, 0), (5, 1)], ids=["many", "full"])
def test_trace_of_a_busy_guest_ends_before_the_interval_and_that_is_said(entries, lost, tmp_path):
    trace = buffer(tmp_path, entries, lost)

    found = asyncio.run(sources.until_enough(trace, 10.0, asyncio.Event().wait))

    assert f"{entries} events" in found["the rest of the interval"]


def test_trace_of_a_quiet_guest_lasts_as_long_as_the_interval(tmp_path):
    async def interval():
        pass

    trace = buffer(tmp_path, 200_000, 0)
    assert asyncio.run(sources.until_enough(trace, 10.0, interval)) == {}


@pytest.fixture
def packed(tmp_path):
    (tmp_path / "rows").write_text(ROWS)
    texts = {
        "cmdline.txt": Q35.replace("\0", " "),
        "guest-interrupts-1.txt": ROWS,
        "threads.txt": "web-of-anna\n",
    }
    path = tmp_path / "a.tar.gz"
    path.write_bytes(archive.packed(texts))
    return path


def test_redacted_copy_has_no_name_and_is_explained_as_the_archive_is(packed, tmp_path):
    copy = redacted_copy(packed)
    assert "anna" not in "".join(copy.texts.values())
    copy.write(tmp_path / "b.tar.gz")
    answers = [run(ExplainOptions((path,), (), None, None))
               for path in (packed, tmp_path / "b.tar.gz")]  # fmt: skip
    assert answers[0].vm.irqchip == answers[1].vm.irqchip == "split"
    for answer in answers:
        rates = {each.quantity.name: each.quantity.value for each in answer.measured}
        assert rates["irq/ioapic/8"] == 1000


def test_redacted_archive_is_not_redacted_again(packed, tmp_path):
    redacted_copy(packed).write(tmp_path / "b.tar.gz")
    with pytest.raises(CollectError, match="redacted already"):
        redacted_copy(tmp_path / "b.tar.gz")


def test_contents_of_an_archive_name_its_files_and_their_kinds(packed, tmp_path):
    redacted_copy(packed).write(tmp_path / "b.tar.gz")
    listed = json.loads(dict(archive.members(tmp_path / "b.tar.gz"))["contents.json"])
    assert {each["name"]: each["kind"] for each in listed["files"]} == {
        "cmdline.txt": "qemu",
        "guest-interrupts-1.txt": "interrupts",
        "threads.txt": "threads",
    }


def process(text):
    return QemuProcess(os.getpid(), tuple(text.split(" ")))


@pytest.mark.parametrize(
    ("words", "path"),
    [
        ("-qmp unix:/run/q.sock,server=on,wait=off", Path("/run/q.sock")),
        ("-qmp unix:q.sock,server", Path.cwd() / "q.sock"),
        (
            "-chardev socket,id=c,path=/run/c.sock -mon chardev=c,mode=control",
            Path("/run/c.sock"),
        ),
        ("-chardev socket,id=c,path=/run/c.sock -mon chardev=c,mode=readline", None),
        ("-qmp stdio", None),
    ],
)
def test_socket_of_the_monitor_is_that_of_the_command_line(words, path):
    assert process(f"qemu {words}").qmp == path


@pytest.mark.parametrize(
    ("words", "name"),
    [("-name anna", "anna"), ("-name guest=anna,debug-threads=on", "anna"), ("-m 64", None)],
)
def test_name_of_a_guest_is_that_of_the_command_line(words, name):
    assert process(f"qemu {words}").name == name


def test_qemus_are_processes_that_run_a_qemu(tmp_path):
    for pid, text in ((7, Q35), (5, "/usr/bin/kvm\0-m\0"), (6, "vim\0qemu-system-x86_64\0")):
        (tmp_path / str(pid)).mkdir()
        (tmp_path / str(pid) / "cmdline").write_text(text)
    assert [each.pid for each in qemus(tmp_path)] == [5, 7]


def test_qemu_that_brings_its_own_loader_is_one_and_begins_with_its_program(tmp_path):
    loaded = ("/opt/q/ld.so", "--library-path", "/opt/q/lib", "/opt/q/qemu-system-x86_64", "-S")
    other = ("/lib64/ld-linux-x86-64.so.2", "/usr/bin/sleep", "9")
    for pid, words in ((5, loaded), (6, other)):
        (tmp_path / str(pid)).mkdir()
        (tmp_path / str(pid) / "cmdline").write_text("\0".join(words) + "\0")

    assert [each.words[:2] for each in qemus(tmp_path)] == [("/opt/q/qemu-system-x86_64", "-S")]


def test_several_qemus_are_listed_and_one_has_to_be_named(monkeypatch):
    running = [QemuProcess(5, ("kvm", "-name", "one")), QemuProcess(7, ("kvm", "-m", "64"))]
    monkeypatch.setattr(target, "qemus", lambda: running)
    with pytest.raises(ConfigError, match=r"5 one; 7 kvm \(say which: --pid N\)") as error:
        target_of(None, None, None)
    assert error.value.what == "several QEMUs run here"
    assert target_of(7, None, None).pid == 7
    assert target_of(None, None, "one").pid == 5


def test_qemu_that_does_not_run_is_said(monkeypatch):
    monkeypatch.setattr(target, "qemus", list)
    with pytest.raises(CannotRun, match="no QEMU runs here"):
        target_of(None, None, None)
    with pytest.raises(ConfigError, match="--pid 3: no QEMU"):
        target_of(3, None, None)


def test_socket_without_a_listener_is_a_mistake(tmp_path):
    with pytest.raises(ConfigError, match="cannot connect: No such file"):
        target_of(None, tmp_path / "qmp", None)


def test_file_of_the_user_that_is_too_long_is_cut_at_a_line_and_that_is_said(tmp_path, monkeypatch):
    whole = SNAPSHOT.format("12:00:00", 1000)
    monkeypatch.setattr(sources, "_GUEST_BYTES", len(whole) + 5)
    (tmp_path / "rows").write_text(ROWS)
    found = collected(files=[tmp_path / "rows"], redact=False)
    assert found.texts["guest-interrupts-1.txt"] == whole
    assert "guest interrupts: the end of guest-interrupts-1.txt" in found.missing
