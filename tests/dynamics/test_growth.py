"""Growth rate of unused directions: the linearisation, its symmetric solutions, and what is measured from it."""

from collections.abc import Sequence
from itertools import pairwise

import numpy as np
import pytest
import torch
from torch import Tensor

from kramers_grok.core.exceptions import DivergedError, InvalidParameterError, ValidityWarning
from kramers_grok.core.noise import activation_noise, per_sample
from kramers_grok.dynamics.growth import growth_rate
from kramers_grok.dynamics.optimizers import Adam
from kramers_grok.dynamics.sampling import BySamples, ShuffledEpochs, WithoutReplacement
from kramers_grok.dynamics.sgd import SGD
from kramers_grok.dynamics.unused import Background, Batch, Batches, Unused, used_network, used_units
from kramers_grok.models.data import linear_teacher_data, population, teacher
from kramers_grok.models.deep_linear import DeepLinearNetwork
from kramers_grok.theory.deep_linear import DeepLinearChain, Mode
from kramers_grok.theory.transverse_growth import noisy_background, transverse_growth_rate

TEACHER = np.diag([2.0, 1.0, 0.0, 0.0, 0.0])[:4]


def make(widths: Sequence[int] = (5, 3, 3, 4), decay: float = 0.1) -> DeepLinearNetwork:
    return DeepLinearNetwork(widths, TEACHER, weight_decay=decay)


def sgd(network: DeepLinearNetwork, lr: float = 0.05, batch_size: int = 3, **more: object) -> SGD:
    return SGD(network, teacher(label_noise=0.7), lr=lr, batch_size=batch_size, **more)  # type: ignore[arg-type]


def samples(seed: int, n: int, rows: int) -> tuple[Tensor, Tensor]:
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(n, rows, 5))
    return torch.from_numpy(x), torch.from_numpy(x @ TEACHER.T + rng.normal(size=(n, rows, 4)))


def embedded(parts: list[Tensor], widths: Sequence[int]) -> list[Tensor]:
    """Layers of a network of a few units in the corner of a wider one."""
    whole = []
    for part, (below, above) in zip(parts, pairwise(widths), strict=True):
        layer = torch.zeros(len(part), above, below, dtype=torch.float64)
        layer[:, : part.shape[1], : part.shape[2]] = part
        whole.append(layer)
    return whole


def flat(layers: list[Tensor]) -> Tensor:
    return torch.cat([w.flatten(1) for w in layers], dim=1)


@pytest.mark.parametrize("rank", [1, 2])
@pytest.mark.parametrize("depth", [3, 4])
@pytest.mark.parametrize("by_samples", [True, False])
def test_linearisation_is_the_derivative_of_the_whole_network_s_step(rank: int, depth: int, by_samples: bool) -> None:
    """Against automatic differentiation of the model's gradient from second moments; shared: the batch alone."""
    widths = (5, *(rank + 1,) * (depth - 1), 4)
    network, lr, n = make(widths), 0.07, 6
    rng = np.random.default_rng(depth)
    few = [torch.from_numpy(rng.normal(size=(n, b, a))) for a, b in pairwise((5, *(rank,) * (depth - 1), 4))]
    x, y = samples(1, n, 3)
    xx, yx = torch.bmm(x.transpose(1, 2), x) / 3, torch.bmm(y.transpose(1, 2), x) / 3
    eye = torch.eye(5, dtype=torch.float64).expand(n, -1, -1)
    batch = Batch(x, y, 3) if by_samples else Batch(eye, yx.transpose(1, 2), 1, xx)
    rule = Background(lr, 0.1)
    unused = Unused.random(used_network(network, rank).widths, 0, torch.arange(n), torch.float64)
    passes = rule.passes(few, batch)
    moved, grown = rule.moved(few, batch, passes), rule.unused(unused, batch, passes)

    def directions(of: Unused) -> list[Tensor]:
        """One tangent for each hidden layer: row `rank` of the layer below it, column `rank` of that above."""
        tangents = []
        for index, (p, v) in enumerate(zip(of.incoming, of.outgoing, strict=True)):
            layers = [torch.zeros(n, b, a, dtype=torch.float64) for a, b in pairwise(widths)]
            layers[index][:, rank, : p.shape[1]] = p
            layers[index + 1][:, : v.shape[1], rank] = v
            tangents.append(flat(layers))
        return tangents

    def step(theta: Tensor) -> Tensor:
        return theta - lr * (network.data_gradient(theta, xx, yx) + 0.1 * theta)

    point = flat(embedded(few, widths))
    for tangent, expected in zip(directions(unused), directions(grown), strict=True):
        after, derivative = torch.autograd.functional.jvp(step, point, tangent)
        torch.testing.assert_close(after, flat(embedded(moved, widths)), rtol=1e-12, atol=1e-12)
        torch.testing.assert_close(derivative, expected, rtol=1e-12, atol=1e-12)
        assert float((derivative - tangent).abs().max()) > 1e-3  # it does something


