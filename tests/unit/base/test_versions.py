"""Versions and their ranges."""

import pytest

from harness.base.versions import VersionRange, parse_version


@pytest.mark.parametrize(
    ("text", "version"),
    [
        ("7.2.22 (Debian 1:7.2+dfsg-7+deb12u18+b3)", (7, 2, 22)),
        ("6.1.0-56-cloud-amd64", (6, 1, 0)),
        ("v6.12", (6, 12)),
        ("10", (10,)),
    ],
)
def test_version_is_its_first_numbers(text, version):
    assert parse_version(text) == version


def test_version_without_numbers_is_refused():
    with pytest.raises(ValueError, match="no version"):
        parse_version("system")


@pytest.mark.parametrize(
    ("text", "version", "inside"),
    [
        (">=9.1", (9, 1), True),
        (">=9.1", (10, 0, 13), True),
        (">=9.1", (9, 0, 4), False),
        (">=9.1, <10", (10, 0), False),
        (">=9.1, <10", (9, 2, 1), True),
        ("6.1", (6, 1, 192), True),
        ("6.1", (6, 12, 95), False),
        ("==6.1", (6, 1, 192), True),
        ("!=6.1", (6, 1, 192), False),
        ("<=6.1", (6, 1, 192), True),
        (">6.1", (6, 1, 192), False),
        ("<6.1", (6, 1, 192), False),
        ("6.1.192", (6, 1), False),
    ],
)
def test_range_compares_as_many_numbers_as_it_has(text, version, inside):
    assert (version in VersionRange.parse(text)) is inside


@pytest.mark.parametrize("text", ["", ">=", "new", ">=9.1 <10", "~9.1"])
def test_range_of_another_form_is_refused(text):
    with pytest.raises(ValueError, match="not a version term"):
        VersionRange.parse(text)


def test_range_prints_its_terms():
    assert str(VersionRange.parse(">=9.1,<10")) == ">=9.1, <10"
