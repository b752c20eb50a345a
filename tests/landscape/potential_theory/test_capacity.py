"""Rates by potential theory against exact solutions, and simulations that know nothing of them."""

import math

import numpy as np
import pytest
from scipy.linalg import expm

import kramers_grok as kg
from kramers_grok.core.exceptions import InvalidParameterError, ValidityWarning
from kramers_grok.landscape.barriers import find_barrier
from kramers_grok.landscape.numerical_barrier import NumericalBarrier
from kramers_grok.landscape.points import find_minimum
from kramers_grok.landscape.potential_theory.annealing import annealed
from kramers_grok.landscape.potential_theory.capacity import CapacityRate, capacity_rate
from kramers_grok.landscape.potential_theory.committor import TrialCommittor
from kramers_grok.landscape.potential_theory.path_noise import path_log_factor, variance_along
from kramers_grok.landscape.potential_theory.pseudo_orbit import PseudoOrbit
from kramers_grok.landscape.potential_theory.slice_energy import SliceEnergy
from kramers_grok.landscape.potential_theory.wells import normal_blocks, sampled_mean
from kramers_grok.landscape.surface import Surface
from kramers_grok.models.activations import Identity, Tanh
from kramers_grok.models.base import SymbolicModel
from kramers_grok.models.data import linear_teacher_data
from kramers_grok.models.deep_linear import DeepLinearNetwork
from kramers_grok.models.mlp import MLP
from kramers_grok.theory.deep_linear import DeepLinearChain
from kramers_grok.theory.gradient_noise import EmpiricalResidualVariance
from kramers_grok.theory.minibatch import MinibatchNoise, PathNoise, minibatch_log_factor
from kramers_grok.theory.radial import RadialFreeEnergy
from kramers_grok.theory.radial_minibatch import radial_minibatch_log_factor
from kramers_grok.theory.rates import eyring_kramers_rate

DRAWS = {"seed": 3, "n_samples": 2**13, "n_blocks": 8}
# Exact mean times of the chain of three weights, σ = 1, λ = ¼, from 0 to m ≥ 0.1, by ΔF/T
CHAIN = {4: 778.1, 6: 5548.0, 8: 40_218.0, 10: 294_031.0}


@pytest.fixture(scope="module")
def chain() -> NumericalBarrier:
    theory = DeepLinearChain(depth=3, singular_value=1.0, weight_decay=0.25)
    known = theory.barrier()
    return find_barrier(SymbolicModel(theory.landscape), known.minimum, known.destination, n_paths=1)


@pytest.fixture(scope="module")
def linear() -> NumericalBarrier:
    network = DeepLinearNetwork((1, 2, 2, 1), [1.0], weight_decay=0.25)
    known = network.theory.barrier()
    return find_barrier(network, known.minimum, known.destination, n_paths=1)


def tanh_network() -> MLP:
    data = linear_teacher_data([[1.0]], n_samples=16, label_noise=0.0, seed=0, whiten=True)
    return MLP.from_data(data, (2, 2), Tanh(), weight_decay=0.25)


@pytest.fixture(scope="module")
def soft() -> NumericalBarrier:
    """Two hidden layers of two tanh units: rotations are broken by a curvature of 0.001."""
    network = tanh_network()
    return find_barrier(network, np.zeros(8), find_minimum(network, np.full(8, 0.6)), n_paths=1)


# ---------------------------------------------------------------- exact solutions


@pytest.mark.parametrize("ratio", CHAIN)
def test_chain_against_the_exact_time(chain: NumericalBarrier, ratio: int) -> None:
    rate = capacity_rate(chain, chain.height / ratio, **DRAWS)
    assert rate.valid
    assert not rate.over_pseudo_orbit
    # One standard deviation is stated; a twentieth of what the harmonic formula misses is the most it may be.
    harmonic = CHAIN[ratio] / eyring_kramers_rate(chain, chain.height / ratio, warn=False).mean_time - 1
    assert rate.relative_error < 0.1 * harmonic + 0.001
    assert abs(CHAIN[ratio] / rate.mean_time - 1) < 4.4 * rate.relative_error
    low, high = rate.interval
    assert low < rate.mean_time < high


