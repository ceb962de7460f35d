"""The known differences of scenarios, asked of the model: every difference has its reason."""

from __future__ import annotations

import functools
import itertools

from harness.analyse.conformance import as_text
from harness.base import resources
from harness.base.versions import parse_version
from harness.compare.known import BackendFacts, CheckMatch, KnownDifferences, Scope
from harness.model.case import Irqchip, Machine
from harness.scenario import choice
from harness.scenario.predict import predict
from userspace_chip.profile import profile

BACKENDS = [
    *itertools.product(("on", "split"), ("7.2", "10.0"), ("6.1", "6.12")),
    *(("off", "7.2", linux) for linux in ("6.1", "6.12")),
    *((irqchip, "11.1", "7.3") for irqchip in ("on", "split")),
    *(("tcg", qemu, "6.1") for qemu in ("7.2", "10.0", "11.1")),
]
"""irqchip, QEMU, Linux (under TCG any)."""
MICROVM = frozenset({"microvm"})


@functools.cache
def shipped():
    folder = resources.configs() / "scenarios"
    return choice.load([*sorted(folder.glob("*.yaml")), *sorted(folder.glob("outside/*.yaml"))])


def scenarios():
    """Those that the chips can predict."""
    return [scenario for scenario in shipped() if scenario.no_model is None]


@functools.cache
def logs(irqchip: str, qemu: str, linux: str) -> dict[str, str]:
    """What each scenario logs there, without those that need what is not there."""
    subject = profile(irqchip, qemu=qemu, linux=linux)
    found = {}
    for scenario in scenarios():
        board = "microvm" if scenario.machines == MICROVM else "pc"
        log = predict(scenario.program, subject, board=board)
        if all(event.kind != "skip" for event in log.events):
            found[scenario.name] = as_text(scenario, log)
    return found


def facts(irqchip: str, machine: Machine, qemu: str, linux: str) -> BackendFacts:
    kernel = None if irqchip == "tcg" else parse_version(linux)
    return BackendFacts(Irqchip(irqchip), machine, parse_version(qemu), kernel)


@functools.cache
def differences() -> tuple[tuple[Scope, str], ...]:
    """(scope, scenario) of what any two backends log differently, also of different versions."""
    only_microvm = {s.name for s in scenarios() if s.machines == MICROVM}
    found = []
    for a, b in itertools.combinations(BACKENDS, 2):
        one, other = logs(*a), logs(*b)
        for name in one.keys() & other.keys():
            if one[name] != other[name]:
                machine = Machine.MICROVM if name in only_microvm else Machine.Q35
                sides = [facts(irqchip, machine, *versions) for irqchip, *versions in (a, b)]
                found.append((Scope(*sides, "probe", ""), name))
    return tuple(found)


def test_scenario_that_two_backends_log_differently_has_a_known_reason():
    known = KnownDifferences.shipped()
    unexplained = {
        f"{name}: {scope.a} / {scope.b}"
        for scope, name in differences()
        if known.for_check(scope, name, ("", "")) is None
    }
    assert unexplained == set()


def test_known_difference_of_scenarios_explains_something_in_some_version():
    known = KnownDifferences.shipped()
    met = {
        rule.id
        for scope, name in differences()
        if (rule := known.for_check(scope, name, ("", ""))) is not None
    }
    names = {scenario.name for scenario in scenarios()}
    meant = {
        rule.id
        for rule in known.rules
        if isinstance(rule.what, CheckMatch)
        and rule.guest == "probe*"
        and any(map(rule.what.means, names))
    }
    assert meant - met == set()


def test_known_difference_of_scenarios_names_only_scenarios_that_there_are():
    names = [scenario.name for scenario in shipped()]
    for rule in KnownDifferences.shipped().rules:
        if isinstance(rule.what, CheckMatch) and rule.guest == "probe*":
            for glob in rule.what.checks:
                assert any(CheckMatch((glob,)).means(name) for name in names), (rule.id, glob)
