"""Sweeps: brackets around predicted spinodals, controls without hysteresis, and certificates that refuse.

What sweep and prediction share: the energy. The trainer's steps, the Hessians (automatic differentiation) and the
brackets come without the closed forms of spinodals and branches.
"""

from __future__ import annotations

import numpy as np
import pytest
import torch

from kramers_grok.core.exceptions import DivergedError, InvalidParameterError
from kramers_grok.core.noise import per_sample
from kramers_grok.dynamics.sgd import SGD
from kramers_grok.escape.protocols import (
    Settling,
    certify,
    full_gradient,
    hysteresis_area,
    hysteresis_loop,
    settle,
    stable_lr,
    sweep,
)
from kramers_grok.models.data import finite, population, teacher
from kramers_grok.models.deep_linear import DeepLinearNetwork
from kramers_grok.theory.mode_states import spinodal

TEACHER = (1.2, 1.0)
STEP = 0.003


def descent(depth: int = 3, weight_decay: float = 0.45) -> SGD:
    """Gradient descent in the smallest network with two features, stable all along."""
    network = DeepLinearNetwork((2, *[2] * (depth - 1), 2), np.diag(TEACHER), weight_decay=weight_decay)
    return SGD(network, population(), lr=0.2, fused=False)


def learned(process: SGD) -> np.ndarray:
    return np.asarray(process.model.ordered_state([0, 1]).numpy())  # type: ignore[attr-defined]


def test_features_disappear_at_their_spinodals_weakest_first_and_do_not_return() -> None:
    process = descent()
    ends = spinodal(3, TEACHER)
    decays = np.geomspace(0.98 * ends[1], 1.01 * ends[0], int(np.log(1.031 * ends[0] / ends[1]) / STEP))
    settling = Settling(certify_every=0, kick=1e-3)
    loop = hysteresis_loop(process, decays, start=learned(process), seed=0, settling=settling)
    assert (loop.before < ends).all()
    assert (ends < loop.after).all()
    assert (loop.after / loop.before - 1 < 0.01).all()
    assert float(loop.after[1]) < float(loop.before[0])  # weakest first
    assert loop.settled.all()
    assert loop.down_settled.all()
    # What falls is what the fold predicts, a quarter of σ and a little more before it.
    assert ((-loop.jump > np.array(TEACHER) / 4) & (-loop.jump < 1.3 * np.array(TEACHER) / 4)).all()
    # The kicks of 1e-3 at every value bring nothing back.
    assert float(loop.returned.max()) < 1e-6
    assert loop.area.values == pytest.approx(loop.predicted_area.values, rel=0.02)
    assert float(loop.area.min()) > 0.001


def test_bisections_narrow_the_bracket() -> None:
    process, end = descent(), float(spinodal(3, TEACHER[1]))
    settling = Settling(certify_every=0, bisections=4)
    up = sweep(process, [0.97 * end, 0.99 * end, 1.01 * end], start=learned(process), seed=0, settling=settling)
    width = float(up.after[1] / up.before[1]) - 1
    assert width == pytest.approx((1.01 / 0.99) ** (1 / 16) - 1, rel=1e-6)
    assert float(up.before[1]) < end < float(up.after[1])
    assert up.sizes["weight_decay"] > 3


def test_control_two_layers_have_no_hysteresis() -> None:
    """D = 2: the onset is continuous, and what was lost comes back by itself as soon as λ allows."""
    process = descent(depth=2, weight_decay=0.9)
    decays = np.geomspace(0.9, 1.3, 14)
    loop = hysteresis_loop(process, decays, start=learned(process), seed=0, settling=Settling(kick=1e-3))
    assert np.isnan(loop.jump).all()
    assert abs(loop.area).max() < 1e-4
    assert loop.down.values[0] == pytest.approx([0.3, 0.1], abs=1e-3)
    assert loop.predicted_area.max() == 0


def test_a_sweep_in_too_large_steps_brackets_nothing_and_in_too_few_does_not_settle() -> None:
    process, end = descent(), float(spinodal(3, TEACHER[1]))
    wide = sweep(process, [0.8 * end, 1.2 * end], start=learned(process), seed=0)
    assert float(wide.after[1] / wide.before[1]) - 1 > 0.3
    hasty = Settling(max_steps=40)
    fast = sweep(process, [0.99 * end, 1.001 * end, 1.01 * end], start=learned(process) * 1.05, seed=0, settling=hasty)
    assert not fast.settled.any()
    assert not fast.certified.any()
    assert np.isnan(fast.before).all()


