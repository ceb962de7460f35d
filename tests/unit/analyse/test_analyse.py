"""What a recording says: the same anywhere, and nothing is written."""

import pytest

from harness.analyse.analyse import analyse
from harness.model import manifest
from harness.model.case import LinuxGuest
from support import cases

LINE = "kvm_set_irq: gsi 4 level 1 source 0"


def events_of(folder, **changes):
    """The events of a boot with one line in its kernel trace, at 50 s of the trace's clock."""
    case = cases.case(LinuxGuest(("idle",)), cases.LOCAL_ON)
    trace = cases.kernel_trace(folder / "kernel.trace", [(50.0, LINE)])
    recording = cases.recording(folder, case, kernel_trace=trace, **changes)
    found = []
    analyse(recording, manifest.describe(case, qemu="7.2.22", linux="6.1.192"), found.extend)
    return found


@pytest.mark.parametrize(("offset_ns", "time_ns"), [(0, 50 * 10**9), (37 * 10**9, 13 * 10**9)])
def test_trace_is_on_the_clock_of_the_machine_that_recorded(tmp_path, offset_ns, time_ns):
    (event,) = events_of(tmp_path, trace_clock_offset_ns=offset_ns)
    assert (event.time_ns, event.name) == (time_ns, "kvm_set_irq")


def test_analysis_writes_nothing(tmp_path):
    events_of(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["kernel.trace"]
