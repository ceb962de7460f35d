"""The APIC bus: KVM's fast map against its slow path, results against what was really accepted."""

from dataclasses import dataclass

import pytest
from hypothesis import given
from hypothesis import strategies as st

from support.lapic_board import RecordingPort
from support.machines import SUBJECTS, name_of
from userspace_chip.delivery import KvmBus, apic_bus
from userspace_chip.lapic import Lapic
from userspace_chip.lapic_registers import DFR, ID, LDR, SPIV
from userspace_chip.messages import DeliveryMode, DestMode, LapicMessage, Shorthand, Trigger
from userspace_chip.profile import profile

KVM_SUBJECTS = [profile("on", linux=linux) for linux in ("6.1", "6.12")]


@dataclass(frozen=True)
class Cpu:
    """How a guest has set one local APIC up."""

    ldr: int = 1
    xapic_id: int | None = None
    flat: bool = True
    sw_enabled: bool = True
    x2apic: bool = False
    hw_enabled: bool = True


cpus = st.builds(
    Cpu,
    ldr=st.sampled_from([0, 1, 2, 3, 4, 8, 0x11, 0x12, 0x21, 0xF1]),
    xapic_id=st.none() | st.integers(0, 4),
    flat=st.booleans(),
    sw_enabled=st.booleans(),
    x2apic=st.booleans(),
    hw_enabled=st.booleans(),
)
orderly = st.integers(1, 4).map(lambda n: [Cpu(ldr=1 << i) for i in range(n)]) | st.integers(
    1, 4
).map(lambda n: [Cpu(ldr=0x10 << (i >> 1) | 1 << (i & 1), flat=False) for i in range(n)])
setups = orderly | st.lists(cpus, min_size=1, max_size=4)
messages = st.builds(
    LapicMessage,
    vector=st.integers(16, 255),
    delivery_mode=st.sampled_from([DeliveryMode.FIXED, DeliveryMode.LOWEST]),
    dest_mode=st.sampled_from(DestMode),
    dest=st.integers(0, 8) | st.sampled_from([0x11, 0x13, 0xF1, 0xFF, 0xFFFFFFFF, 0x10001]),
    rh=st.booleans(),
    trigger=st.sampled_from(Trigger),
    level=st.just(True),
    shorthand=st.just(Shorthand.NONE),
)


def lapics_of(subject, setup):
    lapics = [Lapic(subject, RecordingPort(), number) for number in range(len(setup))]
    for lapic, cpu in zip(lapics, setup, strict=True):
        if cpu.sw_enabled:
            lapic.write_mmio(SPIV, 4, 0x1FF, 0)
        lapic.write_mmio(DFR, 4, 0xFFFFFFFF if cpu.flat else 0, 0)
        lapic.write_mmio(LDR, 4, cpu.ldr << 24, 0)
        if cpu.xapic_id is not None:
            lapic.write_mmio(ID, 4, cpu.xapic_id << 24, 0)
        if cpu.x2apic and cpu.hw_enabled:
            lapic.set_apic_base(lapic.state.apic_base | 0xC00)
        if not cpu.hw_enabled:
            lapic.set_apic_base(0xFEE00000)
    return lapics


def send(bus, lapics, message, source=None):
    result = bus.deliver(message, None if source is None else lapics[source])
    return result, [n for n, a in enumerate(lapics) if a.state.irr >> message.vector & 1]


@pytest.mark.parametrize("subject", SUBJECTS, ids=name_of)
@given(setup=setups, message=messages)
def test_result_is_the_number_of_cpus_that_accepted(subject, setup, message):
    lapics = lapics_of(subject, setup)
    result, who = send(apic_bus(subject, lapics), lapics, message)
    assert max(result, 0) == len(who)


@pytest.mark.parametrize("subject", SUBJECTS, ids=name_of)
@given(setup=setups, message=messages)
def test_lowest_priority_never_reaches_two(subject, setup, message):
    lowest = message._replace(delivery_mode=DeliveryMode.LOWEST, rh=False)
    lapics = lapics_of(subject, setup)
    _, who = send(apic_bus(subject, lapics), lapics, lowest)
    kvm_broadcast = subject.kvm_lapic and not message.dest_mode and message.dest == 0xFF
    aliased = len({lapic.xapic_id for lapic in lapics}) < len(lapics) or any(
        cpu.x2apic for cpu in setup
    )
    # KVM turns a physical broadcast into a fixed one, and does not arbitrate between equal ids.
    if not kvm_broadcast and not (aliased and not message.dest_mode):
        assert len(who) <= 1


@pytest.mark.parametrize("subject", KVM_SUBJECTS, ids=name_of)
@given(setup=orderly, message=messages.filter(lambda m: m.dest <= 0xFF))
def test_kvm_map_and_slow_path_agree_on_whom_a_fixed_message_reaches(subject, setup, message):
    fixed = message._replace(delivery_mode=DeliveryMode.FIXED, rh=False)
    fast_lapics, slow_lapics = lapics_of(subject, setup), lapics_of(subject, setup)
    fast, slow = KvmBus(subject, fast_lapics), KvmBus(subject, slow_lapics)
    slow._map = None
    result, who = send(fast, fast_lapics, fixed)
    slow_result, slow_who = send(slow, slow_lapics, fixed)
    assert who == slow_who
    # Nobody is 0 by the map and -1 by the slow path; otherwise they say the same.
    assert result == max(slow_result, 0) or (result == -1 and slow_result == -1)


@pytest.mark.parametrize("subject", SUBJECTS, ids=name_of)
@given(setup=orderly, vector=st.integers(16, 255), source=st.integers(0, 3))
def test_shorthands_reach_exactly_their_cpus(subject, setup, vector, source):
    source %= len(setup)
    everyone = list(range(len(setup)))
    for shorthand, expected in (
        (Shorthand.SELF, [source]),
        (Shorthand.ALL, everyone),
        (Shorthand.ALL_BUT_SELF, [n for n in everyone if n != source]),
    ):
        lapics = lapics_of(subject, setup)
        message = LapicMessage(vector, shorthand=shorthand)
        assert send(apic_bus(subject, lapics), lapics, message, source)[1] == expected


@pytest.mark.parametrize("subject", KVM_SUBJECTS, ids=name_of)
@given(setup=setups, message=messages)
def test_targets_are_those_that_a_delivery_would_ask(subject, setup, message):
    fixed = message._replace(delivery_mode=DeliveryMode.FIXED, rh=False)
    lapics = lapics_of(subject, setup)
    bus = KvmBus(subject, lapics)
    asked = [lapic.vcpu_id for lapic in bus.targets(fixed) if lapic.sw_enabled]
    assert sorted(asked) == send(bus, lapics, fixed)[1]
