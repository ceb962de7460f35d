"""Two guests' views side by side: where they part, and what is only a race."""

import pytest

from harness.compare.align import RARE, align, check_id
from harness.compare.guest_view import GuestStep, Stream, View
from harness.model.case import Irqchip
from support.books import account

LEDGER = account((), Irqchip.ON)


def stream(*whats, start=0):
    return Stream(tuple(GuestStep(start + 10 * n, what) for n, what in enumerate(whats)))


def ways(start=0, **counts):
    """A set of ways of handling with their counts; a blank is written ``_``."""
    named = {what.replace("_", " "): count for what, count in counts.items()}
    steps = tuple(GuestStep(start + n, what) for n, what in enumerate(named))
    return Stream(steps, True, named)


def view(streams, *, sees_taking=True):
    return View(streams, LEDGER, sees_taking)


def aligned(a, b):
    return align(view({"s": a}), view({"s": b}))


def test_streams_with_the_same_steps_at_other_places_are_the_same():
    found = aligned(stream("a", "b", start=0), stream("a", "b", start=500))

    assert (found.same, found.partings) == (("s",), ())


@pytest.mark.parametrize(
    ("a", "b", "only", "places"),
    [
        ("abcd", "abxcd", ("", "x"), (10, 20)),
        ("abxcd", "abcd", ("x", ""), (20, 10)),
        ("aycd", "axcd", ("y", "x"), (10, 10)),
        ("abc", "ab", ("c", ""), (20, 10)),
        ("abc", "", ("abc", ""), (0, None)),
    ],
    ids=["more in b", "more in a", "another", "ends early", "not there"],
)
def test_parting_has_each_sides_own_steps_and_where_they_are(a, b, only, places):
    (parting,) = aligned(stream(*a), stream(*b)).partings

    assert tuple("".join(s.what for s in side) for side in (parting.a, parting.b)) == only
    assert (parting.a_place, parting.b_place) == places


def test_parting_has_what_is_common_before_and_what_follows_on_each_side():
    (parting,) = aligned(stream(*"abcd"), stream(*"abxcd")).partings

    assert [step.what for step in parting.before] == ["a", "b"]
    assert [step.what for step in parting.a_after] == ["c", "d"]
    assert [step.what for step in parting.b_after] == ["c", "d"]


def test_one_step_too_many_is_one_piece():
    (parting,) = aligned(stream(*"abcdefgh"), stream(*"axbcdefgh")).partings

    assert parting.pieces == 1


def test_partings_are_in_the_order_of_their_places():
    a = view({"early": stream("a", start=100), "late": stream("a", start=900)})
    b = view({"early": stream("b", start=300), "late": stream("b", start=200)})

    assert [parting.subject for parting in align(a, b).partings] == ["early", "late"]


# --- Ways of handling ---------------------------------------------------------------------------


def test_ways_with_other_counts_are_the_same():
    assert aligned(ways(taken_ended=5), ways(taken_ended=5000)).partings == ()


def test_way_that_only_one_side_has_is_a_parting():
    (parting,) = aligned(ways(taken=9), ways(taken=9, masked=RARE)).partings

    assert parting.values == (None, "masked")


def test_way_that_only_one_side_has_and_hardly_ever_is_a_race():
    assert aligned(ways(taken=9), ways(taken=9, masked=RARE - 1)).partings == ()


def test_value_that_was_read_is_never_rare():
    one, other = (Stream((GuestStep(0, value),), True) for value in ("0x170011", "0x170020"))
    (parting,) = aligned(one, other).partings

    assert parting.values == ("0x170011", "0x170020")


def test_way_that_both_sides_have_is_the_same_however_rare():
    assert aligned(ways(taken=1), ways(taken=1)).partings == ()


def test_against_tcg_only_the_sources_are_compared():
    one = view(
        {"s": Stream((GuestStep(0, "taken, masked, ended"),), True, {"taken, masked, ended": 9})}
    )
    tcg = view({"s": Stream((GuestStep(0, "ended"),), True, {"ended": 4})}, sees_taking=False)

    assert align(one, tcg).same == ("s",)
    assert align(tcg, one).same == ("s",)


# --- As checks ----------------------------------------------------------------------------------


def test_checks_are_equal_for_what_is_the_same_and_differ_where_guests_part():
    a = view({"same": stream("x"), "other": stream("y"), "missing": stream("z")})
    b = view({"same": stream("x"), "other": stream("w")})
    checks_a, checks_b = align(a, b).checks()

    assert checks_a[check_id("same")] == checks_b[check_id("same")]
    assert (checks_a[check_id("other")], checks_b[check_id("other")]) == ("y", "w")
    assert checks_a[check_id("missing")] == "z"
    assert check_id("missing") not in checks_b
