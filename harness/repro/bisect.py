"""Since when: the versions of a kernel or a QEMU between which a reproducer's answer changes.

The search is a pure function of a test (:func:`search`).  Each step is remembered in a file, so
that an interrupted bisection, started again, continues from where it was.
"""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Final, Literal, TypeAlias

from pydantic import TypeAdapter, ValidationError

from harness.base import files
from harness.base.errors import ConfigError, ImageError, StoreError
from harness.base.terminal import Printer
from harness.base.versions import Version, parse_version
from harness.config import lanes
from harness.images.cache import ImageCache
from harness.images.model import Choice
from harness.repro.catalogue import Entry
from harness.repro.reproduce import Answer, ReproRequest, reproduce

STATE: Final = "bisect.json"
SCHEMA: Final = 1

Axis: TypeAlias = Literal["kernel", "qemu"]


# --- The search ---------------------------------------------------------------------------------


@dataclass(frozen=True)
class Boundary:
    """The answer changes between two versions next to each other, by their index.

    ``between`` are those that could not be tested; the change may be at any of them.
    """

    before: int
    after: int
    before_answer: Answer
    after_answer: Answer
    between: tuple[int, ...]


@dataclass(frozen=True)
class Same:
    """Both ends give the same answer; None where nothing could be tested."""

    answer: Answer | None


async def search(count: int, test: Callable[[int], Awaitable[Answer]]) -> Boundary | Same:
    """Find where ``test`` changes among ``count`` versions in order, with few tests.

    A version that cannot be tested is passed over, as ``git bisect skip`` does.
    """
    answers: dict[int, Answer] = {}

    async def first_known(indices: Sequence[int]) -> int | None:
        for index in indices:
            if index not in answers:
                answers[index] = await test(index)
            if answers[index] is not Answer.CANNOT_RUN:
                return index
        return None

    low = await first_known(range(count))
    high = await first_known(range(count - 1, -1, -1))
    if low is None or high is None:
        return Same(None)
    if answers[low] is answers[high]:
        return Same(answers[low])
    while True:
        middle = (low + high) // 2
        inner = sorted(range(low + 1, high), key=lambda index: abs(index - middle))
        found = await first_known(inner)
        if found is None:
            untested = tuple(sorted(inner))
            return Boundary(low, high, answers[low], answers[high], untested)
        if answers[found] is answers[low]:
            low = found
        else:
            high = found


# --- Versions -----------------------------------------------------------------------------------


def select(kind: Axis, wanted: str, available: Callable[[], Sequence[Choice]]) -> list[Choice]:
    """The versions that ``wanted`` means: names, ranges such as ``6.1..6.12``, paths, with commas.

    A range is every available version in it, oldest first; ``6.1`` is the newest 6.1.  A lane's
    name stands for its version.  Raises :class:`ConfigError` for a version that is not available,
    with those that are.
    """
    chosen: dict[str, Choice] = {}
    for item in filter(None, (part.strip() for part in wanted.split(","))):
        for choice in _item(kind, item, available):
            chosen.setdefault(choice.name, choice)
    if not chosen:
        raise ConfigError(f"no {_NOUNS[kind]} is named", f"found {wanted!r}", _SYNTAX)
    return list(chosen.values())


_NOUNS: Final[Mapping[str, str]] = {"kernel": "kernel", "qemu": "QEMU"}
_SYNTAX: Final = "write versions and paths with commas, or a range such as 6.1..6.12"


def _item(kind: Axis, item: str, available: Callable[[], Sequence[Choice]]) -> list[Choice]:
    if "/" in item:
        return [Choice(item, item, True, "path")]
    first, dots, last = (lanes.version(kind, part) for part in item.partition(".."))
    item = f"{first}{dots}{last}"
    choices = list(available())
    try:
        low = parse_version(first)
        high = parse_version(last) if dots else low
    except ValueError:
        named = [choice for choice in choices if choice.name == item]
        if named:
            return named
        raise ConfigError(f"{item!r} is not a version", None, _SYNTAX) from None
    found = [choice for choice in choices if _within(parse_version(choice.version), low, high)]
    exact = [choice for choice in choices if item in (choice.name, choice.version)]
    if not dots:
        found = exact or found[-1:]
    if not found:
        names = ", ".join(choice.version for choice in choices)
        raise ConfigError(f"there is no {_NOUNS[kind]} {item!r}", f"available: {names}")
    return found


