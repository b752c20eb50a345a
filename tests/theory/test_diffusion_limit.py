"""SGD over its diffusion limit: the known factor, its parts, and where the limit may be trusted."""

import numpy as np
import pytest

from kramers_grok.core.exceptions import InvalidParameterError, NoBarrierError
from kramers_grok.theory.deep_linear import Mode
from kramers_grok.theory.diffusion_limit import diffusion_limit_departure, trusted_lr_over_batch
from kramers_grok.theory.large_deviations import forgetting_actions

MODE = Mode(depth=3, singular_value=1.0, weight_decay=0.44)
RATIO = 0.1 / 16


def test_the_known_factor() -> None:
    """1.408 from the quasi-potential alone; 1.41 exactly, which runs of SGD found as 1.394 ± 0.036."""
    departure = diffusion_limit_departure(MODE, label_noise=0.5, lr_over_batch=RATIO, batch_size=16)
    assert departure.exponential == pytest.approx(1.4082, abs=1e-4)
    assert departure.exponential == pytest.approx(forgetting_actions(MODE, label_noise=0.5).departure(RATIO), rel=1e-9)
    assert departure.exact == pytest.approx(1.41057, abs=1e-4)
    assert departure.exact == departure.sgd_time / departure.diffusion_time
    assert abs(departure.exact - 1.394) < 3 * 0.036
    assert departure.asymptotic == pytest.approx(departure.exact, rel=0.02)
    assert departure.action_over_ratio == pytest.approx(4.9319, abs=1e-3)


def test_without_the_exact_times() -> None:
    departure = diffusion_limit_departure(MODE, label_noise=0.5, lr_over_batch=RATIO, exact=False)
    assert np.isnan([departure.exact, departure.sgd_time, departure.diffusion_time]).all()
    assert departure.asymptotic > 1.4


def test_weak_noise_makes_it_worse() -> None:
    """At half the noise the exponential part is squared."""
    one, half = (diffusion_limit_departure(MODE, label_noise=0.5, lr_over_batch=RATIO / k, exact=False) for k in (1, 2))
    assert half.exponential == pytest.approx(one.exponential**2, rel=1e-12)
    assert half.asymptotic > 1.3 * one.asymptotic


@pytest.mark.parametrize("tolerance", [0.1, 0.5, 2.0])
def test_trusted_from_there_on(tolerance: float) -> None:
    ratio = trusted_lr_over_batch(MODE, label_noise=0.5, tolerance=tolerance)
    at = diffusion_limit_departure(MODE, label_noise=0.5, lr_over_batch=ratio, exact=False)
    assert at.asymptotic == pytest.approx(1 + tolerance, rel=1e-9)


def test_never_trusted_where_prefactors_differ_by_more() -> None:
    assert trusted_lr_over_batch(MODE, label_noise=0.5, tolerance=1e-3) == np.inf


def test_label_noise_makes_the_limit_better() -> None:
    """Strong label noise makes the per-sample gradient's noise larger beside its mean: nearer to a diffusion."""
    parts = []
    for noise in (0.25, 1.0):
        departure = diffusion_limit_departure(MODE, label_noise=noise, lr_over_batch=RATIO, exact=False)
        parts.append(np.log(departure.exponential) / departure.action_over_ratio)
    assert parts[1] < 0.8 * parts[0]


def test_what_is_refused() -> None:
    for wrong in ({"label_noise": 0.0}, {"lr_over_batch": 0.0}, {"batch_size": 0}):
        with pytest.raises(InvalidParameterError, match=next(iter(wrong))):
            diffusion_limit_departure(MODE, **{"label_noise": 0.5, "lr_over_batch": 0.01} | wrong)  # type: ignore[arg-type]
    with pytest.raises(InvalidParameterError, match="tolerance"):
        trusted_lr_over_batch(MODE, label_noise=0.5, tolerance=0.0)
    with pytest.raises(NoBarrierError):
        diffusion_limit_departure(Mode(3, 1.0, 0.6), label_noise=0.5, lr_over_batch=0.01, exact=False)
