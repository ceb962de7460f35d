import pytest

from harness.base.errors import ConfigError
from harness.guests import protocol_files, protocols

OWN = r"""name: mine
lines:
  - plan: '(?P<count>\d+) checks'
  - pass: 'GOOD (?P<name>\w+)'
  - fail: 'BAD (?P<name>\w+)'
  - end: 'BYE'
"""


def write(tmp_path, text):
    path = tmp_path / "mine.yaml"
    path.write_text(text)
    return path


def test_shipped_protocols_are_those_that_are_documented():
    names = {protocol.name for protocol in protocol_files.shipped()}
    assert names == {"kvm-unit-tests", "sotest", "tap"}
    assert all(protocol.found_by for protocol in protocol_files.shipped())


def test_own_protocol_reads_its_lines(tmp_path):
    protocol = protocol_files.load(write(tmp_path, OWN))
    said = protocols.read("2 checks\nGOOD a\nBAD b\nBYE\n", protocol)
    assert [(check.id, check.result.value) for check in said.checks] == [
        ("a", "pass"),
        ("b", "fail"),
    ]
    assert (said.shortfall(), said.ended) == (None, True)


def test_own_protocol_without_a_plan_is_whole_with_its_end_line(tmp_path):
    protocol = protocol_files.load(write(tmp_path, OWN))
    assert protocols.read("GOOD a\n", protocol).shortfall() == "1 check, and no end line"
    assert protocols.read("GOOD a\nBYE\n", protocol).shortfall() is None


@pytest.mark.parametrize(
    ("old", "new", "line", "message"),
    [
        ("BYE", "(", 6, "is not a regular expression"),
        ("BYE", "(?P<why>x)", 6, "unknown group 'why'"),
        ("BYE", "x?", 6, "matches every line"),
        ("BYE", "a (?i)b", 6, "is not a regular expression"),
        ("end:", "finish:", 6, "bad value for lines.3"),
        ("name: mine", "nam: mine", 1, "unknown key 'nam'"),
        ("name: mine", "name: ''", 1, "bad value for name"),
        ("name: mine", "quoted: {begin: '(', end: x}", 1, "is not a regular expression"),
        ("name: mine", "found_by: '['", 1, "is not a regular expression"),
    ],
)
def test_own_protocol_mistake_is_named_with_its_line(tmp_path, old, new, line, message):
    with pytest.raises(ConfigError, match=message) as caught:
        protocol_files.load(write(tmp_path, OWN.replace(old, new)))
    assert f":{line}:" in str(caught.value)


def test_own_protocol_in_which_nothing_can_pass_is_refused(tmp_path):
    with pytest.raises(ConfigError, match="no check could pass or fail"):
        protocol_files.load(write(tmp_path, "lines:\n  - skip: x\n"))
