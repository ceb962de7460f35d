"""How this machine reaches its archives, as far as a new machine beside it has to know."""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

HOME: Final = Path("/root")
"""The user's folder on the new machine."""

_COPIED: Final = (
    *("/etc/resolv.conf", "/etc/hosts"),
    *("/etc/ssl/certs/ca-certificates.crt", "/usr/local/share/ca-certificates"),
    *("/etc/pip.conf", "/etc/xdg/pip", "/etc/apt/auth.conf", "/etc/apt/auth.conf.d"),
)
_COPIED_FROM_HOME: Final = (".config/pip", ".pip")
_VARIABLES: Final = re.compile(
    r"PIP_(?!CACHE_DIR|CONFIG_FILE)\w+|SSL_CERT_(FILE|DIR)|(REQUESTS|CURL)_CA_BUNDLE"
    r"|GIT_SSL_CAINFO|(https?|ftp|all|no)_proxy",
    re.IGNORECASE,
)
_LOCAL_PATH: Final = re.compile(
    r"(?:^|(?<=[\s=,'\"])|(?<=file:)|(?<=file://))/(?!/)[^\s,;'\"]+", re.MULTILINE
)
_INDEX_TARGET: Final = "$(RELEASE)|$(COMPONENT)|$(REPO_URI)"


@dataclass(frozen=True, slots=True)
class Settings:
    """What the new machine takes over: how to reach the archives, and nothing else."""

    environment: Mapping[str, str]
    copied: tuple[tuple[Path, Path], ...]
    """Files and folders: from where, and to which path of the new machine."""
    bound: tuple[Path, ...]
    """Folders that pip or apt fetch from; they are shown read-only, at the same path."""
    apt_options: str
    """In the language of ``apt.conf(5)``."""
    sources: str
    """In that of ``sources.list(5)``; empty for what debootstrap chooses."""


def local_settings(suite: str, environment: Mapping[str, str], home: Path) -> Settings:
    """Read them from this machine's files, its apt, and the environment."""
    taken = {name: value for name, value in environment.items() if _VARIABLES.fullmatch(name)}
    copied = [(path, path) for name in _COPIED if (path := Path(name)).exists()]
    copied += [(home / name, HOME / name) for name in _COPIED_FROM_HOME if (home / name).exists()]
    if named := environment.get("PIP_CONFIG_FILE"):
        copied.append((Path(named), HOME / "pip.conf"))
        taken["PIP_CONFIG_FILE"] = str(HOME / "pip.conf")
    apt_options, sources = _of_apt(suite)
    texts = (*taken.values(), sources, *_pip_configurations(source for source, _ in copied))
    named_paths = [path for path in local_paths(texts) if not _is_below(path, copied)]
    files = filter(Path.is_file, (*named_paths, *local_paths([apt_options])))
    folders = (_shown(path) for path in named_paths if _is_download_folder(path))
    return Settings(
        environment=taken,
        copied=(*copied, *((path, path) for path in dict.fromkeys(files))),
        bound=tuple(dict.fromkeys(folders)),
        apt_options=apt_options,
        sources=sources,
    )


def source_lines(suite: str, index_targets: str, codename: str | None) -> str:
    """The machine's own mirrors (``release|component|address`` a line), for ``suite``.

    Empty where the suite's own release is not among them, as on another distribution.
    """
    rows = [line.split("|") for line in index_targets.splitlines()]
    releases = {
        release.replace(codename, suite, 1): address
        for release, component, address in rows
        if component == "main"
        and codename is not None
        and release in (codename, f"{codename}-updates", f"{codename}-security")
    }
    if suite not in releases:
        return ""
    return "".join(f"deb {address} {release} main\n" for release, address in releases.items())


def local_paths(texts: Iterable[str]) -> tuple[Path, ...]:
    """The absolute paths and ``file:`` addresses in settings that are there on this machine."""
    found = (Path(name) for text in texts for name in _LOCAL_PATH.findall(text))
    return tuple(dict.fromkeys(path for path in found if path.exists()))


def running_codename(os_release: Path = Path("/etc/os-release")) -> str | None:
    """Of the Debian that this machine runs; None on anything else."""
    if not os_release.exists():
        return None
    lines = os_release.read_text().replace('"', "").splitlines()
    values = dict(line.split("=", 1) for line in lines if "=" in line)
    return values.get("VERSION_CODENAME") if values.get("ID") == "debian" else None


def _of_apt(suite: str) -> tuple[str, str]:
    """Its options for downloads and its sources; nothing where there is no apt."""
    if shutil.which("apt-get") is None:
        return "", ""
    targets = _said_by("apt-get", "indextargets", "--format", _INDEX_TARGET, "Created-By: Packages")
    options = _said_by("apt-config", "dump", "Acquire")
    return options, source_lines(suite, targets, running_codename())


def _said_by(*command: str) -> str:
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


def _pip_configurations(paths: Iterable[Path]) -> Iterator[str]:
    for path in paths:
        for file in (path, *path.rglob("pip.conf")):
            if file.name == "pip.conf" and file.is_file():
                yield file.read_text()


def _is_below(path: Path, copied: Iterable[tuple[Path, Path]]) -> bool:
    return any(path.is_relative_to(source) for source, _ in copied)


def _is_download_folder(path: Path) -> bool:
    """Folders of settings, as that of the certificates, are the new machine's own."""
    return path.is_dir() and path != Path("/") and not path.is_relative_to("/etc")


def _shown(path: Path) -> Path:
    """The pages of a local package index (PEP 503) link to files beside its ``simple`` folder."""
    return path.parent if path.name == "simple" else path
