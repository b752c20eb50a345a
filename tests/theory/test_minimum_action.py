"""Minimum-action paths against published actions, gradient systems, the mode, and the chain's exact exit times."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.optimize import fsolve

from kramers_grok.core.exceptions import InvalidParameterError, ValidityWarning
from kramers_grok.core.region import beyond
from kramers_grok.theory.action_cumulants import EmpiricalCumulants, GaussianCumulants
from kramers_grok.theory.action_line import ModeHamiltonian
from kramers_grok.theory.deep_linear import DeepLinearChain
from kramers_grok.theory.exit_times import MinibatchNoise, exit_time
from kramers_grok.theory.gradient_noise import GaussianResidualVariance
from kramers_grok.theory.large_deviations import quasi_potential
from kramers_grok.theory.minimum_action import ChainHamiltonian, DiffusionHamiltonian, minimum_action_path

Array = NDArray[np.float64]
GAUSSIAN = GaussianCumulants(1.0, label_noise=0.5)
CHAIN = DeepLinearChain(3, 1.0, 0.44)


def maier_stein(z: Array) -> Array:
    x, y = z.T
    return np.stack([x - x**3 - 10 * x * y**2, -(1 + x**2) * y], axis=1)


def fitzhugh_nagumo(z: Array) -> Array:
    x, y = z.T
    return np.stack([(x - x**3 - y) / 0.1, x - 3 * y], axis=1)


def test_maier_stein() -> None:
    """The straight path is stationary too, at 0.5: the search has to leave it."""
    found = minimum_action_path(DiffusionHamiltonian(maier_stein), [-1, 0], [0, 0], n_segments=64)
    assert found.converged
    assert found.action == pytest.approx(0.3400414, abs=1e-6)
    assert abs(found.path[:, 1]).max() > 0.1
    assert found.segment_action.sum() == pytest.approx(found.action, abs=2 * found.error)
    drift = maier_stein(0.5 * (found.path[1:] + found.path[:-1]))
    np.testing.assert_allclose((drift * found.momentum + found.momentum**2 / 2).sum(axis=1), 0, atol=1e-9)


def test_fitzhugh_nagumo() -> None:
    start = [(2 / 3) ** 0.5, (2 / 27) ** 0.5]
    found = minimum_action_path(DiffusionHamiltonian(fitzhugh_nagumo), start, [0, 0], n_segments=64)
    assert found.converged
    assert found.action == pytest.approx(0.179787, abs=1e-6)


def test_thirty_points_are_too_few_and_say_so() -> None:
    """Coarse paths agree with fine ones within their own error."""
    coarse = minimum_action_path(DiffusionHamiltonian(maier_stein), [-1, 0], [0, 0], n_segments=16)
    assert 1e-4 < coarse.error
    assert abs(coarse.action - 0.3400414) < coarse.error


def muller_brown(z: Array) -> tuple[Array, Array]:
    x, y = z[:, :1] - [1, 0, -0.5, -1], z[:, 1:] - [0, 0.5, 1.5, 1]
    a, b, c = np.array([[-1, -1, -6.5, 0.7], [0, 0, 11, 0.6], [-10, -10, -6.5, 0.7]])
    terms = np.array([-2, -1, -1.7, 0.15]) * np.exp(a * x**2 + b * x * y + c * y**2)
    slope = np.stack([(terms * (2 * a * x + b * y)).sum(1), (terms * (b * x + 2 * c * y)).sum(1)], axis=1)
    return terms.sum(1), slope


def test_a_curved_valley_costs_twice_its_barrier() -> None:
    minimum, saddle = (
        fsolve(lambda z: muller_brown(z[None])[1][0], guess, xtol=1e-13) for guess in ([-0.558, 1.442], [-0.822, 0.624])
    )
    rise = 2 * np.diff(muller_brown(np.array([minimum, saddle]))[0])[0]
    found = minimum_action_path(DiffusionHamiltonian(lambda z: -muller_brown(z)[1]), minimum, saddle, n_segments=96)
    assert found.action == pytest.approx(rise, rel=1e-5)
    straight = np.linspace(minimum, saddle, 400)
    force, v = -muller_brown(straight[1:])[1], np.diff(straight, axis=0)
    assert (np.linalg.norm(force, axis=1) * np.linalg.norm(v, axis=1) - (force * v).sum(1)).sum() > 1.05 * rise


def test_the_chain_costs_twice_its_barriers() -> None:
    for barrier in (CHAIN.barrier(), CHAIN.forgetting_barrier()):
        field = DiffusionHamiltonian(
            lambda z: -CHAIN.landscape.gradient_at(z), jacobian=lambda z: -CHAIN.landscape.hessian_at(z)
        )
        bent = barrier.minimum + (barrier.saddle - barrier.minimum) * np.linspace(0, 1, 9)[:, None]
        bent[1:-1] += [0.05, -0.03, 0.0]
        found = minimum_action_path(field, barrier.minimum, barrier.saddle, initial=bent, n_segments=32)
        assert found.action == pytest.approx(2 * barrier.height, rel=1e-4)


def test_noise_that_changes_from_place_to_place() -> None:
    """Decoupled coordinates: along x the action is −∫2b/c dx, and y stays 0."""

    def covariance(z: Array) -> Array:
        c = np.zeros((len(z), 2, 2))
        c[:, 0, 0], c[:, 1, 1] = 1 + z[:, 0] ** 2, 0.5
        return c

    field = DiffusionHamiltonian(lambda z: np.stack([z[:, 0] - z[:, 0] ** 3, -z[:, 1]], axis=1), covariance)
    x = np.linspace(-1, 0, 2001)
    exact = np.trapezoid(-2 * (x - x**3) / (1 + x**2), x)
    bent = [[-1, 0], [-0.7, 0.1], [-0.3, 0.1], [0, 0]]
    found = minimum_action_path(field, [-1, 0], [0, 0], initial=bent, n_segments=64)
    assert found.action == pytest.approx(exact, rel=1e-5)
    assert abs(found.path[:, 1]).max() < 1e-6


@pytest.mark.parametrize("samples", [GAUSSIAN, GAUSSIAN.two()], ids=["sgd", "diffusion limit"])
def test_the_chain_with_both_noises_stays_balanced(samples: GaussianCumulants) -> None:
    """From a strongly unbalanced guess; the mode's action is a quadrature of another Hamiltonian's root."""
    ends = CHAIN.forgetting_barrier()
    bent = np.array([ends.minimum, ends.minimum * [0.7, 1.1, 0.9], ends.saddle])
    path = minimum_action_path(
        ChainHamiltonian(CHAIN, samples, 0.05), ends.minimum, ends.saddle, initial=bent, n_segments=64
    )
    line = ModeHamiltonian(CHAIN.mode, samples, 0.05)
    assert path.action == pytest.approx(quasi_potential(line, *line.forgetting()).action, rel=1e-6)
    assert np.ptp(path.path, axis=1).max() < 1e-6


def test_minibatch_noise_alone_is_the_modes_and_has_rank_one() -> None:
    """On the balanced line all layers have the same forces, so it is invariant; off it the noise does not reach."""
    hamiltonian = ChainHamiltonian(CHAIN, GAUSSIAN, 1e-12)
    x, p = np.array([[0.8, 0.8, 0.8]]), np.array([[-0.1, -0.1, -0.1]])
    jet = hamiltonian.jet(x, p)
    assert np.ptp(jet.x) < 1e-15
    assert np.ptp(jet.p) < 1e-15
    line = ModeHamiltonian(CHAIN.mode, GAUSSIAN).jet(np.sqrt(3) * x[:, 0], np.sqrt(3) * p[:, 0])
    np.testing.assert_allclose(jet.value, line.value, rtol=1e-10)
    np.testing.assert_allclose(jet.p[:, 0] * np.sqrt(3), line.p, rtol=1e-10)
    assert np.linalg.matrix_rank(jet.pp[0], tol=1e-10) == 1
    with pytest.raises(InvalidParameterError, match="rank one"):
        ChainHamiltonian(CHAIN, GAUSSIAN, 0.0)


def test_a_matrix_network_reduces_to_its_layers_singular_values() -> None:
    """Two features, three inputs, width 2; the sums run over samples, gradients and weights of the whole network."""
    rng = np.random.default_rng(1)
    x, n = rng.normal(size=(20, 3)), rng.normal(size=(20, 2))
    y = np.stack([x[:, 0] + 0.3 * n[:, 0], 0.6 * x[:, 1] + 0.3 * n[:, 1]], axis=1)
    # A teacher's samples are as likely with the other features' signs flipped
    x = np.concatenate([x * [1, a, b] for a in (1, -1) for b in (1, -1)])
    y = np.concatenate([y * [1, a] for a in (1, -1) for _ in (1, -1)])
    chain = DeepLinearChain.from_data(x[:, 0], y[:, 0], depth=3, weight_decay=0.1)
    u = [np.array([1.0, 0, 0]), np.array([0.6, 0.8]), np.array([0.8, -0.6]), np.array([1.0, 0])]
    frames = [np.outer(u[l + 1], u[l]) for l in range(3)]

    def hamiltonian(w: list[Array], p: list[Array]) -> float:
        residual = y - x @ (w[2] @ w[1] @ w[0]).T
        back = [residual @ w[2] @ w[1], residual @ w[2], residual]
        forward = [x, x @ w[0].T, x @ w[0].T @ w[1].T]
        push = sum(np.einsum("ni,ij,nj->n", b, q, f) for b, q, f in zip(back, p, forward, strict=True))
        rest = sum(-0.1 * (q * v).sum() + 0.1 * (q**2).sum() for q, v in zip(p, w, strict=True))
        return float(np.log(np.mean(np.exp(push))) + rest)

    a, p = np.array([0.9, 0.7, 0.8]), np.array([0.2, -0.1, 0.3])
    jet = ChainHamiltonian(chain, EmpiricalCumulants(x[:, 0], y[:, 0]), 0.2).jet(a[None], p[None])
    w0, p0 = ([c * f for c, f in zip(s, frames, strict=True)] for s in (a, p))
    assert hamiltonian(w0, p0) == pytest.approx(jet.value[0], rel=1e-12)
    for l in range(3):
        for i in range(frames[l].size):
            step = np.zeros(frames[l].shape)
            step.flat[i] = 1e-5
            for which, expected in ((0, jet.x[0, l]), (1, jet.p[0, l])):
                sides = []
                for sign in (1, -1):
                    state = [list(w0), list(p0)]
                    state[which][l] = state[which][l] + sign * step
                    sides.append(hamiltonian(*state))
                # Along the frame as in the chain, and nothing across
                assert (sides[0] - sides[1]) / 2e-5 == pytest.approx(expected * frames[l].flat[i], abs=1e-8)


def test_the_chains_exit_time_has_the_actions_slope() -> None:
    """Three-dimensional solves share no numerics with actions; negative control: minibatches left out, 7 % higher."""
    chain = DeepLinearChain(3, 1.0, 0.25)
    barrier, variance = chain.barrier(), 0.05
    ends = barrier.minimum, barrier.saddle
    action = minimum_action_path(ChainHamiltonian(chain, GAUSSIAN.two(), variance), *ends, n_segments=32).action
    inverse = np.array([6, 8]) / action
    times = [
        exit_time(
            chain,
            temperature=variance / (2 * e),
            target=beyond(barrier),
            minibatch=MinibatchNoise(1 / e, GaussianResidualVariance(1.0, 1.0, 0.5)),
        ).mean
        for e in inverse
    ]
    slope = np.diff(np.log(times))[0] / np.diff(inverse)[0]
    assert slope == pytest.approx(action, rel=0.02)  # O(ε) at these heights: 1.4 %
    assert 2 * barrier.height / variance > 1.05 * slope


def test_errors_and_warnings() -> None:
    field = DiffusionHamiltonian(maier_stein)
    with pytest.raises(InvalidParameterError, match="two different points"):
        minimum_action_path(field, [0, 0], [0, 0])
    with pytest.raises(InvalidParameterError, match="multiple of 4"):
        minimum_action_path(field, [-1, 0], [0, 0], n_segments=30)
    with pytest.raises(InvalidParameterError, match="a row is a point"):
        minimum_action_path(field, [-1, 0], [0, 0], initial=np.zeros((3, 3)))
    with pytest.warns(ValidityWarning, match="did not converge"):
        found = minimum_action_path(field, [-1, 0], [0, 0], n_segments=16, max_iterations=1)
    assert not found.converged
    flat = DiffusionHamiltonian(maier_stein, lambda z: np.zeros((len(z), 2, 2)))
    with pytest.raises(InvalidParameterError, match="strictly convex"):
        minimum_action_path(flat, [-1, 0], [0, 0])
