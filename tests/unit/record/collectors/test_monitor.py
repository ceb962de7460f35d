"""Texts and data of QEMU's monitor, as QEMU 7.2 gave them in every mode."""

import json

import pytest

from harness.base.errors import CollectError
from harness.model.counters import Counter, CounterKey
from harness.record.collectors.monitor import (
    IoapicPending,
    PicPending,
    count_irq_statistics,
    count_stats,
    parse_controllers,
    parse_irq_statistics,
    parse_lapic,
)
from support import golden


@pytest.fixture(scope="module", params=["on", "split", "tcg"])
def answers(request):
    return json.loads(golden.text(f"monitor-{request.param}-qemu7.2.json"))


@pytest.fixture(scope="module")
def split():
    return json.loads(golden.text("monitor-split-qemu7.2.json"))


def test_irq_statistics_providers_are_the_same_controllers_in_every_mode(answers):
    statistics = parse_irq_statistics(answers["x-query-irq"])

    assert [provider.controller for provider in statistics] == ["ioapic", "pic"]
    assert all(provider.counts[4] == 1 for provider in statistics)


def test_irq_statistics_become_counters_of_raised_inputs(split):
    counters = count_irq_statistics(parse_irq_statistics(split["x-query-irq"]))

    assert Counter(CounterKey("raised", "ioapic", "qmp", 0), 72) in counters
    assert Counter(CounterKey("raised", "pic", "qmp", 4), 1) in counters


def test_irq_statistics_second_ioapic_is_its_own_controller_and_listed_first():
    text = (
        "IRQ statistics for ioapic:\n23: 7\nIRQ statistics for isa-i8259:\n"
        "IRQ statistics for ioapic:\n 4: 12345678901\nIRQ statistics not available for foo.\n"
    )

    statistics = parse_irq_statistics(text)

    assert [(each.controller, dict(each.counts)) for each in statistics] == [
        ("ioapic2", {23: 7}),
        ("pic", {}),
        ("ioapic", {4: 12345678901}),
    ]


@pytest.mark.parametrize("text", [" 4: 1\n", "IRQ statistics for ioapic:\n 4: many\n", "nonsense"])
def test_irq_statistics_of_another_form_are_refused(text):
    with pytest.raises(CollectError, match="x-query-irq"):
        parse_irq_statistics(text)


def test_stats_vcpus_are_numbered_by_their_paths_not_by_their_order(split):
    """QEMU lists the last vCPU first."""
    assert split["query-stats"][0]["qom-path"] == "/machine/unattached/device[2]"

    exits = {
        counter.key.cpu: counter.value
        for counter in count_stats(split["query-stats"])
        if counter.key.name == "exits"
    }

    assert exits == {0: 7413, 1: 12}


def test_stats_more_than_ten_devices_are_ordered_as_numbers():
    stats = [
        {"qom-path": f"/machine/unattached/device[{n}]", "stats": [{"name": "exits", "value": n}]}
        for n in (10, 9, 0)
    ]

    assert [counter.value for counter in count_stats(stats)] == [0, 9, 10]


def test_stats_without_kvm_are_no_counters():
    assert count_stats([]) == []


def test_stats_of_another_form_are_refused():
    with pytest.raises(CollectError, match="query-stats"):
        count_stats([{"provider": "kvm", "stats": []}])


@pytest.mark.parametrize(("mode", "version"), [("on", 0x11), ("split", 0x20), ("tcg", 0x20)])
def test_controllers_version_of_ioapic_is_observed(mode, version):
    answers = json.loads(golden.text(f"monitor-{mode}-qemu7.2.json"))

    controllers = parse_controllers(answers["info pic"])

    assert [ioapic.version for ioapic in controllers.ioapics] == [version]
    assert controllers.observations == {"monitor.ioapic.version": f"{version:#x}"}


def test_controllers_pics_have_their_masks(split):
    controllers = parse_controllers(split["info pic"])

    assert controllers.pics == {0: PicPending(0x10, 0xB8, 0), 1: PicPending(0, 0x8E, 0)}
    assert controllers.text == split["info pic"]


def test_controllers_pending_pins_are_lists(split):
    text = split["info pic"].replace("IRR      (none)", "IRR      5 21 ", 1)
    text = text.replace("Remote IRR (none)", "Remote IRR 21 ", 1)

    (ioapic,) = parse_controllers(text).ioapics

    assert ioapic == IoapicPending(0x20, (5, 21), (21,))


def test_controllers_cut_off_are_refused(split):
    with pytest.raises(CollectError, match="cut off"):
        parse_controllers(split["info pic"][:500])


def test_controllers_of_another_form_are_refused():
    with pytest.raises(CollectError, match="info pic"):
        parse_controllers("unknown command: 'info pic'\r\n")


def test_lapic_of_every_mode_is_read(answers):
    lapics = [parse_lapic(text) for text in answers["info lapic"]]

    assert [(lapic.cpu, lapic.enabled) for lapic in lapics] == [(0, True), (1, False)]
    assert all(lapic.isr == lapic.irr == () for lapic in lapics)


def test_lapic_pending_vectors_tell_their_trigger_mode(split):
    text = split["info lapic"][0].replace("IRR\t (none)", "IRR\t 49 65(level) 66 80 ")
    text = text.replace("ISR\t (none)", "ISR\t 236 ")

    lapic = parse_lapic(text)

    assert lapic.irr == (49, 65, 66, 80)
    assert lapic.isr == (236,)
    assert lapic.level == {65}


def test_lapic_cut_off_is_refused(split):
    with pytest.raises(CollectError, match="info lapic"):
        parse_lapic(split["info lapic"][0][:700])