def test_the_bent_trial_closes_the_gap(chain: NumericalBarrier) -> None:
    # The capacity is a minimum over trials: straight level sets give a higher one, and a wider gap.
    surface, heat = Surface(chain.model), chain.height / 6
    orbit = PseudoOrbit((), chain.saddle)
    trial = TrialCommittor(
        SliceEnergy(surface, orbit, heat, []), orbit.slice_of_point, chain.destination - chain.saddle
    )
    straight = TrialCommittor(trial.energy, trial.start, trial.forth)
    straight.__dict__["_bend"] = (0.0, np.zeros(2), np.zeros((2, 2)), 0.0)
    spread = np.sqrt(1.15 * heat / np.concatenate([[trial.growth], trial.curvatures]))
    values, gaps = {}, {}
    for name, one in (("bent", trial), ("straight", straight)):
        u = np.concatenate(normal_blocks(3, 2**13, 8, 0))
        c = u * spread
        theta = orbit.points(one.xi(c))
        weight = np.exp(0.5 * (u**2).sum(axis=1) - (surface.energies(theta) - chain.saddle_point.energy) / heat)
        flow = one.flow(c)
        values[name] = heat * float((weight * flow.square).mean())
        exact = one.laplacian(c, np.random.default_rng(0))[0]
        residual = heat * exact - (flow.gradient * surface.gradients(theta)).sum(axis=1)
        gaps[name] = float((weight * residual**2).mean()) / one.growth / values[name]
    assert values["bent"] < values["straight"]
    assert gaps["bent"] < 0.1 * gaps["straight"]
    # The straight trial's own bounds hold the bent trial's capacity.
    assert (1 - gaps["straight"]) * values["straight"] < values["bent"]


def test_laplacian_and_gradient_of_the_trial(linear: NumericalBarrier) -> None:
    # On a pseudo-orbit, against differences of q in weight space.
    surface = Surface(linear.model)
    orbit = PseudoOrbit(linear.symmetry.softened.layers, linear.saddle)
    forth = (linear.destination - linear.saddle) @ orbit.normals
    trial = TrialCommittor(SliceEnergy(surface, orbit, linear.height / 8, []), orbit.slice_of_point, forth)
    c = 0.5 / trial.scale * np.random.default_rng(1).normal(size=(4, orbit.normals.shape[1]))
    theta = orbit.points(trial.xi(c))

    def q(points: np.ndarray) -> np.ndarray:
        """q at any points: turned to the slice by Newton's method on the two angles."""
        out = []
        for point in points:
            for _ in range(4):
                moved = orbit.tangents.T @ np.einsum("aij,j->ia", orbit._frame[0], point)
                angle = np.linalg.solve(moved, -orbit.tangents.T @ (point - orbit.reference))
                point = expm(np.tensordot(angle, orbit._frame[0], axes=1)) @ point
            xi = (point - orbit.reference) @ orbit.normals
            out.append(trial.value(np.linalg.solve(trial.frame, xi - trial.centre)[None])[0])
        return np.array(out)

    step = 1e-3
    value = q(theta)
    gradient, laplacian = np.zeros_like(theta), np.zeros(len(theta))
    for i, e in enumerate(step * np.eye(theta.shape[1])):
        up, down = q(theta + e), q(theta - e)
        gradient[:, i] = (up - down) / (2 * step)
        laplacian += (up + down - 2 * value) / step**2
    flow = trial.flow(c)
    slope, square = flow.gradient, flow.square
    assert np.allclose(gradient, slope, atol=2e-3 * np.abs(slope).max())
    assert np.allclose((slope**2).sum(axis=1), square)
    exact, same = trial.laplacian(c, np.random.default_rng(0))
    assert exact is same
    assert np.allclose(laplacian, exact, atol=5e-3 * np.abs(exact).max())


# ---------------------------------------------------------------- pseudo-orbits


def test_linear_network_against_simulations(linear: NumericalBarrier) -> None:
    # Simulated at dt = 0.1 (399 ± 5, 1938 ± 38, 11071 ± 384); the formula for orbits is off by 1.47, 1.29, 1.24.
    for ratio, time, error in ((6, 399, 5), (8, 1938, 38), (10, 11_071, 384)):
        rate = capacity_rate(linear, linear.height / ratio, **DRAWS)
        rates = [eyring_kramers_rate(linear, linear.height / ratio, step=h, warn=False) for h in (0.1, 0.0)]
        step = rates[0].value / rates[1].value
        sigma = math.hypot(rate.relative_error, error / time)
        assert rate.over_pseudo_orbit
        assert abs(time * rate.value * step - 1) < 4.4 * sigma, ratio
        assert sigma < 0.05


