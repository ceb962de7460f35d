"""Every reader of text that something else wrote, with texts to begin with, and what spoils them.

A reader may refuse a text: with an error of irqmatrix, or where its docstring says so with another.
Any other exception is a bug of ours.
"""

from __future__ import annotations

import io
import json
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from random import Random

import yaml as yaml_library
from hypothesis import strategies as st
from rich.console import Console

from harness.analyse import conformance
from harness.analyse.case_evidence import read_counters, read_ledger, read_verdict
from harness.base import limits, resources, yamlfile
from harness.base.terminal import Printer
from harness.base.text import plain
from harness.collect.redaction import redacted
from harness.compare import known
from harness.config import config
from harness.explain.quantities import quantities
from harness.guests import last_words, linux, probe, protocol_files, protocols
from harness.images import archive, multiboot
from harness.ledger import ledger
from harness.ledger.bookkeeper import Bookkeeper
from harness.model import manifest
from harness.model.case import Irqchip
from harness.record.collectors import monitor, procfs
from harness.record.collectors.foreign import archive as foreign_archive
from harness.record.collectors.foreign.model import FileKind
from harness.record.collectors.foreign.read import ReadingFacts, kind_of, read_lines
from harness.record.collectors.ftrace import FtraceReader
from harness.record.collectors.qemu_log import QemuLogReader
from harness.record.eventlog import EventLogReader, dump_events
from harness.replay import snapshots
from harness.repro import catalogue
from harness.scenario import compile as scenario_compile
from harness.scenario import language
from harness.store import result
from support import multiboot as images
from support import recorded_cases, runs
from userspace_chip.errors import IrqmatrixError
from userspace_chip.info_lapic import parse_lapic
from userspace_chip.info_pic import parse_info_pic
from userspace_chip.kvm import multiboot as reader

GOLDEN = Path(__file__).parent.parent / "golden"


@dataclass(frozen=True)
class Reader:
    """``read`` takes the bytes of a file or a stream; ``seeds`` are some that it knows."""

    read: Callable[[bytes], object]
    seeds: Callable[[], list[bytes]]
    refusals: tuple[type[Exception], ...] = (IrqmatrixError,)
    share: int = 100
    """Percent of the random texts that it is to be given, where it takes long for one."""


def text(read: Callable[[str], object]) -> Callable[[bytes], object]:
    """A reader of text: of what decoding makes of the bytes, as everywhere here."""
    return lambda data: read(data.decode("utf-8", "replace"))


@cache
def _folder() -> tempfile.TemporaryDirectory[str]:
    """One for all files: a folder takes longer to make than a file to read."""
    return tempfile.TemporaryDirectory()


def file(read: Callable[[Path], object], name: str) -> Callable[[bytes], object]:
    """A reader of a file of that name."""

    def of(data: bytes) -> object:
        path = Path(_folder().name, name)
        path.write_bytes(data)
        return read(path)

    return of


def yaml(read: Callable[[yamlfile.YamlFile], object]) -> Callable[[bytes], object]:
    """A reader of a parsed YAML file."""
    return text(lambda said: read(yamlfile.parse(said, Path("some.yaml"))))


def configs(pattern: str) -> Callable[[], list[bytes]]:
    """Shipped files; the small ones, which leave room for many tries."""
    return lambda: sorted(
        (path.read_bytes() for path in resources.configs().glob(pattern)), key=len
    )[:12]


def golden(*patterns: str, most: int = 6000) -> Callable[[], list[bytes]]:
    """The beginnings of recorded texts."""
    return lambda: [
        path.read_bytes()[:most] for each in patterns for path in sorted(GOLDEN.glob(each))
    ]


def monitor_texts(*names: str) -> Callable[[], list[bytes]]:
    """What a monitor said, in a recording of all that it said."""

    def found() -> list[bytes]:
        texts: list[str] = []

        def walk(node: object, key: str = "") -> None:
            if isinstance(node, dict):
                for name, child in node.items():
                    walk(child, name)
            elif isinstance(node, list):
                for child in node:
                    walk(child, key)
            elif isinstance(node, str) and len(node) > 20:
                texts.append(node)

        for path in GOLDEN.glob("collect/monitor-*.json"):
            walk(json.loads(path.read_text()))
        texts.append((GOLDEN / "monitor/info-pic-7.2.txt").read_text())
        return [each.encode() for each in texts]

    return found


