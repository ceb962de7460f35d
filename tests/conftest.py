"""Hypothesis' examples are the same in every run, so that a red one is the change's doing.

``HYPOTHESIS_PROFILE=random`` looks for new ones, as the nightly run does.
"""

import os

from hypothesis import settings

settings.register_profile("repeatable", derandomize=True)
settings.register_profile("random", print_blob=True)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "repeatable"))
