import pytest

from support.lapic_board import RecordingPort
from userspace_chip.delivery import KvmBus, QemuBus, apic_bus, matches
from userspace_chip.events import event_type
from userspace_chip.knobs import LowestPriority
from userspace_chip.lapic import Lapic
from userspace_chip.lapic_registers import DFR, ID, LDR, SPIV
from userspace_chip.messages import DeliveryMode, DestMode, LapicMessage, Shorthand, Trigger
from userspace_chip.profile import profile, tune

LOGICAL = DestMode.LOGICAL
LOWEST = DeliveryMode.LOWEST


class Bus:
    """A bus of some enabled local APICs; ids are those of reset unless a test changes them."""

    def __init__(self, which, cpus=2, *, ldrs=None, x2apic=False, dfr=None):
        self.profile = profile(which) if isinstance(which, str) else which
        self.ports = [RecordingPort() for _ in range(cpus)]
        self.lapics = [Lapic(self.profile, port, n) for n, port in enumerate(self.ports)]
        for number, lapic in enumerate(self.lapics):
            lapic.write_mmio(SPIV, 4, 0x1FF, 0)
            if dfr is not None:
                lapic.write_mmio(DFR, 4, dfr, 0)
            ldr = (1 << number % 8) if ldrs is None else ldrs[number]
            lapic.write_mmio(LDR, 4, ldr << 24, 0)
            if x2apic:
                assert lapic.set_apic_base(lapic.state.apic_base | 0xC00)
        self.bus = apic_bus(self.profile, self.lapics)

    def __call__(self, vector, dest=0, source=None, **fields):
        sender = None if source is None else self.lapics[source]
        return self.bus.deliver(LapicMessage(vector, dest=dest, **fields), sender)

    def who(self, vector):
        return [n for n, lapic in enumerate(self.lapics) if lapic.state.irr >> vector & 1]


# --- the return table of KVM_SIGNAL_MSI (2 vCPUs, ids 0/1, flat LDR 1/2)


@pytest.mark.parametrize(
    ("fields", "result", "who"),
    [
        ({"vector": 0x31, "dest": 0}, 1, [0]),
        ({"vector": 0x05, "dest": 0}, 1, [0]),
        ({"vector": 0x31, "dest": 2}, 0, []),
        ({"vector": 0x31, "dest": 0xFF}, 2, [0, 1]),
        ({"vector": 0x31, "dest": 3, "dest_mode": LOGICAL}, 2, [0, 1]),
        ({"vector": 0x34, "dest": 3, "dest_mode": LOGICAL, "delivery_mode": LOWEST}, 1, [0]),
        ({"vector": 0x35, "dest": 3, "dest_mode": LOGICAL, "delivery_mode": LOWEST}, 1, [1]),
        ({"vector": 0x36, "dest": 3, "dest_mode": LOGICAL, "rh": True}, 1, [0]),
        ({"vector": 0x3A, "dest": 7, "dest_mode": LOGICAL, "delivery_mode": LOWEST}, 1, [1]),
        ({"vector": 0x3B, "dest": 7, "dest_mode": LOGICAL, "delivery_mode": LOWEST}, 0, []),
        ({"vector": 0x31, "dest": 4, "dest_mode": LOGICAL}, 0, []),
        ({"vector": 0x31, "dest": 0xFF, "delivery_mode": LOWEST}, 2, [0, 1]),
        ({"vector": 0x31, "dest": 0, "delivery_mode": DeliveryMode.EXTINT}, 0, []),
        ({"vector": 0x31, "dest": 0, "delivery_mode": DeliveryMode.RESERVED3}, 1, []),
        ({"vector": 0x31, "dest": 0, "delivery_mode": DeliveryMode.NMI}, 1, []),
    ],
)
def test_kvm_result_is_that_of_the_kernel(fields, result, who):
    bus = Bus("on")
    assert bus(**fields) == result
    assert bus.who(fields["vector"]) == who


def test_kvm_repeat_while_pending_is_accepted_again():
    bus = Bus("on")
    assert [bus(0x31), bus(0x31)] == [1, 1]


def test_kvm_software_disabled_target_drops_fixed_but_takes_nmi():
    bus = Bus("on")
    bus.lapics[0].write_mmio(SPIV, 4, 0xFF, 0)
    bus.bus.recalculate()
    assert bus(0x31) == 0
    assert bus(0x31, delivery_mode=DeliveryMode.NMI) == 1