def test_a_network_without_activation_is_the_linear_one(linear: NumericalBarrier) -> None:
    # Broken rotations that are exact: the sum over Haar's measure has to see a constant.
    data = linear_teacher_data([[1.0]], n_samples=8, label_noise=0.0, seed=0, whiten=True)
    network = MLP.from_data(data, (2, 2), Identity(), weight_decay=0.25)
    known = linear.model.theory.barrier()  # type: ignore[attr-defined]
    barrier = find_barrier(network, known.minimum, known.destination, n_paths=1)
    one, other = (capacity_rate(b, b.height / 8, **DRAWS) for b in (barrier, linear))
    assert abs(one.value / other.value - 1) < 4.4 * math.hypot(one.sampling_error, other.sampling_error)


def test_the_ridge_turns_with_its_own_derivative(soft: NumericalBarrier) -> None:
    orbit = PseudoOrbit(soft.symmetry.softened.layers, soft.saddle)
    turns = orbit.rotations(np.random.default_rng(2).normal(size=(64, orbit.n_normals)))
    energy = SliceEnergy(Surface(soft.model), orbit, soft.height / 8, turns)
    trial = TrialCommittor(energy, orbit.slice_of_point, (soft.destination - soft.saddle) @ orbit.normals)
    ridge = trial.ridge(turns)
    assert ridge is not None
    assert trial.ridge([]) is None
    assert 0.02 < np.abs(ridge.shift).max() < 3  # thermal lengths: broken, and little
    for axis in range(orbit.dimension):
        ends = [trial.ridge(orbit.nudged(turns, axis, angle)) for angle in (1e-4, -1e-4)]
        difference = (ends[0].shift - ends[1].shift) / 2e-4  # type: ignore[union-attr]
        assert np.allclose(difference, ridge.turn[:, axis], atol=1e-5 * np.abs(ridge.turn).max() + 1e-7)


def test_soft_rotations_against_a_simulation(soft: NumericalBarrier) -> None:
    """Langevin, 256 replicas: 6 % standard error; the harmonic formula, off by a factor 8, is the negative control."""
    heat, step = soft.height / 6, 0.1
    rate = capacity_rate(soft, heat, **DRAWS)
    assert rate.valid
    assert rate.over_pseudo_orbit
    assert rate.relative_error < 0.05
    process = kg.Langevin(soft.model, temperature=heat, dt=step)
    run = kg.first_passage(
        process, target=kg.beyond(soft), n_replicas=256, max_time=2e4, seed=11, start=soft.minimum, bridge=False
    )
    measured = kg.mean_exit_time(run)
    harmonic = eyring_kramers_rate(soft, heat, warn=False)
    predicted = rate.mean_time * harmonic.value / eyring_kramers_rate(soft, heat, step=step, warn=False).value
    sigma = math.hypot(measured.standard_error / measured.value, rate.relative_error)
    assert abs(measured.value / predicted - 1) < 4.4 * sigma
    assert measured.value / harmonic.mean_time > 4  # and says so
    assert any("soft mode at the saddle" in flag for flag in harmonic.flags)


def test_the_seed_is_the_whole_randomness(soft: NumericalBarrier) -> None:
    draws = {"n_samples": 2**9, "n_blocks": 4}
    first, again, other = (capacity_rate(soft, soft.height / 10, seed=s, **draws) for s in (0, 0, 1))
    assert first == again
    assert first.value != other.value
    assert abs(first.value / other.value - 1) < 5 * math.hypot(first.sampling_error, other.sampling_error)


def test_a_melted_trap_says_so(linear: NumericalBarrier) -> None:
    with pytest.warns(ValidityWarning, match="melted"):
        rate = capacity_rate(linear, linear.height / 3.5, **DRAWS)
    assert not rate.valid
    assert rate.border_share > 0.15


def test_arguments_are_checked(chain: NumericalBarrier) -> None:
    with pytest.raises(InvalidParameterError, match="without noise nothing escapes"):
        capacity_rate(chain, 0.0, seed=0)
    with pytest.raises(InvalidParameterError, match="n_blocks"):
        capacity_rate(chain, 1.0, seed=0, n_blocks=2)
    with pytest.raises(InvalidParameterError, match="n_samples"):
        capacity_rate(chain, 1.0, seed=0, n_samples=10)
    with pytest.raises(InvalidParameterError, match="seed"):
        capacity_rate(chain, 1.0, seed=-1)
    assert math.isnan(CapacityRate(1.0, "", 1.0, True, "").relative_error)


