"""Where the probe's ELF file comes from."""

from __future__ import annotations

import shutil

import pytest

from harness.base import resources
from harness.base.errors import ImageError
from harness.images import cache as cache_module
from harness.images.cache import ImageCache
from harness.images.probe import PREBUILT, build_probe, sources

FOLDER = resources.images() / "probe"


@pytest.fixture
def copied(tmp_path, monkeypatch):
    """The sources, to be changed."""
    shutil.copytree(FOLDER, tmp_path / "images" / "probe")
    monkeypatch.setattr(cache_module.resources, "images", lambda: tmp_path / "images")
    return tmp_path / "images" / "probe"


def test_probe_that_came_built_is_used_without_a_compiler(tmp_path, copied, monkeypatch):
    monkeypatch.setattr(cache_module, "compiler", lambda: None)
    (copied / PREBUILT).write_bytes(b"built")

    assert ImageCache(tmp_path / "cache").probe() == copied / PREBUILT


def test_probe_without_a_compiler_says_what_to_do(tmp_path, copied, monkeypatch):
    monkeypatch.setattr(cache_module, "compiler", lambda: None)

    with pytest.raises(ImageError, match="there is no C compiler"):
        ImageCache(tmp_path / "cache").probe()


def test_probe_with_a_changed_source_is_built_again(tmp_path, copied):
    cache = ImageCache(tmp_path / "cache")
    first = cache.probe()
    with (copied / "console.c").open("a") as file:
        file.write("/* changed */\n")

    assert cache.probe() != first


def test_build_probe_with_a_warning_fails_with_the_compilers_words(tmp_path, copied):
    with (copied / "console.c").open("a") as file:
        file.write("static int unused;\n")

    with pytest.raises(ImageError, match="unused"):
        build_probe("cc", copied, tmp_path / "probe.elf")


def test_sources_hold_the_linker_script_and_no_python():
    names = {path.name for path in sources(FOLDER)}

    assert {"boot.S", "main.c", "cpu.h", "probe.lds"} <= names
    assert not [name for name in names if name.endswith(".py")]