@pytest.mark.parametrize(("vector", "result"), [(0x46, 1), (0x47, 0)])
def test_kvm_lowest_counts_a_software_disabled_member_and_may_hit_it(vector, result):
    bus = Bus("on")
    bus.lapics[1].write_mmio(SPIV, 4, 0xFF, 0)
    bus.bus.recalculate()
    assert bus(vector, 3, dest_mode=LOGICAL, delivery_mode=LOWEST) == result


def test_kvm_equal_ldrs_switch_the_logical_map_off():
    bus = Bus("on", ldrs=[1, 1])
    assert bus(0x31, 1, dest_mode=LOGICAL) == 2
    assert bus(0x31, 2, dest_mode=LOGICAL) == -1
    assert bus(0x31, 2) == 0


def test_kvm_6_1_lets_the_last_of_two_equal_ldrs_win():
    bus = Bus(profile("on", linux="6.1"), ldrs=[1, 1])
    assert bus(0x31, 1, dest_mode=LOGICAL) == 1
    assert bus.who(0x31) == [1]
    assert bus(0x31, 2, dest_mode=LOGICAL) == 0


def test_kvm_equal_ids_switch_the_whole_map_off():
    bus = Bus("on")
    bus.lapics[1].write_mmio(ID, 4, 0, 0)
    bus.bus.recalculate()
    assert bus(0x31, 0) == 2
    assert bus(0x31, 1) == -1


def test_kvm_6_1_lets_the_first_of_two_equal_ids_win():
    bus = Bus(profile("on", linux="6.1"))
    bus.lapics[1].write_mmio(ID, 4, 0, 0)
    bus.bus.recalculate()
    assert bus(0x31, 0) == 1
    assert bus.who(0x31) == [0]
    assert bus(0x31, 1) == 0


def test_kvm_mixed_modes_switch_the_logical_map_off():
    bus = Bus("on")
    bus.lapics[1].set_apic_base(bus.lapics[1].state.apic_base | 0xC00)
    bus.bus.recalculate()
    assert bus(0x31, 8, dest_mode=LOGICAL) == -1
    assert bus(0x31, 8) == 0


def test_kvm_ldr_with_two_bits_switches_the_logical_map_off():
    bus = Bus("on", ldrs=[3, 4])
    assert bus(0x31, 2, dest_mode=LOGICAL) == 1
    assert bus(0x31, 8, dest_mode=LOGICAL) == -1


def test_kvm_ldr_of_zero_does_not_count():
    bus = Bus("on", ldrs=[0, 2])
    assert bus(0x31, 3, dest_mode=LOGICAL) == 1
    assert bus(0x31, 1, dest_mode=LOGICAL) == 0


def test_kvm_without_any_software_enabled_apic_drops_logical_messages():
    bus = Bus("on")
    for lapic in bus.lapics:
        lapic.write_mmio(SPIV, 4, 0xFF, 0)
    bus.bus.recalculate()
    assert bus(0x31, 1, dest_mode=LOGICAL) == 0


def test_kvm_globally_disabled_apic_is_not_there():
    bus = Bus("on")
    bus.lapics[1].set_apic_base(0xFEE00000)
    bus.bus.recalculate()
    assert bus(0x31, 1) == 0
    assert bus(0x31, 0xFF) == 1


@pytest.mark.parametrize(
    ("dest", "result"), [(0x11, 1), (0x13, 2), (0xFF, 4), (0xF1, 0), (0x21, 1), (0x33, 0)]
)
def test_kvm_cluster_mode_has_no_broadcast_but_ff(dest, result):
    bus = Bus("on", 4, ldrs=[0x11, 0x12, 0x21, 0x22], dfr=0)
    assert bus(0x31, dest, dest_mode=LOGICAL) == result


def test_kvm_cluster_15_must_match_on_the_slow_path_too():
    bus = Bus("on", 3, ldrs=[0x11, 0x11, 0xF1], dfr=0)
    assert bus(0x31, 0xF1, dest_mode=LOGICAL) == 1
    assert bus(0x31, 0xF2, dest_mode=LOGICAL) == -1


def test_kvm_other_dfr_models_match_as_cluster_in_the_map_and_never_without():
    bus = Bus("on", 2, ldrs=[0x11, 0x12], dfr=0x50000000)
    assert bus(0x31, 0x11, dest_mode=LOGICAL) == 1
    assert not matches(bus.lapics[0], 0x11, LOGICAL)


