"""What a finding is called: the same for the same root cause, as far as that is possible.

It is made of what differs and of what the minimal program touches, without numbers: two programs
that were made as short as they can be and touch the same registers, with the same kind of
difference, most likely show the same thing.
"""

from __future__ import annotations

import hashlib
import re

from harness.fuzz.oracles import Difference
from harness.fuzz.touched import words
from harness.scenario.shrink import Data


def of(difference: Difference, data: Data) -> str:
    """The signature of a difference that the minimal scenario ``data`` shows."""
    oracle, what, event, detail = difference.kind
    subject = " ".join(filter(None, (event, what, detail)))
    return f"{oracle}: {subject}: {', '.join(words(data))}"


def id_of(signature: str) -> str:
    """A short name for it, good as a file's."""
    oracle, _, rest = signature.partition(": ")
    subject = re.sub(r"[^a-z0-9]+", "-", rest.partition(": ")[0].lower()).strip("-")
    return f"{oracle}-{subject}-{hashlib.sha256(signature.encode()).hexdigest()[:6]}"
