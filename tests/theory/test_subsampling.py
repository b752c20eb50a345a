"""Errors of sub-sampled states, spectra of sub-samples, and the criterion for a curve of grokking."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kramers_grok.core.exceptions import InvalidParameterError
from kramers_grok.models.data import linear_teacher_data
from kramers_grok.theory.subsampling import (
    GrokkingCriterion,
    Subsample,
    input_variance_edges,
    noisy_singular_value,
    spurious_edges,
)

MATRIX = np.diag([2.0, 0.0, 0.0])


def spurious(noise: float, n: int = 8) -> Subsample:
    data = linear_teacher_data(MATRIX, n_samples=n, label_noise=noise, seed=0, whiten=True)
    return Subsample.of(data.x, data.y, teacher=MATRIX, depth=3, label_noise=noise)


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 10**6), st.floats(0.0, 1.0))
def test_errors_are_those_of_the_map(seed: int, noise: float) -> None:
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(7, 3))
    turn, _ = np.linalg.qr(rng.normal(size=(3, 3)))
    y = 1.3 * x @ turn.T
    sample = Subsample.of(x, y, teacher=1.3 * turn, depth=3, label_noise=noise)
    m = rng.uniform(0, 1, 3)
    _, v = np.linalg.eigh(x.T @ x / 7)
    v = v[:, ::-1]
    weights = turn @ (v * m) @ v.T
    train, test = sample.errors(m)
    assert train == pytest.approx(0.5 * np.mean(np.sum((y - x @ weights.T) ** 2, axis=1)), rel=1e-9)
    assert test == pytest.approx(0.5 * (np.sum((1.3 * turn - weights) ** 2) + 3 * noise**2), rel=1e-9)


def test_without_label_noise_there_is_no_spurious_feature() -> None:
    assert spurious(0.0).singular_values.size == 1
    assert spurious(0.9).singular_values.size == 3


def test_dropping_a_spurious_feature_moves_the_train_error_three_times_as_much() -> None:
    sample = spurious(0.9)
    strongest = 1
    binodal, spinodal = (f(3)[strongest] for f in (sample.spectrum.binodals, sample.spectrum.spinodals))
    orthogonal = Subsample(**{**vars(sample), "population_covariances": sample.population_covariances * [1, 0, 0]})
    for decay in np.linspace(1.001 * binodal, 0.999 * spinodal, 5):
        before, after = (orthogonal.errors(orthogonal.learned(k, decay)) for k in ([0, 1], [0]))
        rise, fall = after[0] - before[0], before[1] - after[1]
        assert fall > 0
        assert rise / fall > 3.0
    below = orthogonal.errors(orthogonal.learned([0, 1], 0.2 * binodal))
    gone = orthogonal.errors(orthogonal.learned([0], 0.2 * binodal))
    assert (gone[0] - below[0]) / (below[1] - gone[1]) < 3.0  # the control: it is the weight decay that does it


def test_the_gap_closes_with_the_number_of_samples() -> None:
    gaps = []
    for n in (6, 24, 4096):
        x = np.random.default_rng(0).normal(size=(n, 4))
        sample = Subsample.of(x, x, teacher=np.eye(4), depth=3)
        train, test = sample.errors(sample.learned([0, 1, 2], 0.03))
        gaps.append(float(test - train))
    assert gaps[0] > 0.4
    assert gaps[0] > gaps[1] > gaps[2]
    assert abs(gaps[2]) < 0.05


def test_edges() -> None:
    x = np.random.default_rng(0).normal(size=(400, 100))
    values = np.linalg.eigvalsh(x.T @ x / 400)
    assert (values[0], values[-1]) == pytest.approx(input_variance_edges(400, 100), rel=0.12)
    assert input_variance_edges(3, 4)[0] == 0.0
    data = linear_teacher_data(np.full((300, 200), 1e-12), n_samples=900, label_noise=0.7, seed=1, whiten=True)
    singular = np.linalg.svd(data.cross_covariance, compute_uv=False)
    low, high = spurious_edges(0.7, 900, 200, 300)
    # Edges fluctuate by 1 % (Tracy and Widom) about 1 % inside at this size
    assert singular[0] == pytest.approx(high, rel=0.06)
    assert singular[-1] == pytest.approx(low, rel=0.15)


def test_a_strong_teacher_stands_out_of_the_noise_and_a_weak_one_drowns() -> None:
    matrix = np.zeros((60, 60))
    matrix[0, 0] = 2.0
    data = linear_teacher_data(matrix, n_samples=300, label_noise=1.0, seed=0, whiten=True)
    first = np.linalg.svd(data.cross_covariance, compute_uv=False)[0]
    assert first == pytest.approx(noisy_singular_value(2.0, 1.0, 300, 60, 60), rel=0.04)
    assert noisy_singular_value(0.1, 1.0, 300, 60, 60) == spurious_edges(1.0, 300, 60, 60)[1]


def test_predicted_curves_start_untrained_and_end_learned() -> None:
    x = np.random.default_rng(0).normal(size=(6, 4))
    sample = Subsample.of(x, x, teacher=np.eye(4), depth=3)
    train, test = sample.curves([1e-9, 1e9], [1.0, 2.0, 3.0, 1e4], 0.03)
    assert (train[0], test[0]) == pytest.approx((0.5 * sample.train_total, 2.0), rel=1e-6)
    assert (train[1], test[1]) == pytest.approx(
        tuple(map(float, sample.errors(sample.learned([0, 1, 2, 3], 0.03)))), rel=1e-6
    )
    never, _ = sample.curves([1e9], [1.0, 2.0, 3.0, np.inf], 0.03)
    assert never[0] == pytest.approx(float(sample.errors(sample.learned([0, 1, 2], 0.03))[0]), rel=1e-9)


TIMES = np.geomspace(0.1, 1e4, 101)


def curves(*, low_at: float = 10.0, falls_at: float = 1e3, floor: float = 0.02) -> tuple[np.ndarray, np.ndarray]:
    train = np.where(low_at > TIMES, 1.0, 0.02)
    return train, np.where(TIMES < 5, 1.0, np.where(falls_at > TIMES, 0.5, floor))


def test_criterion() -> None:
    criterion = GrokkingCriterion()
    assert criterion.holds(TIMES, *curves())
    assert not criterion.holds(TIMES, *curves(falls_at=50.0))  # less than a decade
    assert not criterion.holds(TIMES, *curves(falls_at=1e9))  # never falls
    assert not criterion.holds(TIMES, *curves(low_at=500.0))  # the train error is not low early
    assert not criterion.holds(TIMES, curves()[0], curves()[0])  # no gap
    first, last = criterion.plateau(TIMES, *curves())
    assert first == pytest.approx(10.0, rel=0.15)
    assert last == pytest.approx(1e3, rel=0.15)


def test_arguments() -> None:
    x = np.random.default_rng(0).normal(size=(6, 2))
    with pytest.raises(InvalidParameterError, match="expected \\(sample, input\\)"):
        Subsample.of(x, x, teacher=np.eye(3), depth=3)
    with pytest.raises(InvalidParameterError, match="not white and do not share"):
        Subsample.of(x, x @ np.diag([2.0, 1.0]), teacher=np.diag([2.0, 1.0]), depth=3)
    with pytest.raises(InvalidParameterError, match="order_parameters"):
        Subsample.of(x, x, teacher=np.eye(2), depth=3).errors([1.0])