@pytest.mark.parametrize(
    ("dest", "source", "who"),
    [(0xFF, None, [0, 1]), (0xFF, 0, []), (0xFFFFFFFF, 0, [0, 1]), (1, 0, [1])],
)
def test_kvm_x2apic_broadcast_is_ff_for_messages_and_all_ones_for_ipis(dest, source, who):
    bus = Bus("on", x2apic=True)
    bus(0x31, dest, source)
    assert bus.who(0x31) == who


def test_kvm_x2apic_logical_is_cluster_and_member():
    bus = Bus("on", 18, x2apic=True)
    assert bus(0x31, 0x10003, dest_mode=LOGICAL) == 2
    assert bus.who(0x31) == [16, 17]
    assert bus(0x32, 0x8003, dest_mode=LOGICAL) == 3
    assert bus.who(0x32) == [0, 1, 15]


def test_kvm_x2apic_logical_of_a_cluster_beyond_the_map_is_dropped():
    bus = Bus("on", x2apic=True)
    assert bus(0x31, 0x200001, dest_mode=LOGICAL) == 0


@pytest.mark.parametrize(
    ("shorthand", "who"),
    [(Shorthand.SELF, [1]), (Shorthand.ALL, [0, 1, 2]), (Shorthand.ALL_BUT_SELF, [0, 2])],
)
@pytest.mark.parametrize("which", ["on", "off", "tcg"])
def test_shorthands_reach_their_cpus(which, shorthand, who):
    bus = Bus(which, 3)
    bus(0x31, 0, 1, shorthand=shorthand)
    assert bus.who(0x31) == who


def test_kvm_broadcast_lowest_hashes_over_enabled_cpus():
    bus = Bus("on")
    assert bus(0x3B, 0xFF, dest_mode=LOGICAL, delivery_mode=LOWEST) == 1
    assert bus.who(0x3B) == [1]


def test_kvm_broadcast_lowest_does_not_take_a_software_disabled_cpu():
    bus = Bus("on")
    bus.lapics[1].write_mmio(SPIV, 4, 0xFF, 0)
    bus.bus.recalculate()
    assert bus(0x3B, 0xFF, dest_mode=LOGICAL, delivery_mode=LOWEST) == 1
    assert bus.who(0x3B) == [0]


@pytest.mark.parametrize("dest", [3, 0xFF])
def test_kvm_without_hashing_takes_turns_by_arbitration_count(dest):
    subject = tune(profile("on"), delivery__lowest_priority=LowestPriority.ROUND_ROBIN)
    bus = Bus(subject)
    for vector in (0x31, 0x32, 0x33):
        bus(vector, dest, dest_mode=LOGICAL, delivery_mode=LOWEST)
    assert [bus.who(vector) for vector in (0x31, 0x32, 0x33)] == [[0], [1], [0]]


def test_kvm_physical_lowest_is_no_arbitration():
    bus = Bus("on")
    assert bus(0x31, 1, delivery_mode=LOWEST) == 1
    assert bus.who(0x31) == [1]


def test_kvm_targets_of_a_message_without_sending_it():
    bus = Bus("on")
    message = LapicMessage(0x31, dest=3, dest_mode=LOGICAL)
    assert [lapic.vcpu_id for lapic in bus.bus.targets(message)] == [0, 1]
    assert bus.who(0x31) == []


def test_kvm_fast_delivery_alone_refuses_a_broadcast():
    bus = Bus("on")
    assert isinstance(bus.bus, KvmBus)
    assert bus.bus.deliver_fast(LapicMessage(0x31, dest=0xFF)) is None
    assert bus.bus.deliver_fast(LapicMessage(0x31, dest=1)) == 1


# --- QEMU


@pytest.mark.parametrize("which", ["off", "tcg"])
def test_qemu_message_is_traced(which):
    bus = Bus(which)
    texts = []
    bus.bus.emit = lambda name, *args: texts.append(event_type(name).format(args))
    bus(0x31, 1, trigger=Trigger.LEVEL)
    assert texts == ["dest 1 dest_mode 0 delivery_mode 0 vector 49 trigger_mode 1"]


@pytest.mark.parametrize("which", ["off", "tcg"])
def test_qemu_ipi_is_not_traced(which):
    bus = Bus(which)
    texts = []
    bus.bus.emit = lambda name, *args: texts.append(name)
    bus(0x31, 1, 0)
    assert texts == []
    assert bus.who(0x31) == [1]


