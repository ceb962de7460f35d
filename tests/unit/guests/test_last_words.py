import pytest

from harness.guests import last_words

PANIC = "Kernel panic - not syncing: Fatal exception"


@pytest.mark.parametrize(
    ("console", "said"),
    [
        ("", ()),
        ("all is well\n", ()),
        (f"[    1.0] {PANIC}\n[    1.0] CPU: 0\n", (PANIC,)),
        (f"{PANIC}\n---[ end {PANIC} ]---\n", (PANIC,)),
        (
            f"BUG: unable to handle page fault for address: 10\nRIP: 0010:x\n{PANIC}\n",
            ("BUG: unable to handle page fault for address: 10", PANIC),
        ),
    ],
)
def test_phrases_of_a_console_are_the_first_of_each_kind(console, said):
    assert last_words.phrases(console) == said


def test_phrases_are_few_and_short():
    kinds = "irq 1: nobody cared\nDisabling IRQ #1\nNo bootable device\n" + PANIC + "x" * 5000
    assert len(last_words.phrases(kinds)) == last_words.MAX_PHRASES
    (panic,) = last_words.phrases("Kernel panic - not syncing: " + "x" * 5000)
    assert len(panic) < 200
