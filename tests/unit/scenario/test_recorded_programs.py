"""Programs that once showed a mistake of the chips, and what a real irqchip logged of each."""

import pytest

from harness.scenario.predict import predict
from support.recorded_programs import recorded

RECORDED = recorded()


def test_recorded_programs_are_found():
    assert len(RECORDED) >= 5


@pytest.mark.parametrize("case", RECORDED, ids=lambda case: case.program.name)
def test_recorded_program_logs_on_the_chips_what_the_backend_logged(case):
    log = predict(case.program, case.subject, cpus=case.cpus)

    assert tuple(str(event) for event in log.events) == case.log