@pytest.mark.parametrize("rank", [1, 2])
def test_used_units_solve_the_equations_of_unused_ones(rank: int) -> None:
    """The rotations' tangents: exponent 0 without any approximation."""
    rng = np.random.default_rng(0)
    layers = [torch.from_numpy(0.5 * rng.normal(size=(3, b, a))) for a, b in pairwise((5, rank, rank, 4))]
    rule = Background(0.05, 0.1)
    for number in range(20):
        batch = Batch(*samples(number, 3, 2), 2)
        passes = rule.passes(layers, batch)
        for unit in range(rank):
            used = [u[:, unit] for u in used_units(layers)]
            cuts = [layers[index].shape[2] for index in range(2)]
            pairs = list(zip(used, cuts, strict=True))
            unused = Unused([u[:, :c] for u, c in pairs], [u[:, c:] for u, c in pairs])
            grown = rule.unused(unused, batch, passes)
            after = used_units(rule.moved(layers, batch, passes))
            for p, v, now in zip(grown.incoming, grown.outgoing, after, strict=True):
                torch.testing.assert_close(torch.cat([p, v], dim=1), now[:, unit], rtol=1e-12, atol=1e-13)
        layers = rule.moved(layers, batch, passes)


@pytest.mark.parametrize("sampler", [None, BySamples(), WithoutReplacement(), ShuffledEpochs()])
@pytest.mark.parametrize("size", [2, 8])
def test_background_is_the_process(sampler: object, size: int) -> None:
    """The same paths as the package's own SGD of the same narrow network."""
    network = make((5, 1, 1, 4))
    data = teacher(label_noise=0.7)
    if not isinstance(sampler, BySamples | None):
        found = linear_teacher_data(TEACHER, n_samples=40, label_noise=0.7, seed=0, whiten=True)
        network, data = DeepLinearNetwork.from_data(found, (1, 1), weight_decay=0.1), found  # type: ignore[assignment]
    if sampler is None and size < network.n_inputs:
        pytest.skip("by samples instead of moments: another path of the same law")
    process = SGD(network, data, lr=0.05, batch_size=size, sampler=sampler, fused=False)  # type: ignore[arg-type]
    point = network.ordered_state([0])
    state, _ = process.advance(process.start(4, seed=3, point=point.numpy()), 50)
    rule, batches = Background(0.05, 0.1), Batches(process, network)
    layers = [w.contiguous() for w in network.layers(point.expand(4, -1))]
    memory, streams = batches.source.buffers(4), torch.arange(4)
    for step in range(50):
        batch, memory = batches.draw(3, streams, step, memory)
        layers = rule.moved(layers, batch, rule.passes(layers, batch))
    torch.testing.assert_close(flat(layers), state.theta, rtol=1e-9, atol=1e-10)


def test_without_noise_unused_directions_decay_as_weight_decay_says() -> None:
    """Exactly: at right angles to the feature the gradient is 0 to first order."""
    process = SGD(make(), population(), lr=0.2)
    result = growth_rate(process, n_steps=64, n_replicas=8, seed=0)
    # Along the feature weights decay twice as fast; after the burn-in exp(−2 · 4) of that is left.
    np.testing.assert_allclose(result.growth_rate, np.log1p(-0.2 * 0.1) / 0.2, rtol=2e-3)
    assert result.verdict == "absorbing"
    np.testing.assert_allclose(result.imbalance, 0.0, atol=1e-9)
    np.testing.assert_allclose(result.layer_norm, Mode(3, 2.0, 0.1).learned_amplitude(), rtol=1e-9)
    assert result.attrs["n_lost"] == 0


def test_more_features_than_one() -> None:
    process = SGD(make(decay=0.1), population(), lr=0.2)
    result = growth_rate(process, rank=2, n_steps=64, n_replicas=8, seed=0)
    np.testing.assert_allclose(result.growth_rate, np.log1p(-0.2 * 0.1) / 0.2, rtol=2e-3)
    modes = [Mode(3, s, 0.1).learned_amplitude() for s in (2.0, 1.0)]
    np.testing.assert_allclose(result.order_parameter, np.array(modes) ** 3, rtol=1e-9)


def test_reproducible_and_independent_of_other_replicas() -> None:
    process = sgd(make())
    several, fewer = (growth_rate(process, n_steps=128, n_replicas=n, seed=5, burn_in=64) for n in (16, 8))
    np.testing.assert_allclose(several.block_growth_rate[:, :8], fewer.block_growth_rate, rtol=1e-9, atol=1e-12)
    other = growth_rate(process, n_steps=128, n_replicas=8, seed=6, burn_in=64)
    assert np.abs(other.block_growth_rate - fewer.block_growth_rate).min() > 0


