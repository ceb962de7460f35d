"""Addresses of clusters, and a library that keeps quiet."""

import logging

import pytest

from harness.base.errors import ConfigError
from harness.cluster import dask


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("dask://host:8786", "tcp://host:8786"),
        ("dask+tls://10.0.0.1:1", "tls://10.0.0.1:1"),
        ("dask://[::1]:8786", "tcp://[::1]:8786"),
    ],
)
def test_executor_is_an_address_of_dask(text, address):
    assert dask.scheduler_address(text) == address


@pytest.mark.parametrize(
    "text", ["", "dask://", "dask://host", "tcp://host:1", "dask://a:1/x", "dask://u@h:1"]
)
def test_executor_of_another_form_is_a_message(text):
    with pytest.raises(ConfigError, match=r"expected dask://HOST:PORT"):
        dask.scheduler_address(text)


def test_library_logs_to_the_file_only_and_as_before_afterwards(tmp_path, capfd):
    logger = logging.getLogger("distributed")
    with dask.quiet(tmp_path / "log"):
        before = logger.handlers
        logging.getLogger("distributed.worker").warning("something")
    assert "something" in (tmp_path / "log").read_text()
    assert logger.handlers is not before
    with dask.quiet():
        logging.getLogger("distributed.worker").warning("something else")
    assert capfd.readouterr() == ("", "")
