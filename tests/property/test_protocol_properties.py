"""Whatever a console says, it is read, and what was not whole is not taken for whole."""

from hypothesis import given, settings
from hypothesis import strategies as st

from harness.guests import protocol_files, protocols

PIECES = (
    "ok", "not ok", " 1", " 2", " - name", " # SKIP", " # TODO", "1..2", "1..0 # SKIP", "Bail out!",
    "# Subtest: x", "---", "...", "TAP version 14", "SOTEST VERSION 1 BEGIN 2", "SOTEST SUCCESS",
    ' "a"', "SOTEST FAIL", "SOTEST SKIP", "SOTEST BENCHMARK:a:b:1", "SOTEST END", "SOTEST PANIC",
    "PASS: x", "FAIL: x~2", "PASS: x~2", "SUMMARY: 2 tests", ", 1 unexpected failures", "ABORT: ",
    "    ", "  ", "\n", "\n", "\n", "\r", "\x1b[31m", "\x00", "\u2028", "\ufffd",
)  # fmt: skip
CONSOLES = st.one_of(
    st.lists(st.sampled_from(PIECES), max_size=40).map("".join), st.text(max_size=200)
)


@given(CONSOLES, st.sampled_from(protocol_files.shipped()))
@settings(max_examples=300, deadline=None)
def test_console_is_read_whatever_it_says(console, protocol):
    said = protocols.read(console, protocol)

    ids = [check.id for check in said.checks]
    assert len(ids) == len(set(ids))
    if said.shortfall() is None:
        assert said.checks or said.skipped is not None
        assert said.plan.planned in (None, said.plan.done)


@given(CONSOLES)
@settings(max_examples=300, deadline=None)
def test_console_that_is_recognised_is_read_by_one_protocol(console):
    said = protocols.recognise(console, protocol_files.shipped())

    if said.protocol is not None:
        assert said == protocols.read(console, said.protocol)
    else:
        assert said.checks == ()
        assert said.shortfall() is not None
