"""YAML files that know their lines, and their validation with messages that name them.

Bare ``on``, ``off``, ``yes`` and ``no`` are booleans in YAML 1.1.  Here they stay the words that
were written, as in YAML 1.2; only ``true`` and ``false`` are booleans.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TypeAlias, TypeVar, get_args

import yaml
from pydantic import BaseModel, ConfigDict, ValidationError

from harness.base import files, limits, suggest
from harness.base.errors import ConfigError
from harness.base.text import shortened

MAX_SHOWN: Final = 200
"""Characters of a wrong value in a message."""
MAX_INT_BITS: Final = 128
"""Of a number in a file: twice the widest register."""

Location: TypeAlias = tuple[str | int, ...]
ModelT = TypeVar("ModelT", bound=BaseModel)


if TYPE_CHECKING or not hasattr(yaml, "CSafeLoader"):
    _BaseLoader = yaml.SafeLoader
else:
    _BaseLoader = yaml.CSafeLoader  # ten times as fast, and the same otherwise


class _Loader(_BaseLoader):
    """A safe loader with YAML 1.2's booleans, whose every refusal names a line."""

    def construct_object(self, node: yaml.Node, deep: bool = False) -> Any:
        """The value of ``node``; what Python cannot make of a tagged value is a mistake of it."""
        try:
            value = super().construct_object(node, deep)
        except yaml.YAMLError:
            raise
        except Exception as error:  # "!!int x", "!!bool x", 2001-99-99: ValueError, KeyError ...
            kind = node.tag.rpartition(":")[2]
            why = f"no {kind} can be read here: {error}"
            raise yaml.constructor.ConstructorError(None, None, why, node.start_mark) from None
        if isinstance(value, int) and value.bit_length() > MAX_INT_BITS:
            why = f"a number of more than {MAX_INT_BITS} bits"
            raise yaml.constructor.ConstructorError(None, None, why, node.start_mark)
        return value


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
            why += f"; found {shortened(repr(found), MAX_SHOWN)}"
        return self.error(location, f"{prefix}bad value for {where}", why)


def _known_keys(model: type[BaseModel], location: tuple[str | int, ...]) -> list[str]:
    """The keys that ``model`` has at ``location``, following nested models as far as types tell."""
    candidates: list[type[BaseModel]] = [model]
    for part in location:
        if not isinstance(part, str):
            continue
        tagged = [each for each in candidates if _is_tagged(each, part)]
        if tagged and len(candidates) > 1:  # a union's member by its tag
            candidates = tagged
        elif part in candidates[0].model_fields:
            annotation = candidates[0].model_fields[part].annotation
            candidates = _models_in(annotation) or candidates
    return sorted(field.alias or name for name, field in candidates[0].model_fields.items())


def _is_tagged(model: type[BaseModel], tag: str) -> bool:
    """Whether a field of ``model`` can only be ``tag``, as a union's discriminator is."""
    return any(get_args(field.annotation) == (tag,) for field in model.model_fields.values())


def _models_in(annotation: Any) -> list[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [model for part in getattr(annotation, "__args__", ()) for model in _models_in(part)]


def load(path: Path) -> YamlFile:
    """Read and parse ``path``; :class:`ConfigError` where it is not there or is not YAML."""
    most = limits.current().yaml_mib * limits.MIB
    try:
        text = files.read_text(path, most, "yaml_mib")
    except OSError as error:
        raise ConfigError("cannot be read", error.strerror, path=path) from None
    except UnicodeDecodeError:
        raise ConfigError("is not a text file", "expected YAML in UTF-8", path=path) from None
    except ValueError as error:
        raise ConfigError("is too large", str(error), path=path) from None
    return parse(text, path)


def parse(text: str, path: Path) -> YamlFile:
    """Parse ``text`` as the content of ``path``; :class:`ConfigError` for what is not usable."""
    try:
        loader = _Loader(text)
        try:
            node = loader.get_single_node()
            lines: dict[Location, int] = {}
            if node is not None:
                _Expansion(path).size(node)
                _collect_lines(node, (), lines, path)
            data = None if node is None else loader.construct_document(node)
        finally:
            loader.dispose()
    except yaml.MarkedYAMLError as error:
        line = None if error.problem_mark is None else error.problem_mark.line + 1
        raise ConfigError("is not YAML", error.problem, path=path, line=line) from None
    except (yaml.YAMLError, UnicodeError) as error:
        raise ConfigError("is not YAML", str(error), path=path) from None
    except RecursionError:
        raise ConfigError("is not YAML", "it is nested too deeply", path=path) from None
    return YamlFile(path, data, lines)


class _Expansion:
    """What a parsed file stands for: how many values, with aliases as often as they are used."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._limits = limits.current()
        self._sizes: dict[int, int | None] = {}
        """By node; None for one that is being counted."""

    def size(self, node: yaml.Node, depth: int = 1) -> int:
        """The values in ``node``; :class:`ConfigError` where they are too many, or have no end."""
        known = self._sizes.get(id(node), 0)
        if known is None:
            raise self._error(node, "an alias stands for something that contains it")
        if known:
            return known
        if depth > self._limits.yaml_depth:
            most = f"more than {self._limits.yaml_depth} levels"
            raise self._error(node, "is nested too deeply", most, limits.hint("yaml_depth"))
        self._sizes[id(node)] = None
        size = 1 + sum(self.size(child, depth + 1) for child in self._children(node))
        if size > self._limits.yaml_nodes:
            most = f"more than {self._limits.yaml_nodes} values, with what its aliases stand for"
            raise self._error(node, "is too large", most, limits.hint("yaml_nodes"))
        self._sizes[id(node)] = size
        return size

    def _children(self, node: yaml.Node) -> Iterator[yaml.Node]:
        if isinstance(node, yaml.MappingNode):
            for key, value in node.value:
                if not isinstance(key, yaml.ScalarNode):
                    raise self._error(key, "a key has to be a single word, number or text")
                yield from (key, value)
        elif isinstance(node, yaml.SequenceNode):
            yield from node.value
        elif _UNUSABLE.search(node.value) is not None:
            raise self._error(node, "a NUL or half a surrogate pair cannot be in a text")

    def _error(
        self, node: yaml.Node, what: str, why: str | None = None, fix: str | None = None
    ) -> ConfigError:
        return ConfigError(what, why, fix, path=self._path, line=node.start_mark.line + 1)


_UNUSABLE: Final = re.compile("[\0\ud800-\udfff]")
"""What no path, argument or file can hold."""


def _collect_lines(
    node: yaml.Node, location: Location, lines: dict[Location, int], path: Path
) -> None:
    lines[location] = node.start_mark.line + 1
    if isinstance(node, yaml.SequenceNode):
        for index, child in enumerate(node.value):
            _collect_lines(child, (*location, index), lines, path)
    elif isinstance(node, yaml.MappingNode):
        seen: set[str] = set()
        for key_node, child in node.value:
            key = key_node.value
            if key in seen:
                line = key_node.start_mark.line + 1
                raise ConfigError(f"duplicate key {key!r}", path=path, line=line)
            seen.add(key)
            _collect_lines(child, (*location, key), lines, path)
            lines[(*location, key)] = key_node.start_mark.line + 1
