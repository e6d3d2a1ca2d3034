"""The learning rate over the steps of a run."""

import pytest
from torch import nn

from repro.config import TrainingConfig
from repro.training.optimizer import make_optimizer
from repro.training.schedule import make_schedule


def test_learning_rate_rises_and_falls() -> None:
    settings = TrainingConfig(learning_rate=0.5, warmup=0.2, weight_decay=0.1, steps=10, batch_size=1)
    optimizer = make_optimizer(nn.Linear(1, 1), settings)
    schedule = make_schedule(optimizer, settings, 10)
    rates = []
    for _ in range(11):
        rates.append(schedule.get_last_lr()[0])
        optimizer.step()
        schedule.step()
    assert rates == pytest.approx([0.25, 0.5, *(0.5 * (10 - step) / 8 for step in range(2, 11))])
    assert rates[-1] == 0
