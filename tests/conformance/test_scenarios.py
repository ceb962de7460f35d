"""Every shipped scenario on the irqchips of ``--irqchip`` (default: TCG), as the model predicts."""

from __future__ import annotations

import pytest


@pytest.mark.live
@pytest.mark.irqchip_scenarios("configs/scenarios/*.yaml")
def test_scenario_on_a_real_irqchip_logs_what_the_model_predicts(irqchip_result):
    irqchip_result.check()
