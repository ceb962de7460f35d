"""Where the store is: option, environment, configuration, or the user's data directory."""

from __future__ import annotations

from pathlib import Path

import pytest

from harness.base.errors import ConfigError
from harness.cli import store_request
from harness.config import config
from harness.store.database import chosen_path
from support.live import write_config


@pytest.fixture
def no_variable(monkeypatch):
    monkeypatch.delenv("IRQMATRIX_STORE")
    monkeypatch.setenv("XDG_DATA_HOME", "/data")


@pytest.mark.parametrize(
    ("option", "variable", "configured", "path"),
    [
        ("/o", "/v", "/c", "/o"),
        (None, "/v", "/c", "/v"),
        (None, None, "/c", "/c"),
        (None, None, None, "/data/irqmatrix/store.sqlite"),
        ("none", "/v", "/c", None),
        (None, "none", "/c", None),
        (None, None, "none", None),
    ],
)
def test_store_is_the_first_that_is_named(
    no_variable, monkeypatch, option, variable, configured, path
):
    if variable is not None:
        monkeypatch.setenv("IRQMATRIX_STORE", variable)
    given = [None if each is None else Path(each) for each in (option, configured)]

    assert chosen_path(*given) == (None if path is None else Path(path))


def test_store_of_a_configuration_is_found_from_its_directory(tmp_path):
    path = write_config(tmp_path, [{"kind": "linux", "workloads": ["idle"]}], store="x/s.sqlite")

    assert config.load(path).store == tmp_path / "x/s.sqlite"


def test_baseline_without_a_store_is_a_mistake(no_variable):
    with pytest.raises(ConfigError, match="--baseline needs a store"):
        store_request(Path("none"), None, "")
