from dataclasses import replace

import pytest

from harness.config.feasibility import LocalFacts, lab_accel, why_not
from harness.model.case import Accel, Host, Irqchip, LinuxGuest, Machine, Vmm
from support import cases
from userspace_chip.kvm.probe import KvmProbe

QEMU_7_2 = (7, 2, 22)
QEMU_10 = (10, 0, 2)
GOOD_KVM = KvmProbe("/dev/kvm", None, 12, irqchip_errors={"on": None, "split": None})
FAST = LocalFacts(GOOD_KVM, 1e9)


def test_preflight_off_on_qemu_8_and_later_says_which_qemu_would_do():
    why = why_not(cases.case(backend=cases.OFF), QEMU_10, None)
    assert "QEMU 10.0.2 refuses kernel-irqchip=off" in why
    assert "7.2 would do" in why


def test_preflight_off_on_qemu_7_2_can_run():
    assert why_not(cases.case(backend=cases.OFF), QEMU_7_2, None) is None


def test_preflight_off_with_two_cpus_says_why_it_would_hang():
    why = why_not(cases.case(backend=cases.OFF, smp=2), QEMU_7_2, None)
    assert "a SIPI stays pending" in why


def test_preflight_off_with_two_cpus_on_a_qemu_without_the_bug_can_run():
    assert why_not(cases.case(backend=cases.OFF, smp=2), (7, 2, 0), None) is None


def test_preflight_off_without_a_local_apic_can_run_on_every_qemu():
    case = cases.case(backend=cases.OFF, cpu="qemu64,-apic")
    assert why_not(case, QEMU_10, None) is None


@pytest.mark.parametrize("backend", [cases.ON, cases.SPLIT, cases.TCG])
def test_preflight_other_modes_can_run_on_every_qemu(backend):
    assert why_not(cases.case(backend=backend), QEMU_10, None) is None


def test_preflight_local_kvm_that_is_not_there_says_why():
    broken = LocalFacts(KvmProbe("/dev/kvm", "cannot open /dev/kvm: No such file"), None)
    why = why_not(cases.case(backend=cases.LOCAL_ON), QEMU_7_2, broken)
    assert "cannot open /dev/kvm" in why


def test_preflight_local_kvm_without_the_mode_says_so():
    probe = replace(GOOD_KVM, irqchip_errors={"on": "KVM_CREATE_IRQCHIP: EINVAL", "split": None})
    why = why_not(cases.case(backend=cases.LOCAL_ON), QEMU_7_2, LocalFacts(probe, None))
    assert "KVM_CREATE_IRQCHIP: EINVAL" in why


@pytest.mark.parametrize("cpu", ["qemu64,hv-relaxed,hv-vapic", "qemu64,hv_vapic"])
def test_preflight_hyperv_on_a_local_kvm_without_it_says_so(cpu):
    case = replace(cases.case(backend=cases.LOCAL_ON), cpu=cpu)

    assert "has no Hyper-V interface" in why_not(case, QEMU_7_2, FAST)
    has_it = LocalFacts(replace(GOOD_KVM, caps={"HYPERV": 1}), 1e9)
    assert why_not(case, QEMU_7_2, has_it) is None


def test_preflight_linux_on_a_slow_local_kvm_belongs_in_the_lab():
    slow = LocalFacts(GOOD_KVM, 2e6)
    why = why_not(cases.case(cases.LINUX, cases.LOCAL_ON), QEMU_7_2, slow)
    assert "2.0 million guest instructions a second (measured)" in why
    assert "host: lab" in why


def test_preflight_linux_on_a_fast_local_kvm_can_run():
    assert why_not(cases.case(cases.LINUX, cases.LOCAL_ON), QEMU_7_2, FAST) is None


def test_preflight_flat_image_on_a_slow_local_kvm_can_run():
    slow = LocalFacts(GOOD_KVM, 2e6)
    assert why_not(cases.case(backend=cases.LOCAL_ON), QEMU_7_2, slow) is None


