"""The scenario language as a JSON Schema, for editors: names, words and ranges while one types.

``python -m harness.scenario.schema`` writes ``configs/scenarios/schema.json`` again.  What depends
on more than one place (CPUs that are there, local APIC modes, handlers without an EOI) is checked
by ``compile`` alone.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final, TypeAlias

from pydantic import BaseModel

from harness.base import resources
from harness.scenario.registers import REGISTERS, Access, Field, Register, Space
from harness.scenario.vocabulary import (
    CPU_SCHEMA,
    VERBS,
    WORDS,
    ExpectModel,
    FirstModel,
    HandlerModel,
    ScenarioModel,
)

Schema: TypeAlias = dict[str, Any]

_NUMBER: Final = "(0x[0-9a-fA-F]+|[0-9]+)"
_ACTION: Final[Schema] = {"$ref": "#/$defs/action"}
_ACTIONS: Final[Schema] = {"type": "array", "items": _ACTION}


def schema() -> Schema:
    """The whole schema."""
    scenario = _model(ScenarioModel)
    scenario["properties"] |= {
        "steps": {"type": "array", "minItems": 1, "items": _ACTION},
        "handlers": {
            "type": "object",
            "patternProperties": {f"^({_NUMBER}|default|nmi)$": {"$ref": "#/$defs/handler"}},
            "additionalProperties": False,
        },
        "expect": {"type": "array", "items": _model(ExpectModel)},
    }
    handler = _model(HandlerModel)
    first = _model(FirstModel)
    first["properties"]["do"] = _ACTIONS
    handler["properties"] |= {"do": _ACTIONS, "first": first}
    return {
        "$schema": "http://json-schema.org/draft-07/schema#",
        "title": "irqmatrix scenarios",
        "description": "See docs/scenarios.md.",
        "type": "object",
        "required": ["version", "scenarios"],
        "additionalProperties": False,
        "properties": {
            "version": {"const": 1},
            "scenarios": {
                "type": "object",
                "minProperties": 1,
                "patternProperties": {"^[a-z0-9]+(-[a-z0-9]+)*$": scenario},
                "additionalProperties": False,
            },
        },
        "$defs": {
            "handler": {"anyOf": [handler, {"type": "null"}]},
            "action": _action(),
        },
    }


def text() -> str:
    """The schema as the file has it."""
    return json.dumps(schema(), indent=1) + "\n"


def path() -> Path:
    """Where the file is."""
    return resources.configs() / "scenarios" / "schema.json"


def _model(model: type[BaseModel]) -> Schema:
    """A pydantic model's schema, without definitions beside it and without generated titles."""
    made = model.model_json_schema()
    definitions = made.pop("$defs", {})
    return _tidy(made, definitions)  # type: ignore[no-any-return]


def _tidy(node: Any, definitions: Mapping[str, Any], *, names: bool = False) -> Any:
    """``names``: the keys are the user's, and not the schema's."""
    if isinstance(node, list):
        return [_tidy(item, definitions) for item in node]
    if not isinstance(node, dict):
        return node
    if "$ref" in node and not names:
        return _tidy(definitions[node["$ref"].rsplit("/", 1)[1]], definitions)
    return {
        key: _tidy(value, definitions, names=key == "properties")
        for key, value in node.items()
        if names or key not in ("title", "default")
    }


def _action() -> Schema:
    """A word, or a mapping with one verb or register beside ``cpu`` and ``label``."""
    verbs: Schema = {name: _model(model) for name, model in VERBS.items()}
    verbs["await"] = {"anyOf": [CPU_SCHEMA, verbs["await"]]}
    size = {"type": "object", "properties": {"size": {"enum": [1, 2, 4, 8]}}}
    readable: Schema = {
        "anyOf": [
            {"type": "string"},
            {"type": "object", "maxProperties": 1, "additionalProperties": size},
        ]
    }
    reads: Schema = {"anyOf": [readable, {"type": "array", "minItems": 1, "items": readable}]}
    groups: Schema = {
        "do": {**_ACTIONS, "description": "several actions, one step"},
        "repeat": {
            "type": "object",
            "required": ["times", "do"],
            "properties": {
                "times": {"type": "integer", "minimum": 1, "maximum": 1000},
                "do": _ACTIONS,
            },
            "additionalProperties": False,
        },
        "parallel": {
            "type": "object",
            "minProperties": 2,
            "patternProperties": {"^cpu[0-7]$": _ACTIONS},
            "additionalProperties": False,
            "description": "CPUs that start together",
        },
        "read": reads,
        "discard": {**reads, "description": "reads, and logs nothing"},
    }
    written = [register for register in REGISTERS.values() if register.access is not Access.RO]
    plain = {r.name: _register(r) for r in written if r.count is None}
    halves = [r for r in written if r.space is Space.IOAPIC and r.bits == 64]
    indexed = {_pattern(r): _register(r) for r in written if r.count is not None}
    indexed |= {_pattern(r, "(low|high)"): _register(r) for r in halves}
    words = {word: {"type": "null"} for word in WORDS}
    return {
        "anyOf": [
            {"enum": list(WORDS)},
            {
                "type": "object",
                "minProperties": 1,
                "maxProperties": 3,
                "properties": {
                    "cpu": CPU_SCHEMA,
                    "label": {"type": "string", "description": "a step's name, for expect"},
                    **(verbs | groups | words | plain),
                },
                "patternProperties": indexed,
                "additionalProperties": False,
            },
        ]
    }


def _pattern(register: Register, half: str | None = None) -> str:
    name = register.name.replace(".", r"\.")
    index = rf"(\.{_NUMBER}|\[{_NUMBER}\])"
    return f"^{name}{index}" + ("$" if half is None else rf"\.{half}$")


def _register(register: Register) -> Schema:
    number: Schema = {"type": "integer", "minimum": 0, "maximum": (1 << register.bits) - 1}
    forms: list[Schema] = [number]
    if register.fields:
        forms.append(
            {
                "type": "object",
                "properties": {field.name: _field(field) for field in register.fields},
                "additionalProperties": False,
            }
        )
    if register.raw:
        sized: Schema = {"value": {"type": "integer"}, "size": {"enum": [1, 2, 4, 8]}}
        forms.append({"type": "object", "required": list(sized), "properties": sized})
    return {"description": register.about, "anyOf": forms}


def _field(field: Field) -> Schema:
    number: Schema = {"type": "integer", "minimum": 0, "maximum": field.max}
    if field.words is not None:
        return {"anyOf": [{"enum": list(field.words)}, number]}
    if field.cpus:
        name = {"type": "string", "pattern": "^(all|cpu[0-7])$"}
        return {"anyOf": [name, {"type": "array", "items": name}, number]}
    if field.max == 1:
        return {"anyOf": [{"type": "boolean"}, number]}
    return number


if __name__ == "__main__":
    path().write_text(text(), encoding="utf-8")