def _within(version: Version, low: Version, high: Version) -> bool:
    """A bound compares only as many numbers as it has: 6.12.95 is within 6.1..6.12."""
    return version[: len(low)] >= low and version[: len(high)] <= high


# --- Steps and their memory ---------------------------------------------------------------------


@dataclass(frozen=True)
class BisectStep:
    """One pair of versions that was tested."""

    kernel: str
    qemu: str
    outcome: Answer
    reason: str
    duration_s: float


_STEPS: Final = TypeAdapter(dict[str, BisectStep])


class Memory:
    """The steps so far, in a file of the bisection's folder.

    What is remembered holds for the recipe and signs that were run, and for the same build where a
    version is a path.  :class:`StoreError` where the file is another's or cannot be used.
    """

    def __init__(self, folder: Path, digest: str) -> None:
        self._path = folder / STATE
        self._digest = digest
        self._steps: dict[str, BisectStep] = {}
        try:
            folder.mkdir(parents=True, exist_ok=True)
            document = files.read_json(self._path)
        except FileNotFoundError:
            return
        except (OSError, ValueError) as error:
            raise StoreError(
                f"cannot use {self._path}", str(error), "remove it, or choose another --out"
            ) from None
        if isinstance(document, dict) and document.get("digest") == digest:
            try:
                stored = _STEPS.validate_python(document.get("steps"))
            except ValidationError as error:
                why = files.first_problem(error)
                raise StoreError(f"{self._path} has no steps", why, "remove it") from None
            if document.get("schema") == SCHEMA:
                self._steps = stored

    def __len__(self) -> int:
        return len(self._steps)

    def get(self, kernel: Choice, qemu: Choice) -> BisectStep | None:
        """The step of that pair, if it was made."""
        return self._steps.get(_key(kernel, qemu))

    def add(self, kernel: Choice, qemu: Choice, step: BisectStep) -> None:
        """Remember ``step``; what could not be tested may be tested another time."""
        if step.outcome is not Answer.CANNOT_RUN:
            self._steps[_key(kernel, qemu)] = step
        steps = {key: asdict(step) for key, step in self._steps.items()}
        document = {"schema": SCHEMA, "digest": self._digest, "steps": steps}
        files.write_json(self._path, document)


def _key(kernel: Choice, qemu: Choice) -> str:
    return f"{_identity(kernel)} {_identity(qemu)}"


def _identity(choice: Choice) -> str:
    """A path stands for the file that is there now."""
    if choice.source != "path":
        return f"{choice.name}@{choice.version}"
    try:
        status = Path(choice.name.partition(":")[0]).stat()
    except OSError:
        return choice.name
    return f"{choice.name}@{status.st_size}-{status.st_mtime_ns}"


# --- The bisection ------------------------------------------------------------------------------


@dataclass(frozen=True)
class Search:
    """Versions along one axis while the other stays, and where the answer changes among them."""

    axis: Axis
    choices: tuple[Choice, ...]
    fixed: Choice
    found: Boundary | Same

    @property
    def title(self) -> str:
        """``kernels, with QEMU 10.0.2``."""
        if self.axis == "kernel":
            return f"kernels, with QEMU {self.fixed.version}"
        return f"QEMUs, with Linux {self.fixed.version} in the lab"


@dataclass(frozen=True)
class Bisection:
    """All searches, and every step that was made or remembered."""

    entry: Entry
    lines: tuple[Search, ...]
    steps: tuple[BisectStep, ...]
    directory: Path

    @property
    def exit_status(self) -> int:
        """0 where a boundary was found, else 3: there was nothing to bisect."""
        return 0 if any(isinstance(line.found, Boundary) for line in self.lines) else 3


@dataclass(frozen=True)
class BisectRequest:
    """What is asked for on the command line; an axis that is not named stays as in the recipe."""

    entry: Entry
    kernels: str | None
    qemus: str | None
    out: Path | None
    jobs: int