def test_preflight_linux_of_which_no_workload_can_run_says_why_of_each():
    guest = LinuxGuest(("ipi", "block-intx"))
    why = why_not(cases.case(guest, machine=Machine.MICROVM), QEMU_7_2, None)
    assert "ipi: needs 2 CPUs" in why
    assert "block-intx: microvm has no PCI bus" in why


def test_preflight_linux_of_which_one_workload_can_run_can_run():
    guest = LinuxGuest(("ipi", "idle"))
    assert why_not(cases.case(guest), QEMU_7_2, None) is None


@pytest.mark.parametrize(
    ("changes", "accel"),
    [
        ({"nested": True, "cpu_flag": "svm"}, Accel.KVM),
        ({"nested": False, "cpu_flag": "svm"}, Accel.TCG),
        ({"nested": True, "cpu_flag": None}, Accel.TCG),
        ({"nested": None, "cpu_flag": "vmx"}, Accel.TCG),
        ({"nested": True, "cpu_flag": "svm", "error": "cannot be opened"}, Accel.TCG),
    ],
)
def test_lab_runs_on_the_local_kvm_only_where_that_can_nest(changes, accel):
    assert LocalFacts(replace(GOOD_KVM, **changes), None).lab_accel is accel


@pytest.mark.parametrize("backend", [cases.ON, cases.LOCAL_ON])
def test_preflight_deterministic_is_for_tcg_alone(backend):
    case = cases.case(backend=backend, deterministic=True)
    assert "--deterministic is for TCG" in why_not(case, QEMU_7_2, FAST)
    assert why_not(replace(case, backend=cases.TCG), QEMU_7_2, None) is None


def test_preflight_deterministic_guest_that_moves_says_why_not():
    guest = LinuxGuest(("idle",), migrate=True)
    why = why_not(cases.case(guest, cases.TCG, deterministic=True), QEMU_10, None)
    assert "from outside the guest" in why


LIVE_OFF = replace(cases.OFF, vmm=Vmm.PYCHIP)


def test_preflight_live_chips_need_no_qemu_that_has_their_mode():
    case = cases.case(cases.FLAT, LIVE_OFF, smp=4)
    assert why_not(case, QEMU_10, None) is None
    assert why_not(case, QEMU_7_2, None) is None


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"guest": LinuxGuest(("idle", "block-msix"))}, "not have the devices of block-msix"),
        ({"guest": LinuxGuest(("idle",), migrate=True)}, "does not have saved states"),
        ({"machine": Machine.MICROVM}, "those of pc and q35, not of microvm"),
        ({"smp": 9}, "at most 8 CPUs"),
        ({"devices": ("virtio-rng-pci",)}, "has no virtio-rng-pci"),
        ({"options": ("-rtc driftfix=slew",)}, "has no -rtc driftfix=slew"),
        ({"cpu": "qemu64,-apic"}, "not qemu64,-apic"),
    ],
)
def test_preflight_what_the_machine_of_the_live_chips_lacks_is_said(changes, why):
    case = replace(cases.case(cases.FLAT, LIVE_OFF), **changes)
    assert why in why_not(case, QEMU_10, None)


def test_preflight_live_chips_run_linux_that_needs_no_device():
    assert why_not(cases.case(cases.LINUX, LIVE_OFF), QEMU_10, None) is None


def test_preflight_live_chips_on_a_local_kvm_without_their_mode_say_so():
    probe = replace(GOOD_KVM, irqchip_errors={"on": None, "split": "no KVM_CAP_SPLIT_IRQCHIP"})
    backend = replace(LIVE_OFF, host=Host.LOCAL, irqchip=Irqchip.SPLIT, kernel=None)
    why = why_not(cases.case(cases.FLAT, backend), QEMU_10, LocalFacts(probe, None))
    assert "no KVM_CAP_SPLIT_IRQCHIP" in why


def test_lab_is_run_by_tcg_where_coverage_is_recorded_even_on_a_kvm_that_nests():
    nests = LocalFacts(replace(GOOD_KVM, nested=True), None)

    assert lab_accel(nests) is nests.lab_accel
    assert lab_accel(nests, coverage=True) is Accel.TCG
