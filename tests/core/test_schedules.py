"""Schedules: closed values, the value after the end, and torch's own schedulers."""

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from kramers_grok.core.exceptions import InvalidParameterError
from kramers_grok.core.schedules import Constant, Cosine, Geometric, Linear, Piecewise, Schedule, WarmRestarts

STEPS = np.arange(60)
ALL: list[Schedule] = [
    Constant(0.3),
    Linear(1.0, 0.2, 40),
    Geometric(1.0, 0.01, 40),
    Piecewise((1.0, 0.5, 0.1), (10, 30)),
    Cosine(1.0, 0.1, 40),
    WarmRestarts(1.0, 0.1, 10),
    WarmRestarts(1.0, 0.1, 4, growth=2),
]
each = pytest.mark.parametrize("schedule", ALL, ids=repr)


def torch_rates(make: Any) -> Any:
    """Learning rates of a torch scheduler from 1, step by step."""
    optimizer = torch.optim.SGD([torch.zeros(1)], lr=1.0)
    scheduler, rates = make(optimizer), []
    for _ in STEPS:
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()
    return np.array(rates)


LR = torch.optim.lr_scheduler


@pytest.mark.parametrize(
    ("schedule", "make"),
    [
        (WarmRestarts(1.0, 0.1, 10), lambda o: LR.CosineAnnealingWarmRestarts(o, T_0=10, eta_min=0.1)),
        (WarmRestarts(1.0, 0.1, 4, 2), lambda o: LR.CosineAnnealingWarmRestarts(o, T_0=4, T_mult=2, eta_min=0.1)),
        (Linear(1.0, 0.2, 40), lambda o: LR.LinearLR(o, 1.0, 0.2, total_iters=40)),
        (Piecewise((1.0, 0.1, 0.01), (10, 30)), lambda o: LR.MultiStepLR(o, milestones=[10, 40], gamma=0.1)),
        (Geometric(1.0, 0.9**60, 60), lambda o: LR.ExponentialLR(o, 0.9)),
    ],
)  # fmt: skip
def test_equal_to_torch(schedule: Schedule, make: Any) -> None:
    np.testing.assert_allclose(schedule(STEPS), torch_rates(make), rtol=1e-12)


def test_cosine_until_its_end() -> None:
    """Torch's goes up again after its end; here the last value holds."""
    rates = torch_rates(lambda o: LR.CosineAnnealingLR(o, T_max=40, eta_min=0.1))
    np.testing.assert_allclose(Cosine(1.0, 0.1, 40)(STEPS[:41]), rates[:41], rtol=1e-12)
    np.testing.assert_allclose(Cosine(1.0, 0.1, 40)(STEPS[40:]), 0.1, rtol=1e-12)


@each
def test_one_value_for_each_step_whatever_is_asked_together(schedule: Schedule) -> None:
    values = schedule(STEPS)
    assert values.dtype == np.float64
    assert values.shape == STEPS.shape
    np.testing.assert_array_equal(schedule(STEPS.reshape(6, 10)), values.reshape(6, 10))
    np.testing.assert_array_equal([float(schedule(int(s))) for s in STEPS], values)
    for size in range(1, 9):  # to the bit: a path must not depend on how a run is cut into calls
        parts = [schedule(STEPS[i : i + size]) for i in range(0, len(STEPS), size)]
        np.testing.assert_array_equal(np.concatenate(parts), values)
    assert isinstance(schedule, Schedule)
    assert schedule == type(schedule)(**vars(schedule))


@given(st.integers(1, 50), st.integers(1, 4), st.integers(0, 10**6))
def test_restarts_never_leave_their_range(period: int, growth: int, step: int) -> None:
    value = float(WarmRestarts(2.0, 0.5, period, growth)(step))
    assert 0.5 <= value <= 2.0
    assert float(WarmRestarts(2.0, 0.5, period, growth)(period)) == 2.0


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Constant(np.nan), "`value` = nan"),
        (lambda: Linear(1.0, np.inf, 3), "`stop` = inf"),
        (lambda: Cosine(1.0, 0.0, 0), "`n_steps` = 0, expected an integer >= 1"),
        (lambda: Geometric(1.0, 0.0, 3), r"`stop` = 0.0.*never reaches 0.\nUse `Linear`"),
        (lambda: Geometric(-1.0, 1.0, 3), "`start` = -1.0"),
        (lambda: Piecewise((1.0, 2.0), ()), r"0 length\(s\) for 2 value\(s\)"),
        (lambda: Piecewise((), ()), r"0 value\(s\)"),
        (lambda: Piecewise((1.0, 2.0), (0,)), "`n_steps` = 0"),
        (lambda: WarmRestarts(1.0, 0.0, 2.5), "`period` = 2.5"),
        (lambda: WarmRestarts(1.0, 0.0, 2, growth=0), "`growth` = 0"),
    ],
)
def test_refusals(make: Any, message: str) -> None:
    with pytest.raises(InvalidParameterError, match=message):
        make()
