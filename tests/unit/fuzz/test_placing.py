"""On which further backends a finding is run."""

import pytest

from harness.fuzz.placing import Placer
from harness.repro.bench import parse
from support.model_bench import ModelBench

KERNELS = ("6.1.192-3", "6.12.117-1", "6.16.12-1", "6.18.15-1", "7.3.4-1")
SERIES = {"kernel": ("6.1", "6.12", "6.16", "6.18", "7.3"), "qemu": ("10.0", "11.1")}


class Images:
    """A cache with five kernels and two QEMUs, and a system QEMU 7.2."""

    def series(self, kind):
        return SERIES[kind]

    def qemu(self, name):
        text = {"system": "7.2"}.get(name, name)
        return type("Qemu", (), {"version": tuple(map(int, text.split(".")))})

    def kernel(self, name):
        series = {"default": "6.1"}.get(name, name)
        return type("Kernel", (), {"version": next(k for k in KERNELS if k.startswith(series))})


@pytest.fixture
def further(tmp_path):
    def of(*texts):
        placer = Placer(
            ModelBench(tmp_path),
            [parse(text) for text in texts],
            Images(),
            print,
        )
        return [str(side) for side in placer._further()]

    return of


def test_findings_of_tcg_run_on_every_qemu_and_in_no_lab(further):
    assert further("tcg") == ["local:tcg", "local:tcg,qemu=10.0", "local:tcg,qemu=11.1"]


def test_findings_of_a_lab_run_in_both_modes_and_under_tcg(further):
    found = further("lab:on")
    assert {"lab:on", "lab:split", "local:tcg"} <= set(found)


def test_findings_run_on_the_oldest_and_the_newest_kernels_that_were_not_named(further):
    kernels = {text.split("kernel=")[1] for text in further("lab:on") if "kernel=" in text}
    assert kernels == {"6.12", "6.18", "7.3"}  # the default one is 6.1


def test_sides_of_two_kernels_and_two_qemus_are_crossed(further):
    found = further("lab:on,kernel=6.1", "lab:on,kernel=6.12,qemu=10.0")
    pairs = [("6.1", ""), ("6.1", ",qemu=10.0"), ("6.12", ""), ("6.12", ",qemu=10.0")]
    assert {f"lab:split,kernel={kernel}{qemu}" for kernel, qemu in pairs} <= set(found)
    assert len(found) == len(set(found))
