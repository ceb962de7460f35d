"""Hypothesis' examples are the same in every run, so that a red one is the change's doing.

``HYPOTHESIS_PROFILE=random`` looks for new ones, as the nightly run does.
"""

import os

import pytest
from hypothesis import settings

settings.register_profile("repeatable", derandomize=True)
settings.register_profile("random", print_blob=True)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "repeatable"))


@pytest.fixture(scope="session", autouse=True)
def _store_of_the_tests(tmp_path_factory):
    """No test writes to the user's store; what it starts neither."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("IRQMATRIX_STORE", str(tmp_path_factory.mktemp("store") / "store.sqlite"))
        yield