def test_weak_noise_makes_unused_directions_decay_faster() -> None:
    """By half of what the noise alone does. A background at rest would give all of it, or growth."""
    d, eps, decay = 12, 0.002, 0.1
    network = DeepLinearNetwork((d, 3, 3, d), [2.0, 1.0, *[0.0] * (d - 2)], weight_decay=decay)
    process = SGD(network, teacher(label_noise=1.0), lr=0.064, batch_size=32)
    result = growth_rate(process, n_steps=512, n_replicas=24, seed=0)
    task = {"label_noise": 1.0, "n_inputs": d, "n_outputs": d}
    background = noisy_background(Mode(3, 2.0, decay), lr=0.064, batch_size=32, **task)  # type: ignore[arg-type]
    expected = transverse_growth_rate(background, weight_decay=decay, lr_over_batch=eps, **task)  # type: ignore[arg-type]
    shift = result.growth_rate.values - np.log1p(-0.064 * decay) / 0.064
    predicted = np.array(expected) + decay
    error = result.growth_rate_error.values
    # The next order is left out: a fifth of the shift is allowed for it.
    assert (np.abs(shift - predicted) < 4.5 * error + 0.2 * np.abs(predicted)).all()
    assert (np.abs(predicted) > 10 * error).all()  # so that no noise, or twice the shift, would be seen
    # Balanced layers would be 3 % and 6 % off.
    np.testing.assert_allclose(result.layer_norm, background.norms, rtol=0.02)
    assert result.mean_square_factor == pytest.approx(float(result.measured_mean_square_factor), rel=0.01)
    assert result.verdict == "absorbing"
    assert (result.imbalance > 0.1).all()


def test_verdicts() -> None:
    from kramers_grok.dynamics.growth import _verdict

    below, above = np.array([-2.0, -1.0]), np.array([-0.5, -0.1])
    assert _verdict(below, above) == "absorbing"
    assert _verdict(below, above + 0.2) == "undecided"
    assert _verdict(below + 2.5, above + 3) == "escapable"
    assert _verdict(below + 1.5, above + 3) == "undecided"  # one layer leaves, the other may not


def test_what_cannot_be_asked() -> None:
    network = make()
    ask = {"n_steps": 64, "n_replicas": 8, "seed": 0}
    with pytest.raises(InvalidParameterError, match="expected a DeepLinearNetwork"):
        growth_rate(SGD(DeepLinearChain(3, 1.0, 0.25), population(), lr=0.1), **ask)  # type: ignore[arg-type]
    with pytest.raises(InvalidParameterError, match="expected GradientDescent"):
        growth_rate(sgd(network, optimizer=Adam()), **ask)  # type: ignore[arg-type]
    for noise in ({"noise": per_sample(variance=0.1)}, {"activation_noise": activation_noise(variance=0.1)}):
        with pytest.raises(InvalidParameterError, match="besides its minibatches"):
            growth_rate(sgd(network, **noise), **ask)  # type: ignore[arg-type]
    with pytest.raises(InvalidParameterError, match="`lr` changes or differs"):
        growth_rate(sgd(network).replace(lr=[0.1] * 8), **ask)  # type: ignore[arg-type]
    for rank in (0, 3):
        with pytest.raises(InvalidParameterError, match="`rank`"):
            growth_rate(sgd(network), rank=rank, **ask)  # type: ignore[arg-type]
    with pytest.raises(InvalidParameterError, match="`n_replicas`"):
        growth_rate(sgd(network), n_steps=64, n_replicas=4, seed=0)


def test_a_background_that_diverges_is_reported() -> None:
    with pytest.raises(DivergedError, match="left the finite numbers") as error:
        growth_rate(sgd(make(), lr=0.9, batch_size=1), n_steps=640, n_replicas=8, seed=0, burn_in=0)
    assert error.value.replicas
    assert error.value.step > 0


def test_a_background_that_forgets_is_reported() -> None:
    """Just below the spinodal the noise takes the feature away within the run."""
    network = DeepLinearNetwork((1, 2, 2, 1), [1.0], weight_decay=0.468)
    process = SGD(network, teacher(label_noise=1.0), lr=0.1, batch_size=8)
    with pytest.raises(InvalidParameterError, match="have lost a feature"):
        growth_rate(process, n_steps=256, n_replicas=32, seed=0, burn_in=0)
    with pytest.warns(ValidityWarning, match="have lost a feature"):
        result = growth_rate(process, n_steps=128, n_replicas=32, seed=0, burn_in=0)
    assert 0 < result.attrs["n_lost"] < 24
    assert result.block_growth_rate.sizes["replica"] == 32 - result.attrs["n_lost"]
