"""The JSON Schema that editors use."""

import re

from harness.scenario import schema
from harness.scenario.registers import REGISTERS, Access


def test_schema_file_is_what_the_language_is_now():
    assert schema.path().read_text(encoding="utf-8") == schema.text(), (
        "run python -m harness.scenario.schema"
    )


def test_schema_has_every_register_that_can_be_written():
    _, mapping = schema.schema()["$defs"]["action"]["anyOf"]
    patterns = [re.compile(pattern) for pattern in mapping["patternProperties"]]
    missing = {
        register.name
        for register in REGISTERS.values()
        if register.access is not Access.RO
        and register.name not in mapping["properties"]
        and not any(pattern.match(f"{register.name}.0x1") for pattern in patterns)
    }
    assert missing == set()