class Bisector:
    """Runs the steps of one bisection."""

    def __init__(
        self, plan: BisectRequest, cache: ImageCache, console: Printer, *, quiet: bool
    ) -> None:
        self._plan = plan
        self._cache = cache
        self._console = console
        self._quiet = quiet
        self._directory = (plan.out or Path("runs") / f"bisect-{plan.entry.id}").absolute()
        self._memory = Memory(self._directory, plan.entry.digest)
        self._steps: dict[tuple[str, str], BisectStep] = {}

    async def run(self) -> Bisection:
        """Bisect the kernels for each QEMU, then the QEMUs with the last kernel.

        :class:`ConfigError` where either has only one version, or a range is none;
        :class:`StoreError` where a step cannot be remembered.
        """
        kernels = self._choices("kernel", self._plan.kernels)
        qemus = self._choices("qemu", self._plan.qemus)
        if len(kernels) < 2 and len(qemus) < 2:
            raise ConfigError(
                "there is nothing to bisect",
                f"one kernel ({kernels[0].version}) and one QEMU ({qemus[0].version})",
                "name at least two of either: --kernels 6.1..6.12, --qemus 7.2,10.0",
            )
        if len(self._memory):
            self._say(f"{len(self._memory)} steps are remembered in {self._directory}")
        lines = []
        if len(kernels) > 1:
            lines += [await self._line("kernel", kernels, qemu) for qemu in qemus]
        if len(qemus) > 1:
            lines.append(await self._line("qemu", qemus, kernels[-1]))
        steps = tuple(self._steps.values())
        return Bisection(self._plan.entry, tuple(lines), steps, self._directory)

    def _choices(self, kind: Axis, wanted: str | None) -> list[Choice]:
        if wanted is None:
            case = self._plan.entry.decisive_cases[0]
            name = case.backend.kernel if kind == "kernel" else case.backend.qemu
            return [self._named(kind, name or "default")]
        return select(kind, wanted, lambda: self._cache.choices(kind))

    def _named(self, kind: Axis, name: str) -> Choice:
        """The version that the recipe names."""
        if kind == "kernel":
            image = self._cache.kernel(name)
            return Choice(name, image.version, True, image.source)
        qemu = self._cache.qemu(name)
        return Choice(name, ".".join(map(str, qemu.version)), True, qemu.source)

    async def _line(self, axis: Axis, choices: Sequence[Choice], fixed: Choice) -> Search:
        line = Search(axis, tuple(choices), fixed, Same(None))
        self._say(f"{len(choices)} {line.title}")

        async def test(index: int) -> Answer:
            pair = (choices[index], fixed) if axis == "kernel" else (fixed, choices[index])
            return (await self._step(*pair)).outcome

        return replace(line, found=await search(len(choices), test))

    async def _step(self, kernel: Choice, qemu: Choice) -> BisectStep:
        step = self._steps.get((kernel.version, qemu.version)) or self._memory.get(kernel, qemu)
        known = step is not None
        if step is None:
            step = await self._tested(kernel, qemu)
            self._memory.add(kernel, qemu, step)
        if (kernel.version, qemu.version) not in self._steps:
            took = "remembered" if known else f"{step.duration_s:.1f} s"
            self._say(f"  Linux {step.kernel}, QEMU {step.qemu}: {step.outcome} ({took})")
        self._steps[kernel.version, qemu.version] = step
        return step

    async def _tested(self, kernel: Choice, qemu: Choice) -> BisectStep:
        started = time.monotonic()
        out = self._directory / f"linux{_slug(kernel)}-qemu{_slug(qemu)}"
        request = ReproRequest(
            self._plan.entry, kernel.name, qemu.name, out, self._plan.jobs, decisive_only=True
        )
        try:
            assessment = (await reproduce(request, self._console, quiet=True)).assessment
            outcome, reason = assessment.outcome, assessment.reason
        except ImageError as error:
            outcome, reason = Answer.CANNOT_RUN, str(error)
        duration_s = round(time.monotonic() - started, 1)
        return BisectStep(kernel.version, qemu.version, outcome, reason, duration_s)

    def _say(self, text: str) -> None:
        if not self._quiet:
            self._console.print(text, markup=False, highlight=False, soft_wrap=True)


def _slug(choice: Choice) -> str:
    return choice.version.strip("/").replace("/", "_").replace(":", "_")
