import dataclasses
import json

import pytest

from harness.base.errors import StoreError
from harness.model import manifest
from harness.model.case import Irqchip, Machine
from harness.model.layout import CaseDir
from support import cases


def described(backend=cases.SPLIT):
    case = cases.case(cases.LINUX, backend, smp=2)
    return manifest.describe(case, qemu="7.2.22", linux="6.1.192")


def test_casefile_is_read_as_it_was_written(tmp_path):
    manifest.write(tmp_path, described())

    assert manifest.read(tmp_path) == described()


def test_casefile_tells_the_subject():
    found = described()

    assert (found.irqchip, found.machine, found.smp) == (Irqchip.SPLIT, Machine.Q35, 2)
    assert (found.qemu, found.linux) == ("7.2.22", "6.1.192")
    assert found.axes["accel"] == "kvm"


def test_casefile_tells_what_the_case_adds_and_the_labs_cpus():
    case = cases.case(cases.LINUX, cases.ON, devices=("edu",), options=("-machine hpet=off",))
    found = manifest.describe(case, qemu="7.2.22", linux="6.1.192", lab_cpus=2)

    assert (found.arguments, found.lab_cpus) == (("edu", "-machine hpet=off"), 2)


def test_casefile_under_tcg_has_no_kvm():
    assert described(cases.TCG).linux is None


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("{", "does not describe a case"),
        ("[]", "schema None"),
        (json.dumps({"schema": 99}), "schema 99"),
        (json.dumps({"schema": manifest.SCHEMA, "id": "x"}), "does not describe a case"),
    ],
    ids=["no-json", "no-object", "another-schema", "incomplete"],
)
def test_casefile_of_another_kind_is_refused(tmp_path, text, said):
    (tmp_path / CaseDir.manifest).write_text(text)
    with pytest.raises(StoreError, match=said):
        manifest.read(tmp_path)


def test_casefile_that_is_not_there_is_refused(tmp_path):
    with pytest.raises(StoreError, match="run it again"):
        manifest.read(tmp_path)


@pytest.mark.parametrize(
    ("guest", "group", "kind"),
    [(cases.LINUX, "", "linux"), (cases.LINUX, "repro-a-bug", "linux"), (cases.FLAT, "", "flat")],
    ids=["linux", "grouped", "flat"],
)
def test_casefile_of_schema_1_is_read_as_the_one_of_today(tmp_path, guest, group, kind):
    case = dataclasses.replace(cases.case(guest, cases.SPLIT, repeat=1), group=group)
    today = manifest.describe(case, qemu="7.2.22", linux="6.1.192")
    manifest.write(tmp_path, today)
    path = tmp_path / CaseDir.manifest
    old = json.loads(path.read_text()) | {"schema": 1}
    for name in ("kind", "guest", "subject", "backend", "group"):
        del old[name]
    path.write_text(json.dumps(old))

    assert manifest.read(tmp_path) == today
    assert today.kind == kind
