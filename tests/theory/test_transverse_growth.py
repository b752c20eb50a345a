"""Estimates of the growth of unused directions; simulations of the same are in the chapter and in test_growth."""

import numpy as np
import pytest
from scipy import special

from kramers_grok.core.exceptions import InvalidParameterError, NoBarrierError
from kramers_grok.theory.deep_linear import Mode
from kramers_grok.theory.transverse_growth import (
    NoisyBackground,
    frozen_growth_rate,
    mean_square_factor,
    noisy_background,
    transverse_growth_rate,
)


def test_mean_square_factor_against_drawn_batches() -> None:
    rng = np.random.default_rng(0)
    lr, size, decay, gain, d, q = 0.2, 3, 0.1, 1.3, 6, 0.8
    x = np.sqrt(q) * rng.normal(size=(20_000, size, d))
    e = np.eye(d)[2]
    moved = (1 - lr * decay) * e - lr * gain * np.einsum("nbi,nb->ni", x, x @ e) / size
    squares = np.square(moved).sum(axis=1)
    expected = mean_square_factor(lr, size, decay, gain, n_inputs=d, input_variance=q)
    error = squares.std() / len(squares) ** 0.5
    assert abs(squares.mean() - expected) < 4.5 * error
    # Negative control: one sample more, or the inputs' number forgotten, is seen
    for wrong in (
        mean_square_factor(lr, size, decay, gain, n_inputs=d + 1, input_variance=q),
        (1 - lr * gain * q) ** 2,
    ):
        assert abs(squares.mean() - wrong) > 4.5 * error


@pytest.mark.parametrize(("size", "unstable"), [(2, 2.57), (3, 1.73), (4, 1.31), (8, 0.68)])
def test_mean_square_threshold(size: int, unstable: float) -> None:
    """ε a⁴ (d + B + 1) against 2, at 100 inputs; the numbers are known from elsewhere."""
    a = Mode(3, 2.0, 0.02).learned_amplitude()
    number = 0.02 / size * a**4 * (100 + size + 1)
    assert number == pytest.approx(unstable, abs=0.01)
    assert (mean_square_factor(0.02, size, 0.0, a**4, n_inputs=100) > 1) == (number > 2)


def test_frozen_background() -> None:
    assert frozen_growth_rate(0.7, 2, 0.3) == -0.3
    ratio = special.gamma(0.75) / special.gamma(0.25)
    errors = [frozen_growth_rate(1.0, n, 0.0) / n**0.5 - ratio for n in (10**2, 10**4, 10**6)]
    assert np.abs(errors[2]) < 1e-3
    assert np.abs(errors[1] / errors[2]) == pytest.approx(10, rel=0.05)  # 1/√n
    assert frozen_growth_rate(2.0, 50, 0.1) + 0.1 == pytest.approx(2 * frozen_growth_rate(1.0, 50, 0.0), rel=1e-12)


def test_the_warning_is_wrong_in_sign() -> None:
    """33 inputs, λ = 0.01, ε = 0.0082: measured −0.016 and −0.018."""
    mode, task = Mode(3, 2.0, 0.01), {"label_noise": 1.0, "n_inputs": 33, "n_outputs": 33}
    background = noisy_background(mode, lr=4 * 0.0082, batch_size=4, **task)  # type: ignore[arg-type]
    rates = transverse_growth_rate(background, weight_decay=0.01, lr_over_batch=0.0082, **task)  # type: ignore[arg-type]
    np.testing.assert_allclose(rates, (-0.0160, -0.0182), rtol=0.15)
    np.testing.assert_allclose(background.norms, (2.06, 0.49, 1.88), rtol=0.12)  # as measured there
    assert frozen_growth_rate(0.0082 * background.squares[-1], 33, 0.01) > 0.03


@pytest.mark.parametrize("depth", [3, 4, 5])
def test_background_without_noise_is_the_learned_state(depth: int) -> None:
    mode = Mode(depth, 1.5, 0.05, input_variance=2.0)
    quiet = noisy_background(mode, lr=0.01, batch_size=4, label_noise=0.0, n_inputs=7, n_outputs=3)
    np.testing.assert_allclose(quiet.norms, mode.learned_amplitude(), rtol=1e-9)
    assert quiet.order_parameter == pytest.approx(mode.learned_amplitude() ** depth, rel=1e-9)
    assert quiet.disorder == (0.0, 0.0)
    assert len(quiet.norms) == depth


def test_noise_goes_where_the_inputs_are() -> None:
    mode = Mode(4, 2.0, 0.05)
    one = noisy_background(mode, lr=0.004, batch_size=1, label_noise=1.0, n_inputs=20, n_outputs=1)
    other = noisy_background(mode, lr=0.004, batch_size=1, label_noise=1.0, n_inputs=1, n_outputs=20)
    assert one.norms[0] > one.norms[-1] > 0
    assert other.norms[-1] > other.norms[0]
    assert one.disorder[0] > 0 == one.disorder[1]
    np.testing.assert_allclose(one.norms[1:3], one.norms[1])


def test_rates_of_both_outer_layers() -> None:
    state = NoisyBackground((4.0, 0.5, 3.0), (0.0, 0.0), 1.9, (0.9, 0.9))
    first, last = transverse_growth_rate(
        state, weight_decay=0.1, lr_over_batch=0.01, label_noise=2.0, n_inputs=30, n_outputs=5, input_variance=1.5
    )
    assert first == pytest.approx(-0.1 - 0.5 * 0.04 * 1.5 * 3.0 * (1 - 30 * 0.04 / 1.0), rel=1e-12)
    assert last == pytest.approx(-0.1 - 0.5 * 0.04 * 1.5 * 4.0 * (1 - 5 * 0.04 / 1.0), rel=1e-12)


def test_what_cannot_be_asked() -> None:
    task = {"lr": 0.01, "batch_size": 1, "label_noise": 1.0, "n_inputs": 5, "n_outputs": 5}
    with pytest.raises(InvalidParameterError, match="at least 3"):
        noisy_background(Mode(2, 2.0, 0.1), **task)  # type: ignore[arg-type]
    with pytest.raises(NoBarrierError, match="No state with a learned feature is left at"):
        noisy_background(Mode(3, 2.0, 0.1), **(task | {"lr": 1.0, "n_inputs": 100}))  # type: ignore[arg-type]
    with pytest.raises(InvalidParameterError, match="`n`"):
        frozen_growth_rate(1.0, 1, 0.1)
