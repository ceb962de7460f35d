"""Who gets which case next, and how long a host is kept for one."""

import asyncio
import dataclasses
from pathlib import Path

from harness.guests.plan import GuestPlan
from harness.model.case import FlatGuest, Vmm
from harness.run.waiting import Prepared, Waiting
from support import cases


def item(name, qemu="system", kernel="k", vmm=Vmm.QEMU):
    backend = dataclasses.replace(cases.TCG, qemu=qemu, vmm=vmm)
    case = dataclasses.replace(cases.case(FlatGuest(Path(name))), backend=backend)
    return Prepared(case, GuestPlan(case, Path(kernel), None, False, False), None)


def names(items):
    return [each and each.case.guest.path.name for each in items]


def test_next_is_of_the_host_that_most_wait_for_and_goes_to_one_seat_only():
    async def run():
        waiting = Waiting([item("a"), item("b", "x"), item("c", "x")])
        await waiting.close()
        return [await waiting.next() for _ in range(4)]

    assert names(asyncio.run(run())) == ["b", "a", "c", None]


def test_next_of_a_host_that_is_up_is_none_at_once_where_nothing_more_comes():
    async def run():
        first, second = item("a"), item("b")
        waiting = Waiting([first, second])
        await waiting.close()
        key = waiting.key(first)
        return [await waiting.next(), await waiting.next_of(key), await waiting.next_of(key)]

    assert names(asyncio.run(run())) == ["a", "b", None]


def test_host_that_lingers_gets_the_case_that_comes():
    async def run():
        first = item("a")
        waiting = Waiting([first], linger_s=100)
        await waiting.next()
        following = asyncio.create_task(waiting.next_of(waiting.key(first)))
        await asyncio.sleep(0)
        await waiting.add(item("b"))
        return [await following]

    assert names(asyncio.run(run())) == ["b"]


def test_host_that_lingers_goes_where_its_seat_is_needed_for_another():
    async def run():
        first = item("a")
        waiting = Waiting([first], linger_s=100)
        await waiting.next()
        following = asyncio.create_task(waiting.next_of(waiting.key(first)))
        await asyncio.sleep(0)
        await waiting.add(item("other", "x"))
        return [await following, await waiting.next()]

    assert names(asyncio.run(run())) == [None, "other"]


def test_host_that_lingers_stays_where_another_seat_is_free():
    async def run():
        first = item("a")
        waiting = Waiting([first], linger_s=100)
        await waiting.next()
        following = asyncio.create_task(waiting.next_of(waiting.key(first)))
        elsewhere = asyncio.create_task(waiting.next())
        await asyncio.sleep(0)
        await waiting.add(item("other", "x"))
        taken = await elsewhere
        await waiting.add(item("b"))
        return [taken, await following]

    assert names(asyncio.run(run())) == ["other", "b"]


def test_host_is_another_one_for_other_files_where_more_cases_may_come():
    waiting = Waiting(linger_s=1)
    assert waiting.key(item("a")) == waiting.key(item("b"))
    assert waiting.key(item("a")) != waiting.key(item("b", kernel="other"))
    assert Waiting().key(item("a")) == Waiting().key(item("b", kernel="other"))
    assert waiting.key(item("a")) != waiting.key(item("a", vmm=Vmm.PYCHIP))
    assert Waiting().key(item("a")) == Waiting().key(item("a", vmm=Vmm.PYCHIP))