def _expand(found: yamlfile.YamlFile) -> None:
    config.expand(found)


def _compile(found: yamlfile.YamlFile) -> None:
    for scenario in language.read(found):
        scenario_compile.compile_text(scenario)


def field(kind: FileKind) -> Callable[[bytes], object]:
    """A reader of a file that a user sends, and what is made of it."""

    def read(said: str) -> None:
        kind_of(said)
        lines = said.splitlines(keepends=True)
        quantities(read_lines("some", kind, lines, ReadingFacts(irqchip=Irqchip.ON)))

    return text(read)


def _consoles(said: str) -> None:
    last_words.phrases(said)
    probe.parse_logs(said)
    probe.reached(said, 1, 0)
    probe.is_done(said)
    shipped = protocol_files.shipped()
    protocols.recognise(said, shipped)
    protocols.is_over(said, shipped)
    for protocol in shipped:
        protocols.read(said, protocol)


def _kernel_trace(said: str) -> None:
    events = list(FtraceReader().events(said.splitlines(keepends=True)))
    "".join(dump_events(events))


def _qemu_trace(said: str) -> None:
    reader = QemuLogReader(vcpu_of_thread={6911: 0})
    "".join(dump_events(reader.events(said.splitlines(keepends=True))))


def _monitor(said: str) -> None:
    for read in (
        lambda: monitor.count_irq_statistics(monitor.parse_irq_statistics(said)),
        lambda: monitor.parse_controllers(said),
        lambda: parse_info_pic(said),
        lambda: parse_lapic(said),
    ):
        try:
            read()
        except IrqmatrixError:
            continue


def _statistics(said: str) -> None:
    try:
        stats = json.loads(said)
    except (ValueError, RecursionError):
        return
    monitor.count_stats(stats)


def _guest(said: str) -> None:
    linux.parse_transcript(said, said)
    linux.tsc_khz(said)
    for read in (procfs.parse_interrupts, procfs.parse_stat, procfs.count_guest):
        try:
            read(said)
        except IrqmatrixError:
            continue


def _archives(said: str) -> None:
    for read in (
        lambda: archive.parse_mirror(said, "bookworm"),
        lambda: archive.parse_offers(said, "kernel", "bookworm"),
        lambda: archive.parse_meta_package(said),
        lambda: archive.parse_parts(said),
        lambda: archive.parse_versions(said),
        lambda: archive.parse_downloads(said),
    ):
        try:
            read()
        except IrqmatrixError:
            continue


def _image(data: bytes) -> None:
    if reader.defect(data) is None:
        assert reader.defect(multiboot.loadable(data)) is None


def _shown(said: str) -> None:
    out = io.StringIO()
    console: Console = Printer(file=out, width=60, color_system=None)
    console.print(said, markup=False, highlight=False, soft_wrap=True)
    console.print(said, markup=False)
    printed = out.getvalue()
    assert plain(printed) == printed


@cache
def _account() -> bytes:
    books = Bookkeeper(Irqchip.ON, smp=1, ioapics=1)
    for event in recorded_cases.events_of("on")[:200]:
        books.add(event)
    return ledger.dump(books.close(damage=None, handled={})).encode()


def _events() -> list[bytes]:
    return [
        "".join(dump_events(recorded_cases.events_of(mode)[100:120])).encode()
        for mode in recorded_cases.MODES
    ]


def _case_file(name: str) -> Callable[[], list[bytes]]:
    def found() -> list[bytes]:
        with tempfile.TemporaryDirectory() as folder:
            case = recorded_cases.case_folder(Path(folder), "on", alter=lambda events: events[:1])
            return [(case / name).read_bytes()[:8000]]

    return found


def _console_texts() -> list[bytes]:
    """The golden consoles, which stand in YAML files with what is to be said of them."""
    return [
        entry["console"].encode()
        for path in sorted(GOLDEN.glob("consoles/*.yaml"))
        for entry in yaml_library.safe_load(path.read_text(encoding="utf-8"))
    ]


def _members(path):
    return list(foreign_archive.members(path))


