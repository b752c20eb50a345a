from dataclasses import replace

import numpy as np
import pytest
import torch

from kramers_grok.landscape.barriers import barrier_over, find_barrier
from kramers_grok.landscape.hessian import hessian
from kramers_grok.landscape.krylov import lanczos, log_determinant_samples
from kramers_grok.landscape.points import StationaryPoint, classify, find_minimum
from kramers_grok.landscape.surface import Surface
from kramers_grok.models.activations import GELU
from kramers_grok.models.data import finite
from kramers_grok.models.deep_linear import DeepLinearNetwork
from kramers_grok.models.mlp import MLP


def test_lanczos_makes_the_matrix_tridiagonal() -> None:
    rng = np.random.default_rng(0)
    matrix = rng.normal(size=(12, 12))
    matrix += matrix.T
    starts = rng.normal(size=(2, 12))
    diagonal, off, basis = lanczos(lambda v: v @ matrix, starts, 12, np.empty((0, 12)))
    for d, e, q in zip(diagonal, off, basis, strict=True):
        np.testing.assert_allclose(q @ q.T, np.eye(12), atol=1e-12)
        np.testing.assert_allclose(q @ matrix @ q.T, np.diag(d) + np.diag(e, 1) + np.diag(e, -1), atol=1e-10)


def test_lanczos_stops_in_an_exhausted_space() -> None:
    start = np.zeros((1, 6))
    start[0, [1, 4]] = 1.0  # of two eigenvectors
    diagonal, off, basis = lanczos(lambda v: v * np.arange(1.0, 7.0), start, 6, np.empty((0, 6)))
    assert off[0, 1] == 0
    assert not basis[0, 2:].any()
    np.testing.assert_allclose(np.linalg.eigvalsh([[diagonal[0, 0], off[0, 0]], [off[0, 0], diagonal[0, 1]]]), [2, 5])


@pytest.fixture(scope="module")
def small() -> tuple[MLP, StationaryPoint]:
    x = np.random.default_rng(0).normal(size=(16, 3))
    model = MLP.from_data(finite(x, np.tanh(x @ [[1.0], [0.5], [-0.3]])), (5, 5), GELU(), weight_decay=0.05)
    return model, find_minimum(model, 0.5 * np.random.default_rng(1).normal(size=model.n_parameters))


@pytest.mark.parametrize("sketch", [0, 5])
def test_determinants_are_known_within_the_stated_error(small: tuple[MLP, StationaryPoint], sketch: int) -> None:
    # 64 probes: |t| > 4.8 once in 1e5. Power: one curvature of ten times the bulk's left out is off by 2.3.
    model, exact = small
    none = np.empty((0, model.n_parameters))
    surface = Surface(model)
    logs, sums = log_determinant_samples(surface, exact.theta, none, n_probes=64, sketch=sketch)
    for samples, truth in ((logs, exact.log_determinant), (sums, exact.trace)):
        error = samples.std(ddof=1) / 8
        assert 0 < error < 0.2 * abs(truth)
        assert abs(samples.mean() - truth) < 4.8 * error


def test_the_sketch_takes_the_scatter_away(small: tuple[MLP, StationaryPoint]) -> None:
    model, exact = small
    none = np.empty((0, model.n_parameters))
    spreads = [
        log_determinant_samples(Surface(model), exact.theta, none, n_probes=16, sketch=sketch)[0].std()
        for sketch in (0, 12, 24)
    ]
    assert spreads[1] < 0.5 * spreads[0]
    assert spreads[2] < spreads[1]


def test_large_hessians_are_classified_alike(small: tuple[MLP, StationaryPoint]) -> None:
    model, exact = small
    found = classify(model, exact.theta, dense_limit=0)
    assert (found.kind, found.n_zero_modes) == (exact.kind, exact.n_zero_modes)
    np.testing.assert_allclose(found.spectrum[:11], exact.spectrum[:11], rtol=1e-7)
    np.testing.assert_allclose(found.spectrum[-11:], exact.spectrum[-11:], rtol=1e-7)
    error = found.log_determinant_samples.std(ddof=1) / len(found.log_determinant_samples) ** 0.5
    assert abs(found.log_determinant - exact.log_determinant) < 5.3 * error + 1e-9
    assert found.trace == pytest.approx(exact.trace, rel=0.02)


def test_the_barrier_of_a_large_network() -> None:
    network = DeepLinearNetwork((2, 5, 5, 2), [2.0, 1.0], weight_decay=0.1)
    exact = network.theory.barrier(1)
    points = [classify(network, p, dense_limit=0) for p in (exact.saddle, exact.minimum, exact.destination)]
    barrier = barrier_over(network, *points)
    assert [p.n_unexplained for p in points] == [0, 0, 0]
    assert barrier.negative_eigenvalue == pytest.approx(exact.negative_eigenvalue, rel=1e-8)
    # Beside both ends of the spectra few curvatures differ from weight decay's: the sketch holds them all.
    assert barrier.log_determinant_ratio == pytest.approx(exact.log_determinant_ratio, abs=1e-8)
    assert barrier.log_determinant_error < 1e-8
    assert barrier.trace_difference == pytest.approx(exact.trace_difference, abs=1e-8)


def test_an_error_of_determinants_is_a_flag(small: tuple[MLP, StationaryPoint]) -> None:
    network = DeepLinearNetwork((1, 1, 1, 1), [1.0], weight_decay=0.25)
    exact = network.theory.barrier()
    barrier = find_barrier(network, exact.minimum, exact.destination, saddle=exact.saddle)
    blurred = replace(barrier.saddle_point, log_determinant_samples=np.array([-1.0, 1.0, 2.0]))
    flags = replace(barrier, saddle_point=blurred).flags(barrier.height / 1000)
    assert len(flags) == 1
    assert "uncertain by a factor 1.6" in flags[0]


def test_unexplained_zero_modes_of_a_large_hessian_are_seen() -> None:
    network = DeepLinearNetwork((1, 6, 6, 1), [1.0], weight_decay=0.25)
    nothing = type("Nothing", (), {"zero_modes": lambda self, theta: np.empty((0, theta.size))})()
    found = classify(network, network.theory.saddle(0).theta, dense_limit=0, symmetry=nothing)
    assert found.kind == "degenerate"
    assert found.n_unexplained > 6  # of the 10 that there are, as many as were among the lowest curvatures looked for


def test_hessians_of_many_points_and_of_one(small_tanh: MLP) -> None:
    points = torch.from_numpy(np.random.default_rng(0).normal(size=(300, 10)))
    many = hessian(small_tanh.gradient, points)
    surface = Surface(small_tanh)
    np.testing.assert_allclose(many[299], surface.hessian(points[299].numpy()), atol=1e-14)
    step = 1e-5 * np.eye(10)
    at = points[0].numpy()
    differences = (surface.gradients(at + step) - surface.gradients(at - step)) / 2e-5
    np.testing.assert_allclose(many[0], differences, atol=1e-8)
