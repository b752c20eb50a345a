"""Spectra, indices and barriers of the matrix network against the Hessian that torch differentiates.

The autograd Hessian shares with the closed forms the network's energy function and the stationary point's weights
(checked to be stationary); it knows nothing of blocks, channels or symmetries.
"""

import math
from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
import torch
from scipy.special import ive

from kramers_grok.core.barrier import OrbitBarrier
from kramers_grok.core.exceptions import InvalidParameterError, NoBarrierError
from kramers_grok.core.saddle_validity import orbit_flags
from kramers_grok.models.deep_linear import DeepLinearNetwork
from kramers_grok.theory import mode_states
from kramers_grok.theory.deep_linear import DeepLinearChain, Mode
from kramers_grok.theory.orbits import log_pair_gram, orbit_dimension
from kramers_grok.theory.rates import eyring_kramers_rate
from kramers_grok.theory.saddle_blocks import Channel, pair_block, pair_spectrum, pair_tangents
from kramers_grok.theory.saddles import MatrixNetwork, StationaryPoint


def random_network(rng: np.random.Generator) -> tuple[MatrixNetwork, int]:
    """A network and a rank r ≤ 2; half of the teachers have singular values that coincide."""
    depth, rank = int(rng.integers(3, 6)), int(rng.integers(0, 3))
    n_features = rank + int(rng.integers(1, 3))
    hidden = [rank + int(rng.integers(1, 3)) for _ in range(depth - 1)]
    values = np.exp(rng.uniform(-0.3, 0.3, n_features))
    if rng.random() < 0.5:
        values = rng.choice(values, n_features)
    q = float(np.exp(0.3 * rng.normal()))
    decay = float(mode_states.spinodal(depth, values.min(), q) * rng.uniform(0.1, 0.97))
    ends = [n_features + int(rng.integers(0, 2)) for _ in range(2)]
    return MatrixNetwork((ends[0], *hidden, ends[1]), tuple(values.tolist()), decay, q), rank


def torch_network(network: MatrixNetwork, rng: np.random.Generator) -> DeepLinearNetwork:
    """The same network with a teacher in a random basis."""
    o, d = network.widths[-1], network.widths[0]
    u, v = (np.linalg.qr(rng.normal(size=(n, n)))[0] for n in (o, d))
    k = len(network.singular_values)
    teacher = (u[:, :k] * network.singular_values) @ v[:, :k].T
    return DeepLinearNetwork(
        network.widths, teacher, weight_decay=network.weight_decay, input_variance=network.input_variance
    )


def hessian_spectrum(model: DeepLinearNetwork, point: StationaryPoint) -> np.ndarray:
    theta = model.embed(point)
    assert model.gradient(theta[None]).abs().max() < 1e-11
    np.testing.assert_allclose(model.order_parameters(theta[None])[0], point.order_parameters, atol=1e-12)
    # One replica for each row of the Hessian: the gradient's diagonal, differentiated once more.
    copies = theta.repeat(len(theta), 1).requires_grad_(True)
    (gradient,) = torch.autograd.grad(model.energy(copies).sum(), copies, create_graph=True)
    (hessian,) = torch.autograd.grad(gradient.diagonal().sum(), copies)
    return np.linalg.eigvalsh(hessian.numpy())


def compare_with_autograd(n_cases: int, seed: int) -> dict[str, int]:
    """Compare sorted spectra, zero modes and index; return how often each kind of point was met."""
    rng = np.random.default_rng(seed)
    met = {"state": 0, "index 1": 0, "index > 1": 0, "degenerate": 0, "rank 2": 0}
    for _ in range(n_cases):
        network, rank = random_network(rng)
        n_features = len(network.singular_values)
        feature = None if rng.random() < 0.3 else int(rng.integers(rank, n_features))
        point = network.state(rank) if feature is None else network.saddle(rank, feature)
        expected = hessian_spectrum(torch_network(network, rng), point)
        found = np.sort(np.append(point.spectrum, np.zeros(point.n_zero_modes)))
        assert found.shape == expected.shape, "a weight is counted twice or not at all"
        np.testing.assert_allclose(found, expected, atol=1e-12 * np.abs(expected).max())
        assert (np.diff(point.spectrum) >= 0).all()
        assert np.abs(point.spectrum).min() > 1e-9, "a zero mode was taken for a curvature"
        values = network.singular_values
        if feature is None:
            assert point.index == 0
        else:
            assert point.index == 1 + sum(s > values[feature] for s in values[rank:])
        met["state" if feature is None else "index 1" if point.index == 1 else "index > 1"] += 1
        met["degenerate"] += len(set(values)) < n_features
        met["rank 2"] += rank == 2
    return met


