"""The new machine: a bare Debian below a mount point, and what is run on it."""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
import re
import shutil
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from fresh.settings import HOME, Settings

PACKAGES: Final = ("git", "make", "python3", "ca-certificates")
REPOSITORY: Final = Path(__file__).resolve().parents[2]
CLONE: Final = HOME / "irqmatrix"
EMPTY: Final = HOME / "empty"
"""On the new machine: the clone of HEAD, and the environment that is empty at first."""

ROOT_AGE_S: Final = 30 * 86400.0
"""After that the bare root is made again: an installer of today has newer packages."""
STEPS: Final = (
    ("make", "run"),
    ("python3", "-m", "venv", str(EMPTY)),
    (f"{EMPTY}/bin/pip", "install", "--quiet", "."),
    (f"{EMPTY}/bin/irqmatrix", "doctor"),
)

_DEVICES: Final = ("null", "zero", "full", "random", "urandom", "tty", "kvm")
_OWN_ENVIRONMENT: Final = {
    "HOME": str(HOME),
    "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
    "LANG": "C.UTF-8",
    "DEBIAN_FRONTEND": "noninteractive",
}


class FreshError(Exception):
    """The machine could not be made, or HEAD does not work on it."""


@dataclass(frozen=True, slots=True)
class Cache:
    """What outlives a run, below ``folder``."""

    folder: Path
    suite: str

    @property
    def mount_point(self) -> Path:
        """An empty folder; in the namespaces, and only there, the new machine is mounted on it."""
        return self.folder / "root"

    @property
    def tarball(self) -> Path:
        """The bare root; with other packages it is another file."""
        digest = hashlib.sha256(" ".join(PACKAGES).encode()).hexdigest()[:8]
        return self.folder / f"{self.suite}-{digest}.tar.gz"

    @property
    def apt(self) -> Path:
        """What apt has downloaded of this suite."""
        return self.folder / f"apt-{self.suite}"

    @property
    def pip(self) -> Path:
        """What pip has downloaded."""
        return self.folder / "pip"

    @contextlib.contextmanager
    def held(self) -> Iterator[None]:
        """One run of a suite at a time, for apt's sake. The kernel drops the lock if we die."""
        self.folder.mkdir(parents=True, exist_ok=True)
        with (self.folder / f"{self.suite}.lock").open("w") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                print(f"fresh: waiting for another run of {self.suite}", flush=True)
                fcntl.flock(lock, fcntl.LOCK_EX)
            yield


def user_cache(suite: str, environment: Mapping[str, str] = os.environ) -> Cache:
    """In the user's cache folder (XDG Base Directory Specification)."""
    folder = environment.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Cache(Path(folder) / "irqmatrix-fresh", suite)


def build(cache: Cache, settings: Settings) -> None:
    """Make the machine below the cache's mount point, in a mount namespace of one's own."""
    root = cache.mount_point
    mount("-t", "tmpfs", "-o", "mode=755", "tmpfs", root)
    _unpack(cache, settings)
    for source, target in settings.copied:
        _copy(source, below(root, target))
    (root / "etc/apt/apt.conf.d/90machine").write_text(settings.apt_options)
    if settings.sources:
        (root / "etc/apt/sources.list").write_text(settings.sources)
    for folder in settings.bound:
        _bind(folder, below(root, folder), "ro")
    for folder, shown in ((cache.apt, "var/cache/apt/archives"), (cache.pip, "root/.cache/pip")):
        folder.mkdir(exist_ok=True)
        _bind(folder, root / shown)
    _mount_kernel_file_systems(root)
    clone = below(root, CLONE)
    _run("git", "clone", "--quiet", REPOSITORY, clone)
    _run("git", "-C", clone, "--no-pager", "log", "-1", "--format=fresh: HEAD is %h, %s")


def run(root: Path, settings: Settings, steps: Sequence[Sequence[str]]) -> None:
    """Run commands in the clone; :class:`FreshError` at the first that fails."""
    environment = {**settings.environment, **_OWN_ENVIRONMENT}
    for step in steps:
        print(f"fresh: {' '.join(step)}", flush=True)
        started_s = time.monotonic()
        chroot: tuple[str | Path, ...] = ("chroot", root, "env", "-C", CLONE, *step)
        status = subprocess.run(chroot, env=environment, stdin=subprocess.DEVNULL).returncode
        print(f"fresh: exit status {status}, {time.monotonic() - started_s:.0f} s", flush=True)
        if status != 0:
            raise FreshError(f"{' '.join(step)} fails on a fresh machine, exit status {status}")


