"""Noisy activations: penalty and gradient covariance against closed forms, autograd and samples.

The samples are drawn with numpy and passed through the network by torch's autograd; formulas share nothing with them.
Statistical tests at 1e-5 each.
"""

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from scipy import stats

from kramers_grok.core.exceptions import InvalidParameterError
from kramers_grok.theory.activation_noise import (
    activation_penalty,
    activation_penalty_gradient,
    chain_gradient_covariance,
    data_gradient_variance,
    gaussian_gradient_covariance,
)
from kramers_grok.theory.deep_linear import DeepLinearChain
from kramers_grok.theory.gradient_noise import GaussianResidualVariance, gradient_covariance

Array = NDArray[np.float64]
ALPHA, N = 1e-5, 40_000
RNG = np.random.default_rng(2)
SHAPES = [(4, 3), (2, 4), (2, 2)]
LAYERS = [RNG.normal(size=s) * 0.6 for s in SHAPES]
DIRECTIONS = [RNG.normal(size=(3, *s)) for s in SHAPES]
TEACHER = RNG.normal(size=(2, 3))
ROOT = RNG.normal(size=(3, 3)) * 0.7
STD, LABEL = 0.4, 1.5


def sampled_gradients(x: Array, y: Array, std: float, seed: int = 1) -> list[torch.Tensor]:
    """Per-sample gradients of every layer, (sample, h_l, h_{l−1}), through activations with noise of their own."""
    rng = np.random.default_rng(seed)
    weights = [torch.from_numpy(w).expand(len(x), -1, -1).clone().requires_grad_(True) for w in LAYERS]
    h = torch.from_numpy(x).unsqueeze(2)
    for weight in weights[:-1]:
        h = weight @ h
        h = h + torch.from_numpy(std * rng.normal(size=tuple(h.shape)))
    loss = 0.5 * (weights[-1] @ h - torch.from_numpy(y).unsqueeze(2)).square().sum()
    return list(torch.autograd.grad(loss, weights))


def components(gradients: list[torch.Tensor]) -> Array:
    """Along the directions, (sample, direction)."""
    parts = [np.einsum("nij,aij->na", g.numpy(), d) for g, d in zip(gradients, DIRECTIONS, strict=True)]
    return np.asarray(sum(parts))


def gaussian_samples(n: int = N) -> tuple[Array, Array]:
    rng = np.random.default_rng(3)
    x = rng.normal(size=(n, 3)) @ ROOT.T
    return x, x @ TEACHER.T + LABEL * rng.normal(size=(n, 2))


def formula(variance: float = STD**2, label_noise: float = LABEL) -> Array:
    return gaussian_gradient_covariance(
        LAYERS, DIRECTIONS, teacher_matrix=TEACHER, input_covariance=ROOT @ ROOT.T, label_noise=label_noise,
        variance=variance,
    )  # fmt: skip


def worst_z(values: Array, expected: Array) -> float:
    """Largest distance of the covariances of `values` (sample, direction) from `expected`, in standard errors."""
    gap = values - values.mean(axis=0)
    products = gap[:, :, None] * gap[:, None, :]
    return float(np.abs((products.mean(axis=0) - expected) / (products.std(axis=0) / len(values) ** 0.5)).max())


def test_the_penaltys_gradient_is_its_derivative() -> None:
    """By autograd of ½ s_h² Σ ‖W_D … W_{l+1}‖²."""
    weights = [torch.from_numpy(w).requires_grad_(True) for w in LAYERS]
    _, w2, w3 = weights
    penalty = 0.5 * STD**2 * (w3.square().sum() + (w3 @ w2).square().sum())
    penalty.backward()  # type: ignore[no-untyped-call]
    assert activation_penalty(LAYERS, STD**2) == pytest.approx(penalty.item(), rel=1e-13)
    for ours, weight in zip(activation_penalty_gradient(LAYERS, STD**2), weights, strict=True):
        expected = np.zeros(ours.shape) if weight.grad is None else weight.grad.numpy()
        np.testing.assert_allclose(ours, expected, rtol=1e-12, atol=1e-15)


def test_the_mean_gradient_is_that_of_the_penalised_loss() -> None:
    """40 000 samples of one fixed (x, y) each; a penalty half or twice as large is seen."""
    x, y = (np.repeat(a, N, axis=0) for a in gaussian_samples(1))
    noisy = sampled_gradients(x, y, STD)
    clean = sampled_gradients(x[:1], y[:1], 0.0)
    limit = stats.norm.isf(ALPHA / sum(w.size for w in LAYERS))
    for factor, passes in ((1.0, True), (0.5, False), (2.0, False)):
        worst = 0.0
        for g, g0, extra in zip(noisy, clean, activation_penalty_gradient(LAYERS, STD**2), strict=True):
            error = g.numpy().std(axis=0) / N**0.5
            worst = max(worst, float(np.abs((g.numpy().mean(axis=0) - g0[0].numpy() - factor * extra) / error).max()))
        assert (worst < limit) == passes, (factor, worst)