def _redacted(said):
    """Each form, the pure text's among them."""
    return redacted(dict.fromkeys((*foreign_archive.KINDS, "threads.txt"), said))


READERS = {
    "configuration": Reader(yaml(_expand), configs("*.yaml"), share=4),
    "scenarios": Reader(yaml(_compile), configs("scenarios/*.yaml"), share=20),
    "known differences": Reader(file(known.load, "known.yaml"), configs("known/*.yaml")),
    "reproducer": Reader(file(catalogue.load, "repro.yaml"), configs("repro/*.yaml"), share=20),
    "protocol": Reader(file(protocol_files.load, "own.yaml"), configs("protocols/*.yaml")),
    "console": Reader(text(_consoles), _console_texts),
    "kernel trace": Reader(text(_kernel_trace), golden("collect/ftrace-*.txt", most=3000)),
    "QEMU trace": Reader(text(_qemu_trace), golden("collect/qemulog-*.txt", most=3000)),
    "monitor": Reader(text(_monitor), monitor_texts()),
    "statistics": Reader(text(_statistics), lambda: [STATISTICS]),
    "guest": Reader(text(_guest), golden("collect/interrupts-*.txt", "collect/stat-*.txt")),
    "archive": Reader(text(_archives), lambda: ARCHIVE),
    "result": Reader(
        file(result.read, "result.json"), lambda: [result.dump(runs.EVERYTHING).encode()]
    ),
    "case": Reader(
        file(lambda path: manifest.read(path.parent), "case.json"), _case_file("case.json")
    ),
    "verdict": Reader(file(read_verdict, "verdict.json"), _case_file("verdict.json")),
    "counters": Reader(file(read_counters, "counters.json"), _case_file("counters.json")),
    "ledger": Reader(file(read_ledger, "ledger.json"), lambda: [_account()]),
    "looks": Reader(
        file(lambda path: snapshots.read(path.parent), "looks.json"),
        lambda: [
            b'[{"begin": "end x", "end": "seen x", "controllers": "ioapic0", "lapics": ["a"]}]'
        ],
    ),
    "logs of scenarios": Reader(
        file(lambda path: conformance.read_logs(path.parent, conclusive=True), "scenarios.json"),
        lambda: [b'{"one": {"log": "0 irq 51"}, "two": {"log": null, "inconclusive": true}}'],
    ),
    "events": Reader(
        text(lambda said: list(EventLogReader().events(said.splitlines(keepends=True)))), _events
    ),
    "image": Reader(_image, lambda: [images.elf(), images.elf64(), images.header()]),
    "limits": Reader(text(limits.parsed), lambda: [b"trace_mib=7, console_mib=9"]),
    "field interrupts": Reader(field(FileKind.INTERRUPTS), golden("collect/interrupts-*.txt")),
    "field log": Reader(
        field(FileKind.LOG), golden("field/nobody-cared.txt", "field/console-*.txt", most=3000)
    ),
    "field exits": Reader(field(FileKind.EXITS), golden("field/perf-kvm-stat-*.txt")),
    "field counts": Reader(field(FileKind.COUNTS), golden("field/perf-stat-*.txt")),
    "field kvm_stat": Reader(field(FileKind.KVM_STAT), golden("field/kvm_stat-*.csv")),
    "field trace": Reader(
        field(FileKind.TRACE),
        golden("field/trace-*.txt", "field/perf-script-*.txt", most=2000),
        share=30,
    ),
    "field monitor": Reader(field(FileKind.MONITOR), golden("field/hmp-*.txt")),
    "field statistics": Reader(field(FileKind.STATISTICS), golden("field/qmp-*.txt")),
    "field command line": Reader(
        field(FileKind.COMMAND_LINE), golden("field/cmdline-*.txt", most=900)
    ),
    "field XML": Reader(field(FileKind.XML), golden("field/slew.xml")),
    "field lspci": Reader(field(FileKind.LSPCI), lambda: [LSPCI]),
    "field versions": Reader(
        field(FileKind.VERSIONS), lambda: [b"QEMU emulator version 10.0.2\nLinux host 6.1.0-1 x"]
    ),
    "collected archive": Reader(file(_members, "a.tar.gz"), lambda: [COLLECTED]),
    "redaction": Reader(text(_redacted), golden("field/cmdline-*.txt", "field/slew.xml", most=900)),
    "terminal": Reader(
        text(_shown), lambda: [b"\x1b[2J\x1b]0;x\x07", "\x9b\u202e日本".encode()], share=10
    ),
}
"""By name; a text that broke one is kept in ``tests/golden/foreign/NAME/``."""