def test_spectra_are_those_of_the_autograd_hessian() -> None:
    met = compare_with_autograd(250, seed=0)
    assert min(met.values()) >= 20, met


def test_zero_modes_of_singular_values_that_differ() -> None:
    rng = np.random.default_rng(3)
    for _ in range(50):
        network, rank = random_network(rng)
        if len(set(network.singular_values)) == len(network.singular_values):
            for r, point in ((rank, network.state(rank)), (rank + 1, network.saddle(rank))):
                assert point.n_zero_modes == sum(r * h - r * (r + 1) // 2 for h in network.hidden)
                assert len(point.spectrum) + point.n_zero_modes == network.n_parameters


def test_the_zero_modes_of_a_pair_are_its_rotations() -> None:
    """The block annihilates the tangents, so that projecting them out loses nothing."""
    network = MatrixNetwork((3, 3, 3, 3, 3), (1.2, 1.2, 0.9), weight_decay=0.15, input_variance=0.8)
    one, same = network._learned(0), network._learned(1)
    top, other = network._at_saddle(1), network._at_saddle(2)
    for first, second, zeros in ((one, same, 3), (one, top, 4), (one, other, 3)):
        block = pair_block(4, first, second, 0.15, 0.8)
        tangents = pair_tangents(4, first, second)
        assert tangents.shape == (8, zeros)
        np.testing.assert_allclose(block @ tangents, 0.0, atol=1e-13)
        assert len(pair_spectrum(4, first, second, 0.15, 0.8)) == 8 - zeros
        assert math.log(np.linalg.det(tangents.T @ tangents)) == pytest.approx(
            log_pair_gram(4, first.amplitude, second.amplitude, first.cluster == second.cluster)
            # the data's generator is left out at equal amplitudes: its Gram determinant is det′ over D
            - (math.log(4) if second is same else 0.0),
            abs=1e-12,
        )


@pytest.mark.parametrize("gap", [1e-3, 1e-6, 1e-8])
def test_differences_of_singular_values_are_not_lost_to_rounding(gap: float) -> None:
    """The softest mode of nearly equal features, q a^(D−2) (σ_0 − σ_1), to nine digits."""
    network = MatrixNetwork((2, 1, 1, 2), (1.0, 1.0 - gap), weight_decay=0.25)
    a = network.mode(0).saddle_amplitude()
    softest = network.saddle(0).spectrum[1]
    assert softest == pytest.approx(a * (1.0 - (1.0 - gap)), rel=1e-13)
    unstable = network.saddle(0, feature=1)
    assert unstable.index == 2
    assert unstable.spectrum[1] == pytest.approx(-unstable.amplitudes[0] * gap, rel=1e-6)


# ---------------------------------------------------------------- barriers and rates


@pytest.mark.parametrize("depth", [3, 4, 5, 8])
def test_widths_of_one_are_the_chain(depth: int) -> None:
    chain = DeepLinearChain(depth, 1.2, 0.5 * float(mode_states.binodal(depth, 1.2, 0.7)), 0.7)
    network = MatrixNetwork((1,) * (depth + 1), (1.2,), chain.weight_decay, 0.7)
    for ours, theirs in (
        (network.barrier(), chain.barrier()),
        (network.forgetting_barrier(1), chain.forgetting_barrier()),
    ):
        assert ours.height == theirs.height
        assert ours.saddle_zero_modes == ours.minimum_zero_modes == 0
        assert math.exp(ours.log_volume_ratio) == pytest.approx(theirs.multiplicity, rel=1e-12)
        for name in ("minimum", "saddle", "destination"):
            np.testing.assert_allclose(getattr(ours, name), getattr(theirs, name), rtol=1e-14)
        np.testing.assert_allclose(ours.saddle_spectrum, theirs.saddle_spectrum, rtol=1e-9)
        np.testing.assert_allclose(ours.minimum_spectrum, theirs.minimum_spectrum, rtol=1e-9)
        temperature = ours.height / 20
        rates = [eyring_kramers_rate(b, temperature, warn=False).value for b in (ours, theirs)]
        assert rates[0] == pytest.approx(rates[1], rel=1e-9)


def scalar_barrier(width: int) -> OrbitBarrier:
    return MatrixNetwork((1, width, width, 1), (1.0,), weight_decay=0.25).barrier()


def check_mean_times() -> None:
    """Mean times at D = 3, σ = 1, λ = ¼ computed by another program."""
    for width, ratio, expected, digits in ((2, 6, 271, 0), (2, 8, 1504, 0), (2, 10, 8889, 0), (4, 8, 23, 0)):
        barrier = scalar_barrier(width)
        rate = eyring_kramers_rate(barrier, barrier.height / ratio, warn=False)
        assert round(rate.mean_time, digits) == expected


def test_mean_times_of_scalar_networks() -> None:
    check_mean_times()


def test_more_inputs_and_outputs_slow_the_escape() -> None:
    """64 of each: 2.8 times, by √((λ + q a⁴)/λ) for every spare column and row."""
    temperature = scalar_barrier(2).height / 20
    wide = MatrixNetwork((64, 2, 2, 64), (1.0,), weight_decay=0.25)
    rates = [eyring_kramers_rate(b, temperature, warn=False).value for b in (scalar_barrier(2), wide.barrier())]
    assert rates[0] / rates[1] == pytest.approx(2.8, abs=0.05)
    a = wide.mode().saddle_amplitude()
    assert rates[0] / rates[1] == pytest.approx(math.sqrt(1 + a**4 / 0.25) ** 126, rel=1e-9)


def test_rates_have_the_closed_form_of_the_orbits() -> None:
    """From any rank, at unequal widths: formula with det′ times spheres, radii and pairs."""
    rng = np.random.default_rng(5)
    for rank in (0, 1, 2, 3):
        depth = 3 + rank % 2
        hidden = [rank + 1 + int(rng.integers(0, 3)) for _ in range(depth - 1)]
        values = (1.5, 1.3, 1.1, 0.9)
        network = MatrixNetwork((5, *hidden, 4), values, 0.3 * float(mode_states.spinodal(depth, 0.9)))
        barrier, saddle = network.barrier(rank), network.saddle(rank)
        temperature = barrier.height / 30
        *learned, top = saddle.amplitudes
        plain = abs(saddle.spectrum[0]) / (2 * math.pi) * math.exp(-30)
        plain *= math.exp(0.5 * (np.log(network.state(rank).spectrum).sum() - np.log(np.abs(saddle.spectrum)).sum()))
        factor = (2 * math.pi * temperature) ** (-0.5 * sum(h - rank - 1 for h in hidden))
        for h in hidden:
            n = h - rank
            factor *= 2 * math.pi ** (n / 2) / math.gamma(n / 2) * (math.sqrt(2) * top) ** (n - 1)
        for a in learned:
            factor *= math.sqrt((a ** (2 * depth) - top ** (2 * depth)) / (a ** (2 * depth - 2) * (a**2 - top**2)))
        assert eyring_kramers_rate(barrier, temperature, warn=False).value == pytest.approx(plain * factor, rel=1e-10)


def without_a_zero_mode(barrier: OrbitBarrier) -> OrbitBarrier:
    return replace(barrier, saddle_zero_modes=barrier.saddle_zero_modes - 1)


def without_copies(barrier: OrbitBarrier) -> OrbitBarrier:
    return replace(barrier, log_volume_ratio=barrier.log_volume_ratio - math.log(2))


def without_a_curvature(barrier: OrbitBarrier) -> OrbitBarrier:
    return replace(barrier, saddle_spectrum=barrier.saddle_spectrum[:-1])


@pytest.mark.parametrize("wrong", [without_a_zero_mode, without_copies, without_a_curvature])
def test_wrong_orbits_are_noticed(
    wrong: Callable[[OrbitBarrier], OrbitBarrier], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Negative control for the mean times."""
    right = MatrixNetwork.barrier
    monkeypatch.setattr(MatrixNetwork, "barrier", lambda self, *a: wrong(right(self, *a)))
    with pytest.raises(AssertionError):
        check_mean_times()


@pytest.mark.parametrize(
    ("name", "mutant"),
    [
        ("orbit_dimension", lambda *a: max(orbit_dimension(*a) - 1, 0)),
        ("pair_spectrum", lambda *a: pair_spectrum(*a)[1:]),
        ("pair_spectrum", lambda d, i, j, decay, q: pair_spectrum(d, i, replace(j, cluster=-1), decay, q)),
        ("pair_spectrum", lambda d, i, j, decay, q: pair_spectrum(d, i, replace(j, residual=0.0), decay, q)),
    ],
)
def test_wrong_spectra_are_noticed(name: str, mutant: Callable[..., object], monkeypatch: pytest.MonkeyPatch) -> None:
    """Negative control for the comparison with autograd."""
    monkeypatch.setattr(f"kramers_grok.theory.saddles.{name}", mutant)
    with pytest.raises(AssertionError):
        compare_with_autograd(60, seed=0)


def test_forgetting_goes_back_over_the_same_saddle() -> None:
    network = MatrixNetwork((3, 3, 4, 3), (1.4, 1.1, 0.9), weight_decay=0.3)
    for rank in (1, 2, 3):
        forth, back = network.barrier(rank - 1), network.forgetting_barrier(rank)
        assert (forth.feature, back.feature) == (rank - 1, rank - 1)
        np.testing.assert_array_equal(forth.saddle, back.saddle)
        np.testing.assert_array_equal(forth.minimum, back.destination)
        np.testing.assert_array_equal(forth.destination, back.minimum)
        assert back.saddle_zero_modes == back.minimum_zero_modes
        mode = network.mode(rank - 1)
        assert forth.height == pytest.approx(mode.barrier().height, rel=1e-12)
        assert back.height == pytest.approx(mode.forgetting_barrier().height, rel=1e-12)
        assert back.order_parameter_at_destination == 0 < back.order_parameter_at_saddle
        # In equilibrium both directions carry the same flux: k₊ Z_r = k₋ Z_{r+1}, Z by Gaussian integrals.
        temperature = max(forth.height, back.height) / 200
        rates = [math.log(eyring_kramers_rate(b, temperature, warn=False).value) for b in (forth, back)]
        log_z = []
        for point in (network.state(rank - 1), network.state(rank)):
            size = 0.5 * len(point.spectrum) * math.log(2 * math.pi * temperature)
            log_z.append(point.log_orbit_volume + size - 0.5 * np.log(point.spectrum).sum())
        gap = (forth.height - back.height) / temperature
        assert rates[0] + log_z[0] == pytest.approx(rates[1] + log_z[1] - gap, abs=1e-8)


def test_singular_values_in_any_order() -> None:
    network = MatrixNetwork((3, 2, 2, 2), (0.9, 1.4), weight_decay=0.3)
    assert network.singular_values == (1.4, 0.9)
    assert network == MatrixNetwork((3, 2, 2, 2), (1.4, 0.9), weight_decay=0.3)
    assert network.mode(1) == Mode(3, 0.9, 0.3)
    assert network.barrier().feature == 0
    assert network.barrier(1).feature == 1


def test_nearly_equal_singular_values_are_soft_or_equal_but_never_silent() -> None:
    """Between distinct (no flag) and equal (an orbit of one more dimension) every rate carries a flag."""

    def flags(gap: float) -> list[str]:
        barrier = MatrixNetwork((2, 1, 1, 2), (1.0, 1.0 - gap), weight_decay=0.25).barrier()
        assert barrier.degeneracy == (2 if gap < 1e-10 else 1)
        assert barrier.saddle_zero_modes == (1 if gap < 1e-10 else 0)
        return [flag.split(":")[0] for flag in orbit_flags(barrier, barrier.height / 40)]

    for gap in (0.3, 0.5):
        assert flags(gap) == []
    for gap in (1e-2, 1e-4, 1e-6, 1e-8, 1e-9):
        assert flags(gap) == ["soft mode at the saddle"]
    for gap in (0.0, 1e-12, 1e-15):
        assert flags(gap) == []
    # Equal ones share everything: the rate of two features that differ by rounding is that of the exact degeneracy.
    rates = []
    for gap in (0.0, 1e-13):
        barrier = MatrixNetwork((2, 2, 2, 2), (1.0, 1.0 - gap), weight_decay=0.25).barrier()
        rates.append(eyring_kramers_rate(barrier, barrier.height / 40, warn=False).value)
    assert rates[1] == pytest.approx(rates[0], rel=1e-9)


def test_a_turning_feature_is_the_limit_of_the_exact_angle() -> None:
    """Nearly equal features at widths of one: the angle's exact integral joins the two Gaussian limits.

    A saddle turned by θ from the stronger feature to the weaker costs ½ κT (1 − cos 2θ) more, κ = a_s² μ/T with the
    soft curvature μ. Integrated over the circle: 2π e^{−κ/2} I₀(κ/2), against 2π without the gap. The Gaussian about
    θ = 0 and π falls short of it by the fraction 1/(4κ).
    """
    decay, gap = 0.25, 0.02
    equal = MatrixNetwork((2, 1, 1, 2), (1.0, 1.0), decay).barrier()
    split = MatrixNetwork((2, 1, 1, 2), (1.0, 1.0 - gap), decay).barrier()
    a = equal.saddle_amplitude
    for kappa in (5.0, 10.0, 20.0):
        temperature = 0.5 * (math.sqrt(2) * a) ** 2 * split.saddle_spectrum[1] / kappa
        rates = [eyring_kramers_rate(b, temperature, warn=False).value for b in (split, equal)]
        # the amplitudes differ by O(gap)
        angle = ive(0, kappa / 2)
        height = math.exp(-(split.height - equal.height) / temperature)
        measured = rates[0] / rates[1] / height * (1 + 0.25 / kappa)
        assert measured == pytest.approx(angle, rel=0.4 / kappa**2 + gap)


# ---------------------------------------------------------------- refusals

TWO = MatrixNetwork((3, 2, 2, 3), (1.5, 1.2, 0.9), weight_decay=0.3)


@pytest.mark.parametrize(
    ("call", "error", "words"),
    [
        (lambda: TWO.barrier(0, feature=2), NoBarrierError, r"feature 2 .*index 3, expected 1.*\n.*barrier\(0\)"),
        (lambda: TWO.barrier(2), NoBarrierError, r"2 units, and rank=2.*\n.*at least 3"),
        (lambda: TWO.state(3), InvalidParameterError, r"`rank` = 3, expected at most 2.*narrowest hidden layer 2"),
        (lambda: TWO.state(-1), InvalidParameterError, r"`rank` = -1, expected an integer >= 0"),
        (
            lambda: TWO.saddle(1, feature=0),
            InvalidParameterError,
            r"`feature` = 0, expected at least rank = 1.*\n.*forget",
        ),
        (lambda: TWO.saddle(1, feature=3), InvalidParameterError, r"`feature` = 3, expected below 3"),
        (lambda: TWO.forgetting_barrier(0), InvalidParameterError, r"`rank` = 0, expected at least 1"),
        (
            lambda: MatrixNetwork((1, 2, 2, 1), (1.0,), 0.25).barrier(1),
            NoBarrierError,
            r"All 1 features .*\n.*forgetting_barrier\(1\)",
        ),
        (lambda: MatrixNetwork((1, 2, 2, 1), (1.0,), 0.5).barrier(), NoBarrierError, "not below λ_spinodal"),
        (lambda: MatrixNetwork((2, 3, 3, 2), (2.0, 0.5), 0.4).barrier(1), NoBarrierError, "singular_value=0.5"),
        (lambda: MatrixNetwork((1, 2, 1), (1.0,), 0.25).barrier(), NoBarrierError, "continuous"),
        (lambda: MatrixNetwork((1, 2, 1), (1.0,), 0.25).state(0), NoBarrierError, "continuous"),
        (lambda: MatrixNetwork((1, 1), (1.0,), 0.25), InvalidParameterError, r"`widths` = \(1, 1\).*hidden layer"),
        (lambda: MatrixNetwork((1, 0, 1), (1.0,), 0.25), InvalidParameterError, "`widths` = 0"),
        (lambda: MatrixNetwork((2, 2, 2, 1), (1.0, 0.5), 0.25), InvalidParameterError, "1 to 1 numbers.*\n.*zeros"),
        (lambda: MatrixNetwork((2, 2, 2, 2), (), 0.25), InvalidParameterError, "1 to 2 numbers"),
        (lambda: MatrixNetwork((2, 2, 2, 2), (1.0, 0.0), 0.25), InvalidParameterError, "`singular_values` = 0.0,"),
        (lambda: MatrixNetwork((2, 2, 2, 2), (1.0,), 0.0), InvalidParameterError, "`weight_decay` = 0.0"),
        (lambda: MatrixNetwork((2, 2, 2, 2), (1.0,), 0.1, np.nan), InvalidParameterError, "`input_variance` = nan"),
    ],
)
def test_refusals(call: Callable[[], object], error: type[Exception], words: str) -> None:
    with pytest.raises(error, match=words):
        call()


def test_the_canonical_point_lies_where_it_is_said_to() -> None:
    point = MatrixNetwork((3, 2, 3, 4), (1.5, 1.2, 0.9), weight_decay=0.3).saddle(1, feature=2)
    a, b = point.amplitudes
    layers = [np.zeros((above, below)) for below, above in pairwise((3, 2, 3, 4))]
    for l, layer in enumerate(layers):
        layer[0, 0] = a
        layer[2 if l == 2 else 1, 2 if l == 0 else 1] = b
    np.testing.assert_array_equal(point.theta, np.concatenate([w.ravel() for w in layers]))
    assert point.features == (0, 2)
    np.testing.assert_allclose(point.order_parameters, [a**3, 0, b**3])


def test_a_channel_is_what_the_modes_say() -> None:
    channel = TWO._learned(1)
    assert isinstance(channel, Channel)
    assert channel.residual == pytest.approx(1.2 - channel.amplitude**3, rel=1e-12)
    assert channel.along == pytest.approx(3 * channel.amplitude**4 - 0.3, rel=1e-12)
