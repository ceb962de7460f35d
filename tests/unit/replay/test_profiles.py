"""What no profile of the Python chips stands for is known by a case's arguments."""

from dataclasses import replace

import pytest

from harness.base.errors import ReplayRefused
from harness.model import manifest
from harness.model.case import Irqchip, Vmm
from harness.replay.profiles import not_modelled, profile_of
from harness.replay.replay import replay_case
from support import cases


def described(cpu="qemu64", **arguments):
    case = cases.case(cases.LINUX, cases.SPLIT, cpu=cpu, **arguments)
    return manifest.describe(case, qemu="7.2.22", linux="6.1.192")


@pytest.mark.parametrize(
    ("arguments", "why"),
    [
        ({"devices": ("intel-iommu",)}, "intel-iommu: an IOMMU"),
        ({"devices": ("amd-iommu,intremap=on",)}, "an IOMMU"),
        ({"options": ("-accel kvm,xen-version=0x4000a",)}, "Xen"),
        ({"cpu": "host,hv-vpindex,hv_synic"}, "SynIC"),
        ({"options": ("-machine kernel-irqchip=off",)}, "another irqchip"),
        ({"options": ("-accel kvm,kernel_irqchip=split",)}, "another irqchip"),
        ({"options": ("-machine ioapic2=off",)}, "which interrupt chips"),
        ({"cpu": "qemu64,-apic"}, "no local APIC"),
    ],
    ids=lambda value: str(value) if isinstance(value, dict) else "",
)
def test_argument_that_the_chips_do_not_have_is_named_with_the_reason(arguments, why):
    assert why in not_modelled(described(**arguments))


@pytest.mark.parametrize(
    "arguments",
    [
        {},
        {"devices": ("intel-iommu,intremap=off", "virtio-rng-pci")},
        {"options": ("-machine hpet=off", "-global kvm-pit.lost_tick_policy=discard")},
        {"cpu": "host,hv-vpindex,hv-synic=off,+x2apic"},
    ],
    ids=str,
)
def test_argument_that_changes_no_chip_is_none(arguments):
    assert not_modelled(described(**arguments)) is None


@pytest.mark.parametrize(
    ("options", "reinject"),
    [((), True), (("-global kvm-pit.lost_tick_policy=discard",), False)],
)
def test_profile_of_a_pit_that_discards_ticks_awaits_no_eoi(options, reinject):
    case = cases.case(cases.LINUX, cases.ON, options=options)
    subject, warnings = profile_of(manifest.describe(case, qemu="10.0.2", linux="6.12.117"))

    assert (subject.pit.reinject, warnings) == (reinject, ())


@pytest.mark.parametrize(
    ("options", "exits"),
    [((), True), (("-global apic-common.vapic=off",), False)],
)
def test_profile_without_the_vapic_has_no_exits_at_tpr(options, exits):
    case = cases.case(cases.LINUX, cases.ON, options=options)
    subject, _ = profile_of(manifest.describe(case, qemu="10.0.2", linux="6.12.117"))

    assert subject.lapic.tpr_access_exits is exits


def test_replay_of_such_a_case_is_refused_whatever_it_recorded(tmp_path):
    manifest.write(tmp_path, replace(described(), arguments=("intel-iommu,intremap=on",)))

    with pytest.raises(ReplayRefused, match="do not model the case: intel-iommu,intremap=on: an "):
        replay_case(tmp_path)


@pytest.mark.parametrize(
    ("linux", "hardware", "is_split"),
    [
        ("6.12.117", {"lab_qemu": "10.0.13"}, True),
        ("7.3.4", {"lab_qemu": "7.2.22"}, True),
        ("6.1.192", {"lab_qemu": "10.0.13"}, True),
        ("6.1.140", {"lab_qemu": "10.0.13"}, False),
        ("6.11.10", {"lab_qemu": "10.0.13"}, False),
        ("6.12.117", {"kvm": "kvm_amd"}, True),
        ("6.12.117", {"kvm": "kvm_intel"}, False),
        ("6.12.117", {}, False),
    ],
    ids=str,
)
def test_profile_of_kvm_on_svm_keeps_icr_and_icr2_apart(linux, hardware, is_split):
    """What the lab's TCG emulates is SVM."""
    case = cases.case(cases.LINUX, cases.ON)
    subject, _ = profile_of(manifest.describe(case, qemu="10.0.13", linux=linux, **hardware))

    assert subject.lapic.x2apic_icr_split is is_split


@pytest.mark.parametrize(("vmm", "counts"), [(Vmm.QEMU, False), (Vmm.PYCHIP, True)])
def test_profile_of_off_is_that_of_the_machine_that_ran_it(vmm, counts):
    case = manifest.describe(cases.case(cases.LINUX, cases.SPLIT), qemu="7.2.22", linux="6.1.192")
    subject, warnings = profile_of(replace(case, irqchip=Irqchip.OFF, vmm=vmm))

    assert (subject.cpu.nmi_counted, warnings) == (counts, ())