STATISTICS = json.dumps(
    [{"provider": "kvm", "qom-path": "/machine/cpu[0]", "stats": [{"name": "exits", "value": 5}]}]
).encode()
COLLECTED = foreign_archive.packed({"contents.json": "{}", "trace.txt": "a\n", "x": "b"})
LSPCI = b"""00:02.0 Ethernet controller: Red Hat, Inc. Virtio network device
\tFlags: bus master, fast devsel, latency 0, IRQ 22
\tCapabilities: [98] MSI-X: Enable+ Count=4 Masked-
"""
ARCHIVE = [
    b"linux-image-amd64 | 6.1.4-1 | http://deb.example.org/debian bookworm/main amd64 Packages\n",
    b"Package: linux-image-amd64\nVersion: 6.1.4-1\nDepends: linux-image-6.1.0-1 (= 6.1.4-1)\n",
    b"'http://deb.example.org/pool/a.deb' a_1_amd64.deb 1234 SHA256:00ff\n",
]

# --- what spoils a text

WORDS = (
    b"\0", b"\xff", b"\x1b[", b"\n", b"\r\n", b"'", b'"', b"{", b"}", b"[", b"]", b":", b",", b"-",
    b"&a ", b"*a", b"!!int ", b"!!float ", b"!!set ", b"!!binary ", b"!!timestamp ", b"<<: ", b"? ",
    b"~", b"null", b"true", b".nan", b".inf", b"-1", b"0x", b"1e999", b"9" * 30, b"9" * 5000,
    b"2001-99-99", b"1:60:99", b"../x", b"~x/", b"%s", b"$(x)", b"\xe2\x80\xae", b"[" * 300,
    b"{'a':" * 300, b"cpu", b"vec", b"irq", b"PASS: ", b"1..4\n", b"ok 1 ", b"# SKIP",
)  # fmt: skip

KINDS = ("insert", "replace", "delete", "repeat", "cut", "flip", "move")
EDITS = st.tuples(
    st.sampled_from(KINDS),
    st.floats(0, 1, exclude_max=True),
    st.integers(1, 40),
    st.sampled_from(WORDS) | st.binary(min_size=1, max_size=4),
)


def edited(data: bytes, edits: list[tuple[str, float, int, bytes]]) -> bytes:
    """``data`` after each of ``edits``: what, where as a part of it, how many bytes, with what."""
    for kind, place, length, word in edits:
        at = int(place * len(data))
        head, middle, tail = data[:at], data[at : at + length], data[at + length :]
        if kind == "insert":
            data = head + word + middle + tail
        elif kind == "replace":
            data = head + word + tail
        elif kind == "delete":
            data = head + tail
        elif kind == "repeat":
            data = head + middle * 3 + tail
        elif kind == "cut":
            data = head
        elif kind == "flip":
            data = head + bytes(each ^ word[0] for each in middle[:1]) + middle[1:] + tail
        else:
            data = head + tail + middle
    return data


def random_text(name: str, random: Random) -> bytes:
    """One of the texts of :func:`spoilt`; a thousand times as fast to make."""
    edits = [
        (
            random.choice(KINDS), random.random(), random.randint(1, 40),
            random.choice(WORDS) if random.random() < 0.7 else random.randbytes(2),
        )
        for _ in range(random.randint(0, 6))
    ]  # fmt: skip
    return edited(random.choice(seeds_of(name)), edits)


@cache
def seeds_of(name: str) -> list[bytes]:
    """The texts that its reader knows."""
    return READERS[name].seeds()


def spoilt(name: str) -> st.SearchStrategy[bytes]:
    """Texts for that reader: the known ones with up to six edits, and others."""
    return st.builds(
        edited, st.sampled_from(seeds_of(name)), st.lists(EDITS, max_size=6)
    ) | st.binary(max_size=40)
