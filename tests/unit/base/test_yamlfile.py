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
    with pytest.raises(ConfigError, match=r"some\.yaml:2: duplicate key 'a'"):
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


LAUGH = "a: &a [x, x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"{name}: &{name} [{', '.join([f'*{before}'] * 10)}]\n"
    for before, name in zip("abcdefgh", "bcdefghi", strict=True)
)


@pytest.mark.parametrize(
    ("text", "line", "why"),
    [
        (LAUGH, 6, "too large: more than 1000000 values"),
        ("x: 1\ny: &a [*a]", 2, "contains it"),
        ("x: &a {b: *a}", 1, "contains it"),
        ("x:\n? [a, b]\n: 1", 2, "a key has to be"),
        ("x: 1\ny: !!int abc", 2, "no int"),
        ("!!float abc", 1, "no float"),
        ("!!bool maybe", 1, "no bool"),
        ("!!timestamp x", 1, "no timestamp"),
        ("[1,\n2001-99-99]", 2, "no timestamp"),
        ("9" * 6000, 1, "no int"),
        ("0x" + "f" * 60, 1, "more than 128 bits"),
        ('append: "a\\0b"', 1, "NUL"),
        ("[" * 200 + "]" * 200, 1, "nested too deeply"),
        ("- " * 3000 + "x", None, "nested too deeply|exceeded"),
    ],
)
def test_yaml_that_no_file_means_is_refused_by_line(text, line, why):
    with pytest.raises(ConfigError, match=why) as refused:
        parse(text)
    assert line in (None, refused.value.line)


def test_yaml_file_larger_than_the_limit_is_refused(tmp_path, monkeypatch):
    monkeypatch.setenv("IRQMATRIX_LIMITS", "yaml_mib=1")
    path = tmp_path / "big.yaml"
    path.write_text("#" * (1 << 20) + "\n")
    with pytest.raises(ConfigError, match="IRQMATRIX_LIMITS=yaml_mib=N"):
        yamlfile.load(path)


def test_yaml_endless_device_is_read_no_further_than_the_limit():
    with pytest.raises(ConfigError, match="too large"):
        yamlfile.load(Path("/dev/zero"))
