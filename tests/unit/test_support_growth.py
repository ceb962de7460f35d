import os
from pathlib import Path

from soak import growth

CASES = 100


def samples(held_at):
    """One after each case, with the descriptors that ``held_at`` names for it."""
    return [growth.Sample(done, 1000.0 + done, frozenset(held_at(done))) for done in range(CASES)]


def in_flight(done):
    """More with each case until it starts anew, as in a machine that gets slower."""
    return {f"{number} pipe:[{done}{number}]" for number in range(6 + done // 10)}


def test_kept_descriptors_of_cases_in_flight_are_none():
    assert growth.kept_descriptors(samples(in_flight), CASES) == []


def test_kept_descriptors_of_one_leak_in_ten_cases_are_each_leak():
    def held(done):
        return in_flight(done) | {f"{20 + n} socket:[{n}]" for n in range(0, done, 10)}

    kept = growth.kept_descriptors(samples(held), CASES)
    assert kept == [f"{20 + n} socket:[{n}]" for n in (30, 40, 50, 60, 70)]


def test_kept_descriptors_from_the_warm_up_are_none():
    held = {"3 anon_inode:[eventpoll]", "4 run.lock"}
    assert growth.kept_descriptors(samples(lambda done: held if done > 9 else ()), CASES) == []


def test_memory_slope_is_what_a_case_adds():
    assert growth.memory_slope(samples(in_flight), CASES) == 1.0


def test_memory_slope_with_two_samples_is_unknown():
    assert growth.memory_slope(samples(in_flight)[50:52], CASES) is None


def test_sample_of_a_process_names_its_open_descriptors():
    reading, writing = os.pipe()
    name = f"{reading} {Path(f'/proc/self/fd/{reading}').readlink()}"
    held = growth.sample(os.getpid(), 3)
    os.close(reading)
    os.close(writing)
    assert name in held.descriptors
    assert name not in growth.sample(os.getpid(), 4).descriptors
    assert (held.done, held.resident_kib > 1000) == (3, True)
