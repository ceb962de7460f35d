"""Subjects as they are written, and the chips that they mean."""

import pytest

from harness.base.errors import ConfigError
from harness.config import lanes
from harness.model.case import Accel, Backend, Host, Irqchip, Vmm
from harness.repro import bench
from userspace_chip.profile import profile

OLDEST, STABLE = lanes.named("oldest"), lanes.named("stable")


@pytest.mark.parametrize(
    ("text", "backend"),
    [
        ("split", Backend(Host.LAB, Accel.KVM, Irqchip.SPLIT, kernel="default")),
        ("lab:on,kernel=6.12", Backend(Host.LAB, Accel.KVM, Irqchip.ON, kernel="6.12")),
        ("local:on", Backend(Host.LOCAL, Accel.KVM, Irqchip.ON)),
        ("tcg,qemu=10.0", Backend(Host.LOCAL, Accel.TCG, Irqchip.TCG, "10.0")),
        ("local:pychip-off", Backend(Host.LOCAL, Accel.KVM, Irqchip.OFF, vmm=Vmm.PYCHIP)),
        (
            "pychip-split,kernel=6.12",
            Backend(Host.LAB, Accel.KVM, Irqchip.SPLIT, kernel="6.12", vmm=Vmm.PYCHIP),
        ),
        (
            "split,kernel=oldest,qemu=stable",
            Backend(Host.LAB, Accel.KVM, Irqchip.SPLIT, STABLE.qemu, OLDEST.kernel),
        ),
    ],
)
def test_side_of_a_backend_is_the_one_of_a_case(text, backend):
    assert bench.parse(text).backend == backend


@pytest.mark.parametrize(
    ("text", "chips"),
    [
        ("model:split,kernel=6.1", profile("split", linux="6.1")),
        ("model:off", profile("off")),
        ("model:tcg,qemu=7.2", profile("tcg", qemu="7.2")),
    ],
)
def test_side_of_a_model_is_its_profile(text, chips):
    assert bench.chips(bench.parse(text)).profile == chips


@pytest.mark.parametrize(
    "text", ["split", "lab:on,kernel=6.12", "local:tcg,qemu=10.0", "local:pychip-split"]
)
def test_side_as_text_means_the_same_side(text):
    side = bench.parse(text)

    assert bench.parse(str(side)) == side


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("spilt", "did you mean 'split'?"),
        ("labb:split", "did you mean 'lab'?"),
        ("split,kernal=6.1", "did you mean 'kernel'?"),
        ("split,kernel", "expected kernel=V or qemu=V"),
        ("lab:tcg", "TCG in a lab is not a backend"),
        ("model:pychip-off", "write model:off, or lab:pychip-off"),
        ("pychip-tcg", "did you mean"),
        ("local:on,kernel=6.1", "only a lab and a model of KVM have a kernel"),
        ("model:tcg,kernel=6.1", "only a lab and a model of KVM have a kernel"),
    ],
)
def test_side_that_means_nothing_is_refused_with_what_was_meant(text, message):
    with pytest.raises(ConfigError, match=message.replace("?", r"\?")):
        bench.parse(text)


def test_side_of_a_model_whose_version_is_not_modelled_is_refused_with_those_that_are():
    with pytest.raises(ConfigError, match=r"kernel 5.4 is not modelled.*6.1"):
        bench.chips(bench.parse("model:on,kernel=5.4"))
