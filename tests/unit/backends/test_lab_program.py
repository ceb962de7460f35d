"""What a program in the lab prints, as it comes through the console port."""

from __future__ import annotations

import asyncio

import pytest

from harness.backends.lab import _pass_on

MARK = b"\x04irqmatrix: end\n"


def passed_on(pieces):
    """What reaches the output, where the stream comes in ``pieces``."""

    async def run():
        reader, out = asyncio.StreamReader(), []
        task = asyncio.create_task(_pass_on(reader, MARK, out.append))
        for piece in pieces:
            reader.feed_data(piece)
            await asyncio.sleep(0)
        reader.feed_eof()
        await task
        return b"".join(out)

    return asyncio.run(run())


@pytest.mark.parametrize("cut", range(1, len(MARK)))
def test_text_up_to_the_mark_is_passed_on_however_the_mark_comes(cut):
    assert passed_on([b"text" + MARK[:cut], MARK[cut:]]) == b"text"


def test_text_that_begins_like_the_mark_is_passed_on():
    assert (
        passed_on([b"a\x04b", b"c" * 40, b"\x04", b"d" + MARK]) == b"a\x04b" + b"c" * 40 + b"\x04d"
    )


def test_text_that_begins_like_the_mark_does_not_hide_one_that_comes_in_pieces():
    assert passed_on([b"\x04" + b"c" * 40 + MARK[:5], MARK[5:]]) == b"\x04" + b"c" * 40


def test_text_without_a_mark_is_passed_on_to_its_end():
    assert passed_on([b"cut", b" off\x04"]) == b"cut off\x04"
