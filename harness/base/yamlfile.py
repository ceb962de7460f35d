"""YAML files that know their lines, and their validation with messages that name them.

Bare ``on``, ``off``, ``yes`` and ``no`` are booleans in YAML 1.1.  Here they stay the words that
were written, as in YAML 1.2; only ``true`` and ``false`` are booleans.
"""

from __future__ import annotations

import re
from collections.abc import Hashable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias, TypeVar

import yaml
from pydantic import BaseModel, ConfigDict, ValidationError

from harness.base import suggest
from harness.base.errors import ConfigError

Location: TypeAlias = tuple[str | int, ...]
ModelT = TypeVar("ModelT", bound=BaseModel)


if TYPE_CHECKING or not hasattr(yaml, "CSafeLoader"):
    _BaseLoader = yaml.SafeLoader
else:
    _BaseLoader = yaml.CSafeLoader  # ten times as fast, and the same otherwise


class _Loader(_BaseLoader):
    """A safe loader with YAML 1.2's booleans."""


_Loader.yaml_implicit_resolvers = {
    first: [(tag, regex) for tag, regex in resolvers if tag != "tag:yaml.org,2002:bool"]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:bool", re.compile("^(?:true|True|TRUE|false|False|FALSE)$"), list("tTfF")
)


class WrittenFloat(float):
    """A number with a point, and how it was written: 6.10 is a version, and not 6.1."""

    written: str


def _construct_float(loader: _Loader, node: yaml.ScalarNode) -> WrittenFloat:
    number = WrittenFloat(loader.construct_yaml_float(node))
    number.written = node.value
    return number


_Loader.add_constructor("tag:yaml.org,2002:float", _construct_float)


class Strict(BaseModel):
    """What every model of a file is: unknown keys are errors, and nothing changes afterwards."""

    model_config = ConfigDict(extra="forbid", frozen=True, arbitrary_types_allowed=True)


def as_list(value: object) -> object:
    """A single value may stand without its list."""
    return value if isinstance(value, list) else [value]


def on_or_off(value: object) -> object:
    """``true`` and ``false`` are what YAML 1.1 tools make of a bare ``on`` and ``off``."""
    return {True: "on", False: "off"}[value] if isinstance(value, bool) else value


@dataclass(frozen=True)
class YamlFile:
    """A parsed file: its data, and the line (from 1) of every node by its location."""

    path: Path
    data: object
    lines: Mapping[Location, int]

    def line(self, location: Location) -> int | None:
        """The line of ``location``, or of the nearest node above it."""
        for end in range(len(location), -1, -1):
            if (line := self.lines.get(location[:end])) is not None:
                return line
        return None

    def error(
        self, location: Location, what: str, why: str | None = None, fix: str | None = None
    ) -> ConfigError:
        """A :class:`ConfigError` that points at ``location``."""
        return ConfigError(what, why, fix, path=self.path, line=self.line(location))

    def validate(self, model: type[ModelT]) -> ModelT:
        """The file's content as ``model``; :class:`ConfigError` for the first wrong thing."""
        return self.validate_part((), model, self.data)

    def validate_part(
        self, location: Location, model: type[ModelT], data: object, *, what: str | None = None
    ) -> ModelT:
        """``data``, which stands at ``location``, as ``model``; ``what`` to call it in messages."""
        try:
            return model.model_validate(data)
        except ValidationError as error:
            raise self._config_error(location, model, error, what) from None

    def _config_error(
        self, base: Location, model: type[BaseModel], error: ValidationError, what: str | None
    ) -> ConfigError:
        first = error.errors(include_url=False)[0]
        location = base + tuple(first["loc"])
        prefix = "" if what is None else f"{what}: "
        named = location if what is None else first["loc"]
        where = ".".join(str(part) for part in named) or ("the file" if what is None else "it")
        if first["type"] == "extra_forbidden":
            key = str(location[-1])
            known = _known_keys(model, first["loc"][:-1])
            fix = suggest.nearest(key, known)
            return self.error(location, f"{prefix}unknown key {key!r}", None, fix)
        found = first.get("input")
        why = str(first["msg"]).removeprefix("Value error, ")
        if first["type"] != "missing":
            why += f"; found {found!r}"
        return self.error(location, f"{prefix}bad value for {where}", why)


def _known_keys(model: type[BaseModel], location: tuple[str | int, ...]) -> list[str]:
    """The keys that ``model`` has at ``location``, following nested models as far as types tell."""
    current: type[BaseModel] = model
    for part in location:
        if not isinstance(part, str) or part not in current.model_fields:
            continue
        for candidate in _models_in(current.model_fields[part].annotation):
            current = candidate
            break
    return sorted(field.alias or name for name, field in current.model_fields.items())


def _models_in(annotation: Any) -> list[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [model for part in getattr(annotation, "__args__", ()) for model in _models_in(part)]


def load(path: Path) -> YamlFile:
    """Read and parse ``path``; :class:`ConfigError` where it is not there or is not YAML."""
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise ConfigError("cannot be read", error.strerror, path=path) from None
    except UnicodeDecodeError:
        raise ConfigError("is not a text file", "expected YAML in UTF-8", path=path) from None
    return parse(text, path)


def parse(text: str, path: Path) -> YamlFile:
    """Parse ``text`` as the content of ``path``."""
    loader = _Loader(text)
    try:
        node = loader.get_single_node()
        lines: dict[Location, int] = {}
        if node is not None:
            _collect_lines(node, (), lines, path)
        data = None if node is None else loader.construct_document(node)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark
        raise ConfigError(
            "is not YAML",
            error.problem,
            path=path,
            line=None if mark is None else mark.line + 1,
        ) from None
    except yaml.YAMLError as error:
        raise ConfigError("is not YAML", str(error), path=path) from None
    finally:
        loader.dispose()
    return YamlFile(path, data, lines)


def _collect_lines(
    node: yaml.Node, location: Location, lines: dict[Location, int], path: Path
) -> None:
    lines[location] = node.start_mark.line + 1
    if isinstance(node, yaml.SequenceNode):
        for index, child in enumerate(node.value):
            _collect_lines(child, (*location, index), lines, path)
    elif isinstance(node, yaml.MappingNode):
        seen: set[Hashable] = set()
        for key_node, child in node.value:
            key = key_node.value
            if key in seen:
                line = key_node.start_mark.line + 1
                raise ConfigError(f"key {key!r} is there twice", path=path, line=line)
            seen.add(key)
            _collect_lines(child, (*location, key), lines, path)
            lines[(*location, key)] = key_node.start_mark.line + 1
