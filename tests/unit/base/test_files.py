import json

import pytest

from harness.base import files


@pytest.mark.parametrize(
    "text",
    ["", "[", "[" * 100_000, "9" * 6000, '{"a": ' * 100_000, '"\\u00"', "\ufeff{}"],
    ids=["empty", "cut", "deep", "digits", "deep object", "escape", "bom"],
)
def test_json_that_is_none_is_a_value_error(text):
    with pytest.raises(ValueError, match=r"."):
        files.parse_json(text)


def test_json_file_that_is_no_text_is_a_value_error(tmp_path):
    (tmp_path / "x.json").write_bytes(b"\xff\xfe{")
    with pytest.raises(ValueError, match="utf-8"):
        files.read_json(tmp_path / "x.json")


def test_json_file_larger_than_the_limit_is_a_value_error(tmp_path, monkeypatch):
    monkeypatch.setenv("IRQMATRIX_LIMITS", "json_mib=1")
    (tmp_path / "x.json").write_text(json.dumps("x" * (1 << 20)))
    with pytest.raises(ValueError, match="IRQMATRIX_LIMITS=json_mib=N"):
        files.read_json(tmp_path / "x.json")


def test_shorten_long_file_keeps_both_ends_and_says_what_is_gone(tmp_path):
    path = tmp_path / "log"
    path.write_bytes(b"begin" + b"x" * 1000 + b"end")
    files.shorten(path, 100)
    assert path.read_bytes() == (
        b"begin" + b"x" * 45 + b"\n[irqmatrix: 908 bytes cut]\n" + b"x" * 47 + b"end"
    )
    files.shorten(path, 1000)
    assert path.stat().st_size == 128