def check_results(clone: Path) -> None:
    """Exit status 0 of a matrix that ran nothing is not enough: :class:`FreshError`."""
    results = [json.loads(path.read_text()) for path in clone.glob("runs/*/result.json")]
    verdicts = [case["verdict"] for result in results for case in result["cases"]]
    if "pass" not in verdicts or not set(verdicts) <= {"pass", "skip"}:
        raise FreshError(f"make run ends well, and its cases with {verdicts or 'no verdict'}")


def mount(*arguments: str | Path) -> None:
    """``mount(8)``; :class:`FreshError` where it fails."""
    _run("mount", *arguments)


def below(root: Path, path: Path) -> Path:
    """Where an absolute path of the new machine is on this one."""
    return root / path.relative_to("/")


def _unpack(cache: Cache, settings: Settings) -> None:
    """The bare root from its tarball, which is made first if there is none of late."""
    root, tarball = cache.mount_point, cache.tarball
    if tarball.exists() and time.time() - tarball.stat().st_mtime < ROOT_AGE_S:
        _run("tar", "-xzf", tarball, "-C", root)
        return
    _debootstrap(cache, settings)
    partial = tarball.with_suffix(".partial")
    kernels = (f"--exclude=./{folder}/*" for folder in ("dev", "proc", "sys"))
    _run("tar", "-I", "gzip -1", "-cf", partial, "--one-file-system", *kernels, "-C", root, ".")
    partial.rename(tarball)


def _debootstrap(cache: Cache, settings: Settings) -> None:
    """Make the bare root from the mirror and through the proxy that apt is configured with."""
    cache.apt.mkdir(exist_ok=True)
    mirror = re.search(rf"^deb (\S+) {cache.suite} main$", settings.sources, re.MULTILINE)
    proxies = re.findall(r'^Acquire::(https?)::Proxy "(\S+)";', settings.apt_options, re.MULTILINE)
    environment = {f"{scheme}_proxy": address for scheme, address in proxies}
    environment |= {**settings.environment, **_OWN_ENVIRONMENT}
    _run(
        *("debootstrap", "--variant=minbase", f"--include={','.join(PACKAGES)}"),
        *(f"--cache-dir={cache.apt}", cache.suite, cache.mount_point),
        *((mirror[1],) if mirror else ()),
        environment=environment,
    )
    # As on a machine that was installed a while ago: no packages, no index of the archive.
    for leftover in ("var/cache/apt/archives", "var/lib/apt/lists"):
        shutil.rmtree(cache.mount_point / leftover)
        (cache.mount_point / leftover / "partial").mkdir(parents=True)


def _mount_kernel_file_systems(root: Path) -> None:
    """New ones, with those devices alone that every machine has, and KVM where this one has it."""
    mount("-t", "proc", "proc", root / "proc")
    mount("-t", "sysfs", "-o", "ro", "sysfs", root / "sys")
    dev = root / "dev"
    mount("-t", "tmpfs", "-o", "mode=755", "tmpfs", dev)
    for folder in ("pts", "shm"):
        (dev / folder).mkdir()
    mount("-t", "devpts", "-o", "newinstance,ptmxmode=0666", "devpts", dev / "pts")
    mount("-t", "tmpfs", "-o", "mode=1777", "tmpfs", dev / "shm")
    for name in _DEVICES:
        if (source := Path("/dev") / name).exists():
            (dev / name).touch()
            mount("--bind", source, dev / name)
    (dev / "ptmx").symlink_to("pts/ptmx")
    (dev / "fd").symlink_to("/proc/self/fd")


def _bind(source: Path, target: Path, *options: str) -> None:
    target.mkdir(parents=True, exist_ok=True)
    mount("-o", ",".join(("bind", *options)), source, target)


def _copy(source: Path, target: Path) -> None:
    """A link stands for what it shows, since that is not there."""
    target.parent.mkdir(parents=True, exist_ok=True)
    if source.is_dir():
        shutil.copytree(source, target, ignore_dangling_symlinks=True, dirs_exist_ok=True)
    else:
        target.unlink(missing_ok=True)
        shutil.copy2(source, target)


def _run(*command: str | Path, environment: Mapping[str, str] | None = None) -> None:
    status = subprocess.run(command, env=environment, stdin=subprocess.DEVNULL).returncode
    if status != 0:
        raise FreshError(f"{command[0]} fails, exit status {status}: see above")