@pytest.mark.parametrize("which", ["off", "tcg"])
def test_qemu_lowest_goes_to_the_first_slot_whatever_the_vector(which):
    bus = Bus(which, 3)
    for vector in (0x34, 0x35):
        bus(vector, 6, dest_mode=LOGICAL, delivery_mode=LOWEST)
        assert bus.who(vector) == [1]


@pytest.mark.parametrize("which", ["off", "tcg"])
def test_qemu_ignores_the_redirection_hint(which):
    bus = Bus(which)
    bus(0x31, 3, dest_mode=LOGICAL, rh=True)
    assert bus.who(0x31) == [0, 1]


@pytest.mark.parametrize(("which", "who"), [("off", []), ("tcg", [0, 2])])
def test_qemu_cluster_15_is_a_broadcast_since_10(which, who):
    bus = Bus(which, 4, ldrs=[0x11, 0x12, 0x21, 0x22], dfr=0)
    bus(0x31, 0xF1, dest_mode=LOGICAL)
    assert bus.who(0x31) == who


def test_qemu_7_physical_takes_the_first_of_two_equal_ids_and_10_both():
    for which, who in (("off", [0]), ("tcg", [0, 1])):
        bus = Bus(which, 3)
        bus.lapics[1].write_mmio(ID, 4, 0, 0)
        bus(0x31, 0)
        assert bus.who(0x31) == who


def test_qemu_10_physical_ff_reaches_xapics_only():
    bus = Bus("tcg", 3)
    bus.lapics[2].set_apic_base(bus.lapics[2].state.apic_base | 0xC00)
    bus(0x31, 0xFF)
    assert bus.who(0x31) == [0, 1]
    bus(0x32, 0xFFFFFFFF)
    assert bus.who(0x32) == [0, 1, 2]


def test_qemu_10_logical_all_ones_reaches_x2apics_and_matching_xapics():
    bus = Bus("tcg", 3, ldrs=[1, 0, 4])
    bus.lapics[2].set_apic_base(bus.lapics[2].state.apic_base | 0xC00)
    bus(0x31, 0xFFFFFFFF, dest_mode=LOGICAL)
    assert bus.who(0x31) == [0, 2]


def test_qemu_7_self_is_the_slot_of_the_current_id_and_10_of_the_initial_one():
    for which, who in (("off", [1]), ("tcg", [0])):
        bus = Bus(which)
        bus.lapics[0].write_mmio(ID, 4, 0x01000000, 0)
        bus(0x31, 0, 0, shorthand=Shorthand.SELF)
        assert bus.who(0x31) == who


@pytest.mark.parametrize(
    ("mode", "call"),
    [(DeliveryMode.NMI, "nmi"), (DeliveryMode.SMI, "smi"), (DeliveryMode.INIT, "init")],
)
def test_qemu_special_modes_raise_cpu_lines(mode, call):
    bus = Bus("tcg")
    bus.ports[1].calls.clear()
    bus(0x31, 1, delivery_mode=mode)
    assert bus.ports[1].calls == [call]


def test_qemu_sipi_is_for_ipis_only():
    bus = Bus("tcg")
    bus.ports[1].calls.clear()
    bus(0x31, 1, delivery_mode=DeliveryMode.SIPI)
    assert bus.ports[1].calls == []
    bus(0x31, 1, 0, delivery_mode=DeliveryMode.SIPI)
    assert bus.ports[1].calls == ["sipi 49"]


def test_qemu_init_deassert_sets_the_arbitration_id():
    bus = Bus("tcg")
    bus.ports[1].calls.clear()
    init = {"delivery_mode": DeliveryMode.INIT, "trigger": Trigger.LEVEL, "level": False}
    bus(0, 1, 0, shorthand=Shorthand.ALL, **init)
    assert bus.ports[1].calls == []
    assert bus.lapics[1].state.arbitration == 1


def test_qemu_extint_message_sets_irr():
    bus = Bus("tcg")
    bus(0x31, 1, delivery_mode=DeliveryMode.EXTINT)
    assert bus.who(0x31) == [1]


def test_bus_is_chosen_by_the_profile():
    assert isinstance(Bus("split").bus, KvmBus)
    assert isinstance(Bus("off").bus, QemuBus)