def test_covariance_is_that_of_many_samples() -> None:
    """Variances are known to about 1 %; activation noise of half its variance more, or no noise of a kind, is seen."""
    values = components(sampled_gradients(*gaussian_samples(), STD))
    limit = stats.norm.isf(ALPHA / 12)
    assert worst_z(values, formula()) < limit
    for wrong in (formula(variance=1.5 * STD**2), formula(variance=0.0), formula(label_noise=0.0)):
        assert worst_z(values, wrong) > limit


def test_a_data_sets_variance() -> None:
    """Each of 25 samples 4 000 times; the two parts apart."""
    x, y = gaussian_samples(25)
    between, within = data_gradient_variance(LAYERS, DIRECTIONS, x, y, variance=STD**2)
    repeated = components(sampled_gradients(np.repeat(x, 4000, axis=0), np.repeat(y, 4000, axis=0), STD))
    groups = repeated.reshape(25, 4000, 3)
    own = groups.var(axis=1, ddof=1)
    error = (groups - groups.mean(axis=1, keepdims=True)).__pow__(2).std(axis=1) / 4000**0.5
    z = (own.mean(axis=0) - within) / (np.sqrt((error**2).sum(axis=0)) / 25)
    assert np.abs(z).max() < stats.norm.isf(ALPHA / 6)
    # A sample's mean gradient is the clean one plus the penalty's, the same for all
    clean = components(sampled_gradients(x, y, 0.0))
    np.testing.assert_allclose(between, clean.var(axis=0), rtol=1e-12)
    quiet = data_gradient_variance(LAYERS, DIRECTIONS, x, y, variance=0.0)
    np.testing.assert_allclose(quiet[0], between, rtol=1e-12)
    assert (quiet[1] == 0).all()
    assert (within > 0).all()


def test_the_chain() -> None:
    """Without noise c(m) v vᵀ; at zero weights the top layer alone, with s_h² E y²."""
    chain = DeepLinearChain(3, 1.3, 0.1, 0.8)
    a = np.array([0.9, 0.5, 1.2])
    expected = gradient_covariance(a, GaussianResidualVariance(1.3, 0.8, LABEL))
    np.testing.assert_allclose(chain_gradient_covariance(chain, a, label_noise=LABEL), expected, rtol=1e-12)
    at_zero = chain_gradient_covariance(chain, np.zeros(3), label_noise=LABEL, variance=STD**2)
    np.testing.assert_allclose(at_zero, np.diag([0, 0, STD**2 * (0.8 * 1.3**2 + LABEL**2)]), atol=1e-15)
    # By hand for D = 2: gradients (a₂ e x, e (a₁ x + n)), e = (m − σ) x + a₂ n − s ν
    two = DeepLinearChain(2, 1.0, 0.1)
    a1, a2, v = 0.7, 0.6, 0.09
    gap = a1 * a2 - 1.0
    found = chain_gradient_covariance(two, [a1, a2], label_noise=0.5, variance=v)
    # Var of the products of jointly normal numbers: Var(e x) = Var e Var x + Cov², and so on
    var_e, cov_ex, var_h, cov_eh = gap**2 + a2**2 * v + 0.25, gap, a1**2 + v, gap * a1 + a2 * v
    np.testing.assert_allclose(found[0, 0], a2**2 * (var_e + cov_ex**2), rtol=1e-12)
    np.testing.assert_allclose(found[1, 1], var_e * var_h + cov_eh**2, rtol=1e-12)
    np.testing.assert_allclose(found[0, 1], a2 * (var_e * a1 + cov_eh * cov_ex), rtol=1e-12)


def test_refusals() -> None:
    with pytest.raises(InvalidParameterError, match=r"`layers` have shapes \(4, 3\), \(2, 2\)"):
        activation_penalty([LAYERS[0], LAYERS[2]], 0.1)
    with pytest.raises(InvalidParameterError, match="`variance` = -1"):
        activation_penalty(LAYERS, -1.0)
    with pytest.raises(InvalidParameterError, match="`directions`"):
        data_gradient_variance(LAYERS, DIRECTIONS[:2], *gaussian_samples(2), variance=0.1)
    with pytest.raises(InvalidParameterError, match="`x, y`"):
        data_gradient_variance(LAYERS, DIRECTIONS, *gaussian_samples(2)[::-1], variance=0.1)
    with pytest.raises(InvalidParameterError, match="`teacher_matrix`"):
        gaussian_gradient_covariance(LAYERS, DIRECTIONS, teacher_matrix=TEACHER.T, input_covariance=np.eye(3))
    with pytest.raises(InvalidParameterError, match="`weights`"):
        chain_gradient_covariance(DeepLinearChain(3, 1.0, 0.1), [1.0])
