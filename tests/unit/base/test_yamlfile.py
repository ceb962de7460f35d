from pathlib import Path

import pytest
from pydantic import BaseModel, ConfigDict

from harness.base import yamlfile
from harness.base.errors import ConfigError


class Inner(BaseModel):
    model_config = ConfigDict(extra="forbid")
    size: int = 0


class Outer(BaseModel):
    model_config = ConfigDict(extra="forbid")
    inner: Inner = Inner()
    names: list[Inner] = []


def parse(text: str) -> yamlfile.YamlFile:
    return yamlfile.parse(text, Path("some.yaml"))


@pytest.mark.parametrize("word", ["on", "off", "yes", "no", "On", "OFF"])
def test_yaml_bare_boolean_word_of_1_1_stays_a_word(word):
    assert parse(f"mode: {word}").data == {"mode": word}


def test_yaml_true_and_false_are_booleans():
    assert parse("[true, false]").data == [True, False]


def test_yaml_node_lines_are_those_of_the_file():
    file = parse("a: 1\nb:\n  - x\n  - {c: 2}\n")
    assert file.line(("a",)) == 1
    assert file.line(("b", 1, "c")) == 4


def test_yaml_line_of_a_missing_node_is_its_parents():
    assert parse("a: 1\nb:\n  c: 2\n").line(("b", "d")) == 2


def test_yaml_unknown_key_names_file_line_and_the_near_one():
    with pytest.raises(ConfigError) as caught:
        parse("inner:\n  siez: 3\n").validate(Outer)
    assert str(caught.value) == "some.yaml:2: unknown key 'siez' (did you mean 'size'?)"


def test_yaml_unknown_key_in_a_list_names_the_known_ones():
    with pytest.raises(ConfigError, match=r"some.yaml:3: unknown key 'qqq' \(known: size\)"):
        parse("names:\n  - size: 1\n  - qqq: 2\n").validate(Outer)


def test_yaml_bad_value_says_what_was_found():
    with pytest.raises(ConfigError, match=r"some.yaml:2: bad value for inner.size: .*'big'"):
        parse("inner:\n  size: big\n").validate(Outer)


def test_yaml_key_twice_is_an_error_with_its_line():
    with pytest.raises(ConfigError, match=r"some\.yaml:2: key 'a' is there twice"):
        parse("a: 1\na: 2\n")


def test_yaml_broken_syntax_is_an_error_with_its_line():
    with pytest.raises(ConfigError, match=r"some.yaml:2: is not YAML"):
        parse("a: 1\n b: [\n")


def test_yaml_missing_file_is_an_error_that_names_it(tmp_path):
    with pytest.raises(ConfigError, match=r"absent.yaml: cannot be read: No such file"):
        yamlfile.load(tmp_path / "absent.yaml")


def test_yaml_binary_file_is_an_error(tmp_path):
    path = tmp_path / "binary.yaml"
    path.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ConfigError, match="is not a text file"):
        yamlfile.load(path)