# ---------------------------------------------------------------- draws


def test_annealed_weights_are_unbiased() -> None:
    # A quartic well in five dimensions: ∫e^{−u²/2 − u⁴/4} for each, by quadrature.
    x = np.linspace(-8, 8, 4001)
    one = np.trapezoid(np.exp(-0.5 * x**2 - 0.25 * x**4), x) / math.sqrt(2 * math.pi)
    rng = np.random.default_rng(0)

    def quartic(u: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        return -(0.5 * u**2 + 0.25 * u**4).sum(axis=1), -u - u**3

    u, log_weight = annealed(quartic, rng.normal(size=(4000, 5)), rng)
    weight = np.exp(log_weight)
    error = weight.std() / math.sqrt(len(weight)) / weight.mean()
    assert error < 0.02
    assert abs(weight.mean() / one**5 - 1) < 4.4 * error
    # The draws are the density's: their second moment.
    density = np.exp(-0.5 * x**2 - 0.25 * x**4)
    second = np.trapezoid(x**2 * density, x) / np.trapezoid(density, x)
    assert abs((weight @ (u**2).mean(axis=1)) / weight.sum() / second - 1) < 0.05


def test_blocks_state_their_error() -> None:
    blocks = normal_blocks(2, 2**12, 8, 1)
    assert len(blocks) == 8
    assert all(block.shape == (512, 2) for block in blocks)
    mean = sampled_mean(0.5, [block[:, 0] ** 2 for block in blocks])
    assert abs(math.exp(mean.log_value - 0.5) - 1) < 5 * mean.relative_error + 1e-3
    assert sampled_mean(0.0, [np.zeros(4)] * 4).relative_error == math.inf


# ---------------------------------------------------------------- minibatches


def test_noise_along_the_path_is_the_modes() -> None:
    # A chain of three scalar weights on data: the closed form of its balanced mode knows the same noise.
    data = linear_teacher_data([[1.0]], n_samples=32, label_noise=0.5, seed=1, whiten=True)
    network = MLP.from_data(data, (1, 1), Identity(), weight_decay=0.25)
    linear = network.linear.theory
    known = linear.barrier()
    barrier = find_barrier(network, known.minimum, known.destination, n_paths=1)
    mode, heat, noise = linear.mode(0), barrier.height / 10, 0.002
    variance = EmpiricalResidualVariance(data.x[:, 0], data.y[:, 0])
    closed = minibatch_log_factor(mode, heat, MinibatchNoise(noise, variance))
    along = path_log_factor(barrier, heat, PathNoise(noise))
    assert closed > 0.01
    assert math.isclose(along, closed, rel_tol=2e-4)
    assert variance_along(barrier)[0] < 1e-12  # gated: no noise at the state without weights
    with pytest.raises(InvalidParameterError, match="lr_over_batch"):
        PathNoise(-1.0)


def test_with_soft_rotations_only_what_entropy_leaves_is_climbed() -> None:
    # The radial free energy of the linear network, in its own coordinates and with its own path, is the other route;
    # the two share the covariance of one feature. Their paths differ, by a share of the order T/ΔF.
    data = linear_teacher_data([[1.0]], n_samples=32, label_noise=0.5, seed=1, whiten=True)
    network = MLP.from_data(data, (4, 4), Identity(), weight_decay=0.25)
    linear = network.linear.theory
    known = linear.barrier()
    barrier = find_barrier(network, known.minimum, known.destination, n_paths=1)
    variance = EmpiricalResidualVariance(data.x[:, 0], data.y[:, 0])
    for ratio in (20.0, 40.0, 200.0):
        heat, noise = barrier.height / ratio, 0.002
        radial = radial_minibatch_log_factor(RadialFreeEnergy(linear, heat), MinibatchNoise(noise, variance))
        along = path_log_factor(barrier, heat, PathNoise(noise))
        assert math.isclose(along, radial, rel_tol=2 / ratio)
        # The negative control: the whole loss as what is climbed
        whole = minibatch_log_factor(linear.mode(0), heat, MinibatchNoise(noise, variance))
        assert whole > radial * (1 + 5 / ratio)


def test_noise_of_a_model_without_samples_is_refused(chain: NumericalBarrier) -> None:
    with pytest.raises(InvalidParameterError, match="finite data set"):
        variance_along(chain)
