"""Which worker can run which case, in the words of dask's resources."""

import dataclasses

import pytest

from harness.cluster import abilities
from harness.cluster.order import Pins
from harness.cluster.roster import Roster
from harness.config.config import Lab
from harness.config.feasibility import LocalFacts
from harness.model.case import Accel, Backend, Host, Irqchip
from support import cases
from userspace_chip.kvm.probe import KvmProbe

PINS = Pins({"system": "7.2.22"}, {"default": "6.1.192"})
IN_LAB = cases.case(backend=cases.ON)
LOCAL_KVM = cases.case(backend=Backend(Host.LOCAL, Accel.KVM, Irqchip.SPLIT))
IMAGES = {abilities.VERSION: 2.0, "QEMU 7.2.22": 2.0, "Linux 6.1.192": 2.0}


def roster(**workers):
    listed = {
        name: {"name": name, "nthreads": 2, "resources": has} for name, has in workers.items()
    }
    return Roster.of({"workers": listed})


def needed(case, host=None):
    return abilities.needed(case, Lab(), PINS, host)


def test_case_in_a_lab_needs_images_and_memory_and_no_kvm():
    small, large = IMAGES | {abilities.MEMORY: 1000.0}, IMAGES | {abilities.MEMORY: 9000.0}
    needs = needed(IN_LAB)
    assert not roster(small=small).can(needs)
    assert roster(small=small, large=large).can(needs)
    assert roster(unknown=IMAGES).can(needs)


def test_case_on_a_kvm_needs_its_mode_and_the_kernel_of_the_others():
    kvm = IMAGES | {"KVM irqchip split": 2.0, "host Linux 6.1.0": 2.0}
    found = roster(a=kvm, b=kvm, c=IMAGES | {"KVM irqchip split": 2.0, "host Linux 6.9": 2.0})
    host = found.most_common(abilities.HOST)
    assert host == "6.1.0"
    assert found.can(needed(LOCAL_KVM, host))
    nested = dataclasses.replace(LOCAL_KVM, cpu="qemu64,+svm")
    assert "svm" in needed(nested, host)
    assert not found.can(needed(nested, host))


def test_worker_of_another_version_or_program_is_refused_with_the_reason():
    good = roster(old={"irqmatrix 0.0.1": 2.0}, good=IMAGES).ours
    assert [one.name for one in good] == ["good"]
    old = roster(old={"irqmatrix 0.0.1": 1.0, "QEMU 7.2.22": 1.0, "Linux 6.1.192": 1.0})
    assert not old.can(needed(IN_LAB))
    (text,) = old.refused
    assert text == f"worker old is not used: it is irqmatrix 0.0.1, and this {abilities.VERSION}"
    (other,) = roster(other={"GPU": 1.0}).refused
    assert "not a worker of irqmatrix" in other


def test_roster_says_what_each_worker_lacks():
    needs = needed(IN_LAB)
    found = roster(a={abilities.VERSION: 1.0, "QEMU 7.2.22": 1.0}, b={abilities.VERSION: 1.0})
    assert found.why_not(needs) == "a lacks Linux 6.1.192; b lacks QEMU 7.2.22, Linux 6.1.192"


class Images:
    def qemus(self):
        return ()

    def kernel_versions(self):
        return ("6.1.192",)


@pytest.mark.parametrize(
    ("probe", "has", "has_not"),
    [
        (KvmProbe("/dev/kvm", "it is not there"), set(), {"KVM irqchip on", "svm", "fast KVM"}),
        (
            KvmProbe(
                "/dev/kvm",
                None,
                irqchip_errors={"on": None, "split": "no"},
                nested=True,
                cpu_flag="svm",
            ),
            {"KVM irqchip on", "KVM irqchip off", "svm", "nested", "fast KVM"},
            {"KVM irqchip split", "vmx"},
        ),
    ],
)
def test_worker_announces_what_its_kvm_can(probe, has, has_not):
    found = abilities.announced(Images(), LocalFacts(probe, 1e9), 3, 5000)
    assert found["Linux 6.1.192"] == 3
    assert found[abilities.MEMORY] == 5000
    assert has <= found.keys()
    assert not has_not & found.keys()
