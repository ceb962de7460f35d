import ast
import inspect
from dataclasses import fields
from itertools import pairwise
from typing import get_args

import pytest

from userspace_chip.errors import ProfileError
from userspace_chip.knobs import (
    ApicBaseRules,
    DefaultRoutes,
    Group,
    LowestPriority,
    Model,
    PicWiring,
    RirrRule,
)
from userspace_chip.profile import (
    KNOBS,
    LINUX_VERSIONS,
    MODES,
    QEMU_VERSIONS,
    Profile,
    knob,
    profile,
    tune,
)

EXISTING = [
    (mode, qemu, linux)
    for mode in MODES
    for qemu in QEMU_VERSIONS
    for linux in LINUX_VERSIONS
    if mode != "off" or qemu == "7.2"
]


@pytest.mark.parametrize(("mode", "qemu", "linux"), EXISTING)
def test_profile_of_every_combination_has_a_value_for_every_knob(mode, qemu, linux):
    subject = profile(mode, qemu=qemu, linux=linux)
    values = [
        getattr(getattr(subject, group.name), field.name)
        for group in fields(Profile)
        if group.name not in ("mode", "qemu", "linux")
        for field in fields(getattr(subject, group.name))
    ]
    assert None not in values
    assert len(values) == len(KNOBS)


def test_knobs_all_name_their_source():
    assert [row.name for row in KNOBS if len(row.source) < 4] == []


def documented(kind):
    """The annotated names in a class's body that a docstring follows."""
    body = ast.parse(inspect.getsource(kind)).body[0].body
    return [
        field.target.id
        for field, text in pairwise(body)
        if isinstance(field, ast.AnnAssign)
        and isinstance(text, ast.Expr)
        and isinstance(text.value, ast.Constant)
    ]


@pytest.mark.parametrize("kind", get_args(Group), ids=lambda kind: kind.__name__)
def test_knob_says_what_it_does_where_it_is_declared(kind):
    assert documented(kind) == [field.name for field in fields(kind)]


def test_groups_are_those_of_a_profile():
    groups = {type(getattr(profile("on"), field.name)) for field in fields(Profile)}
    assert groups >= set(get_args(Group))


@pytest.mark.parametrize("qemu", ["10.0", "11.1"])
def test_profile_off_with_a_qemu_that_refuses_it_raises(qemu):
    with pytest.raises(ProfileError, match="does not support userspace APIC"):
        profile("off", qemu=qemu)


def test_profile_off_defaults_to_the_qemu_that_has_it():
    assert profile("off").qemu == "7.2"


def test_profile_unknown_version_raises():
    with pytest.raises(ProfileError, match="unknown mode or version"):
        profile("on", linux="5.10")


def test_profile_tcg_has_no_linux():
    assert profile("tcg").linux is None
    assert not profile("tcg").kvm_vcpu


# Section 12 of the behaviour reference: columns on, split Q7, split Q10, off Q7, tcg Q10.
TABLE = {
    "ioapic.version": (0x11, 0x20, 0x20, 0x20, 0x20),
    "ioapic.unmapped_read": (0xFFFFFFFF, 0, 0, 0, 0),
    "ioapic.window_sizes": ((1, 2, 4, 8), (4,), (4,), (4,), (4,)),
    "ioapic.edge_latch_when_masked": (True, False, False, False, False),
    "ioapic.rirr_set_rule": (RirrRule.NONZERO_RESULT, *[RirrRule.ALWAYS] * 4),
    "ioapic.service_all_pins": (False, True, True, True, True),
    "ioapic.eoi_requires_rte_level": (False, True, True, True, True),
    "ioapic.storm_reset_on_rte_write": (False, True, True, True, True),
    "ioapic.pin0_remap": (False, True, True, True, True),
    "ioapic.rtc_tracking": (True, False, False, False, False),
    "ioapic.extint_inta_at_parse": (False, True, True, True, True),
    "route.default_routes": (
        DefaultRoutes.QEMU_PC,
        DefaultRoutes.SPLIT_MSI,
        DefaultRoutes.SPLIT_MSI,
        DefaultRoutes.NONE,
        DefaultRoutes.NONE,
    ),
    "route.update_before_service": (False, False, True, False, False),
    "route.update_on_any_mmio": (False, True, False, False, False),
    "lapic.spiv_mask": (0x3FF, 0x3FF, 0x3FF, 0x1FF, 0x1FF),
    "lapic.directed_eoi": (False, True, True, False, False),
    "lapic.sw_disable_masks_lvt": (True, True, True, False, False),
    "lapic.accept_when_sw_disabled": (False, False, False, True, True),
    "lapic.spurious_possible": (False, False, False, True, True),
    "lapic.x2apic": (True, True, True, False, True),
    "lapic.tsc_deadline": (True, True, True, False, False),
    "lapic.timer_min_period_ns": (200_000, 200_000, 200_000, 0, 0),
    "lapic.apic_base_rules": (
        *[ApicBaseRules.KVM] * 3,
        ApicBaseRules.UNCHECKED,
        ApicBaseRules.QEMU_CHECKED,
    ),
    "delivery.lowest_priority": (
        *[LowestPriority.VECTOR_HASH] * 3,
        *[LowestPriority.FIRST_SLOT] * 2,
    ),
    "delivery.cluster15_broadcast": (False, False, False, False, True),
    "pic.model": (Model.KVM, *[Model.QEMU] * 4),
    "pic.ltim": (False, False, True, False, True),
    "pic.to_cpu": (
        PicWiring.LINT0_EXTINT,
        PicWiring.FIRST_CPU,
        PicWiring.FIRST_CPU,
        PicWiring.LINT0_ANY,
        PicWiring.LINT0_OR_FIRST_CPU,
    ),
    "pit.frequency_hz": (1193181, 1193182, 1193182, 1193182, 1193182),
    "eoi.needs_handled_bitmap": (True, True, True, False, False),
}
COLUMNS = [("on", None), ("split", "7.2"), ("split", "10.0"), ("off", "7.2"), ("tcg", "10.0")]


@pytest.mark.parametrize("name", TABLE)
def test_profile_knob_has_the_reference_value_in_every_column(name):
    group, field = name.split(".")
    found = tuple(getattr(getattr(profile(m, qemu=q), group), field) for m, q in COLUMNS)
    assert found == TABLE[name]


@pytest.mark.parametrize(
    ("name", "old", "new"),
    [
        ("pic.poll_sets_bit7", False, True),
        ("ioapic.resampler_on_unmask", False, True),
        ("delivery.map_strict", False, True),
        ("lapic.keeps_id_when_leaving_x2apic", True, False),
    ],
)
def test_profile_knob_changes_between_linux_6_1_and_6_12(name, old, new):
    row = knob(name)
    assert [row.value("on", "10.0", linux) for linux in LINUX_VERSIONS] == [old, new, new, new]


def test_profile_split_scan_of_6_1_lacks_pending_vectors():
    found = [profile("split", linux=v).eoi.scan_includes_pending for v in LINUX_VERSIONS]
    assert found == [False, True, True, True]


def test_tune_changes_one_knob_and_nothing_else():
    base = profile("split")
    tuned = tune(base, ioapic__version=0x11)
    assert tuned.ioapic.version == 0x11
    assert tune(tuned, ioapic__version=0x20) == base


def test_tune_of_an_unknown_knob_raises():
    with pytest.raises(ProfileError, match="no knob"):
        tune(profile("on"), lapic__apicvee=True)


def test_knob_of_an_unknown_name_raises():
    with pytest.raises(ProfileError, match="no knob"):
        knob("ioapic.colour")