def test_the_bottleneck_behind_a_spinodal_is_not_certified() -> None:
    """Its gradient is small and stays so for long; the sign that nothing is there is in the curvature."""
    process = descent(weight_decay=0.3).replace(weight_decay=float(spinodal(3, TEACHER[1])) * 1.0001)
    start = DeepLinearNetwork((2, 2, 2, 2), np.diag(TEACHER), weight_decay=0.47).ordered_state([0, 1])[None]
    theta, norm, _ = settle(process, start, Settling(max_steps=800, tolerance=1e-12))
    assert norm[0] < 2e-3
    assert process.order_parameters(theta)[0, 1] > 0.2
    found = certify(full_gradient(process), process.model, theta)
    assert not found.is_minimum[0]


def test_certificates_agree_with_the_theory_s_spectra() -> None:
    network = DeepLinearNetwork((3, 4, 4, 3), [2.0, 1.5, 1.0], weight_decay=0.1)
    process = SGD(network, population(), lr=0.1, fused=False)
    points = [network.theory.state(rank) for rank in range(4)] + [network.theory.saddle(1)]
    theta = torch.stack([network.embed(p) for p in points])
    dense = certify(full_gradient(process), network, theta)
    for row, point in enumerate(points):
        assert dense.smallest[row] == pytest.approx(point.spectrum[0], rel=1e-8)
        assert dense.largest[row] == pytest.approx(point.spectrum[-1], rel=1e-8)
        assert dense.n_zero_modes[row] == point.n_zero_modes
        assert dense.index[row] == point.index
    assert dense.is_minimum.tolist() == [True] * 4 + [False]
    assert dense.zero_mode_curvature.max() < 1e-10
    lanczos = certify(full_gradient(process), network, theta, dense_limit=1)
    assert lanczos.smallest == pytest.approx(dense.smallest, rel=1e-3)
    assert lanczos.n_zero_modes.tolist() == dense.n_zero_modes.tolist()


def test_a_saddle_is_left_even_if_the_gradient_vanishes_there() -> None:
    """Start a hair beside the unordered state: its gradient passes the tolerance, its curvature does not."""
    process = descent(weight_decay=0.2)
    beside = process.model.ordered_state([1]) + 1e-9 * torch.ones(12, dtype=torch.float64)  # type: ignore[attr-defined]
    found = sweep(process, [0.2, 0.21], start=beside.numpy(), seed=0)
    assert found.certified.all()
    assert found.order_parameter.values[0, 0] > 0.9  # the stronger feature has taken its place
    blind = sweep(process, [0.2, 0.21], start=beside.numpy(), seed=0, settling=Settling(certify_every=0))
    assert blind.order_parameter.values[0, 0] < 0.1


def test_full_batch_of_samples_is_the_population_of_their_moments() -> None:
    rng = np.random.default_rng(0)
    data = finite(x := rng.normal(size=(50, 2)), x @ np.diag(TEACHER))
    network = DeepLinearNetwork.from_data(data, [2, 2], weight_decay=0.2)
    theta = torch.from_numpy(rng.normal(size=(3, network.n_parameters)))
    one, two = (full_gradient(SGD(network, d, lr=0.1, fused=False)) for d in (data, population()))
    assert torch.allclose(one(theta), two(theta), rtol=0, atol=1e-12)


def test_errors_say_what_to_do() -> None:
    process = descent()
    start = learned(process)
    with pytest.raises(InvalidParameterError, match="rising or falling"):
        sweep(process, [0.4, 0.5, 0.45], start=start, seed=0)
    with pytest.raises(InvalidParameterError, match="with noise nothing settles"):
        sweep(process.replace(noise=per_sample(temperature=1e-3)), [0.4, 0.5], start=start, seed=0)
    with pytest.raises(InvalidParameterError, match="with noise nothing settles"):
        sweep(process.replace(data=teacher(label_noise=0.1), batch_size=4), [0.4, 0.5], start=start, seed=0)
    with pytest.raises(DivergedError, match="stable_lr"):
        sweep(process.replace(lr=4.0), [0.2, 0.3], start=2 * start, seed=0)
    assert 0.1 < stable_lr(process, torch.from_numpy(start)) < 1.0
    up = sweep(process, [0.45, 0.46], start=start, seed=0)
    with pytest.raises(InvalidParameterError, match="overlaps"):
        hysteresis_area(up, sweep(process, [0.6, 0.5], start=start, seed=0))
