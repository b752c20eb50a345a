"""The mode's closed forms against high precision, the chain's spectra, and every refusal."""

from __future__ import annotations

import pickle

import mpmath as mp
import numpy as np
import pytest
import sympy
from hypothesis import given, settings
from hypothesis import strategies as st

from kramers_grok.core.exceptions import InvalidParameterError, NoBarrierError
from kramers_grok.theory import deep_linear as dl
from kramers_grok.theory.deep_linear import DeepLinearChain, Mode

SCALES = [(1.0, 1.0), (1e-6, 3e5), (1e8, 1e-7), (2.3, 0.7)]
FRACTIONS = [1e-12, 1e-3, 0.0099, 0.0101, 0.5, 0.97, 0.9899, 0.9901, 1 - 1e-5, 1 - 1e-10, 1 - 1e-13]

QUANTITIES = (
    dl.saddle_amplitude,
    dl.learned_amplitude,
    dl.barrier_height,
    dl.forgetting_barrier_height,
    dl.saddle_curvature,
    dl.learned_curvature,
)


def high_precision(depth, sigma, decay, q):
    """The same six quantities from the definitions, by bisection in 80 digits."""
    with mp.workdps(80):
        s, lam, v = mp.mpf(sigma), mp.mpf(decay), mp.mpf(q)

        def slope(log_m):
            m = mp.exp(log_m)
            return v * m ** (1 - mp.mpf(2) / depth) * (s - m) - lam

        top = mp.log(s * (depth - 2) / (2 * (depth - 1)))
        roots = []
        for outer in (top - 200, mp.log(s)):
            inner = top  # the slope is positive here and negative at the outer end
            for _ in range(60):
                middle = (inner + outer) / 2
                inner, outer = (middle, outer) if slope(middle) > 0 else (inner, middle)
            roots.append(mp.findroot(slope, (inner + outer) / 2, tol=1e-120, verify=False))
            assert slope(inner) > 0 >= slope(outer)
            assert min(inner, outer) <= roots[-1] <= max(inner, outer)
        a_s, a_l = (mp.exp(r / depth) for r in roots)

        def energy(a):
            return v * (s - a**depth) ** 2 / 2 + depth * lam * a**2 / 2

        curvatures = [depth * v * a ** (2 * depth - 2) - (depth - 2) * lam for a in (a_s, a_l)]
        heights = [energy(a_s) - energy(mp.mpf(0)), energy(a_s) - energy(a_l)]
        return [a_s, a_l, *heights, *curvatures]


@pytest.mark.parametrize("depth", [3, 4, 7, 20])
@pytest.mark.parametrize(("sigma", "q"), SCALES)
def test_quantities_against_high_precision(depth, sigma, q):
    decays = float(dl.spinodal(depth, sigma, q)) * np.array(FRACTIONS)
    got = [f(depth, sigma, decays, q) for f in QUANTITIES]
    for i, decay in enumerate(decays):
        for f, value, reference in zip(QUANTITIES, got, high_precision(depth, sigma, decay, q), strict=True):
            error = abs(float((mp.mpf(float(value[i])) - reference) / reference))
            assert error < 1e-9, (f.__name__, depth, sigma, q, FRACTIONS[i], error)


@pytest.mark.parametrize(
    ("depth", "spinodal", "binodal", "at_binodal", "at_half"),
    [
        (3, 0.472470393711, 0.396850262992, 0.0337211244341, 0.00393750808551),
        (4, 0.384900179460, 0.272165526976, 0.0773502691896, 0.0186967157135),
    ],
)
def test_published_table(depth, spinodal, binodal, at_binodal, at_half):
    exact = dl.binodal(depth, 1.0)
    got = [
        dl.spinodal(depth, 1.0),
        exact,
        dl.barrier_height(depth, 1.0, exact),
        dl.barrier_height(depth, 1.0, exact / 2),
    ]
    np.testing.assert_allclose(got, [spinodal, binodal, at_binodal, at_half], rtol=1e-11)
    np.testing.assert_allclose(dl.forgetting_barrier_height(depth, 1.0, exact), at_binodal, rtol=1e-11)


def test_depth_four_is_a_cubic_with_trigonometric_roots():
    decay = np.linspace(0.01, 0.38, 40)
    angle = np.arccos(-decay * 1.5 * np.sqrt(3)) / 3
    roots = 2 / np.sqrt(3) * np.cos(angle[:, None] - 2 * np.pi * np.arange(3) / 3)
    np.testing.assert_allclose(dl.learned_amplitude(4, 1.0, decay) ** 2, roots[:, 0], rtol=1e-13)
    np.testing.assert_allclose(dl.saddle_amplitude(4, 1.0, decay) ** 2, roots[:, 1], rtol=1e-12)


def test_symbolic_expressions_are_stationary_and_agree_with_the_numbers():
    values = {dl.DEPTH: 5, dl.SINGULAR_VALUE: sympy.Rational(13, 10), dl.INPUT_VARIANCE: sympy.Rational(7, 10)}
    slope = sympy.diff(dl.free_energy_expression(), dl.AMPLITUDE)
    stationary = slope.subs(dl.WEIGHT_DECAY, dl.stationary_weight_decay_expression())
    assert sympy.simplify(stationary) == 0
    for expression, function in (
        (dl.spinodal_expression(), dl.spinodal),
        (dl.binodal_expression(), dl.binodal),
    ):
        assert float(expression.subs(values)) == pytest.approx(float(function(5, 1.3, 0.7)), rel=1e-14)
    assert dl.free_energy_latex().startswith("F(a) = ")


def test_small_weight_decay_has_the_asymptotic_barrier():
    for depth in (3, 4, 6):
        asymptotic = (depth - 2) / 2 * 1e-9 * (1e-9 / 1.4) ** (2 / (depth - 2))
        assert float(dl.barrier_height(depth, 2.0, 1e-9, 0.7)) == pytest.approx(asymptotic, rel=1e-4)


@settings(deadline=None, max_examples=50)
@given(
    st.integers(3, 12),
    st.floats(0.1, 10),
    st.floats(0.1, 10),
    st.floats(0.01, 0.99),
)
def test_rescaling_and_order(depth, sigma, q, fraction):
    decay = fraction * float(dl.spinodal(depth, sigma, q))
    height = float(dl.barrier_height(depth, sigma, decay, q))
    unit = float(dl.barrier_height(depth, 1.0, decay / (q * sigma ** (2 - 2 / depth))))
    assert height == pytest.approx(q * sigma**2 * unit, rel=1e-10)
    saddle, learned = dl.saddle_amplitude(depth, sigma, decay, q), dl.learned_amplitude(depth, sigma, decay, q)
    assert 0 < saddle < learned < sigma ** (1 / depth)
    assert float(dl.binodal(depth, sigma, q)) < float(dl.spinodal(depth, sigma, q))
    assert dl.saddle_curvature(depth, sigma, decay, q) < 0 < dl.learned_curvature(depth, sigma, decay, q)


def test_arrays_broadcast_and_missing_states_are_nan():
    heights = dl.barrier_height(np.array([[2], [3], [4]]), 1.0, np.array([0.2, 0.4, 1.0]))
    assert heights.shape == (3, 3)
    assert np.isnan(heights).tolist() == [[True] * 3, [False, False, True], [False, True, True]]
    assert np.isnan(dl.learned_amplitude(2, 1.0, [0.5, 1.0])).tolist() == [False, True]
    for f in QUANTITIES:
        one_by_one = [float(f(3, s, 0.1)) for s in (1.0, 2.0)]
        np.testing.assert_allclose(f(3, np.array([1.0, 2.0]), 0.1), one_by_one, rtol=1e-14)


@pytest.mark.parametrize("kind", [Mode, DeepLinearChain])
@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"depth": 1}, "one layer is linear regression"),
        ({"depth": 2.5}, "depth"),
        ({"singular_value": 0.0}, "singular_value"),
        ({"singular_value": -1.0}, "flip the sign"),
        ({"weight_decay": 0.0}, "a = 0 is no minimum"),
        ({"weight_decay": float("nan")}, "weight_decay"),
        ({"input_variance": -1.0}, "input_variance"),
    ],
)
def test_bad_parameters(kind, change, words):
    arguments = {"depth": 3, "singular_value": 1.0, "weight_decay": 0.1, "input_variance": 1.0} | change
    with pytest.raises(InvalidParameterError, match=words):
        kind(**arguments)
    with pytest.raises(InvalidParameterError, match=words):
        dl.barrier_height(**arguments)


@pytest.mark.parametrize("kind", [Mode, DeepLinearChain])
def test_no_barrier(kind):
    for make in ("barrier", "forgetting_barrier"):
        with pytest.raises(NoBarrierError, match=r"continuous.*onset weight_decay = qσ = 1\.5"):
            getattr(kind(2, 1.5, 0.1), make)()
        with pytest.raises(NoBarrierError, match=r"λ_spinodal = 0\.4724703937"):
            getattr(kind(3, 1.0, 0.5), make)()
    with pytest.raises(NoBarrierError, match="λ_spinodal"):
        kind(3, 1.0, 0.5).learned_amplitude()


@pytest.mark.parametrize("depth", [3, 4, 5])
@pytest.mark.parametrize(("sigma", "q"), [(1.0, 1.0), (2.3, 0.7)])
def test_barriers_of_mode_and_chain(depth, sigma, q):
    decay = 0.6 * float(dl.spinodal(depth, sigma, q))
    chain = DeepLinearChain(depth, sigma, decay, q)
    parameters = (depth, sigma, decay, q)
    for barrier in (chain.barrier(), chain.mode.barrier(), chain.forgetting_barrier(), chain.mode.forgetting_barrier()):
        points = np.stack([barrier.minimum, barrier.saddle, barrier.destination])
        np.testing.assert_allclose(barrier.landscape.gradient_at(points), 0, atol=1e-12 * q * sigma**2)
        energy = barrier.landscape.energy_at(points)
        assert barrier.height == pytest.approx(energy[1] - energy[0], rel=1e-9)
    along, across = float(dl.saddle_curvature(*parameters)), [2 * decay] * (depth - 1)
    np.testing.assert_allclose(chain.barrier().saddle_spectrum, [along, *across], rtol=1e-9)
    np.testing.assert_allclose(chain.mode.barrier().saddle_spectrum, [along], rtol=1e-9)
    np.testing.assert_allclose(chain.barrier().minimum_spectrum, decay, rtol=1e-12)
    learned = sorted([float(dl.learned_curvature(*parameters)), *across])
    np.testing.assert_allclose(chain.forgetting_barrier().minimum_spectrum, learned, rtol=1e-9)
    assert chain.barrier().multiplicity == 2 ** (depth - 1)
    assert chain.mode.barrier().multiplicity == (2 if depth % 2 == 0 else 1)


def test_mode_follows_the_chain_on_the_balanced_path():
    chain = DeepLinearChain(4, 1.3, 0.2, 0.8)
    amplitude = np.linspace(0, 1.2, 7)
    x = chain.mode.coordinate(amplitude**4)
    np.testing.assert_allclose(x, 2 * amplitude, rtol=1e-14)
    on_path = chain.landscape.energy_at(np.repeat(amplitude[:, None], 4, axis=1))
    np.testing.assert_allclose(chain.mode.landscape.energy_at(x[:, None]), on_path, rtol=1e-13)
    np.testing.assert_allclose(chain.mode.free_energy(amplitude), on_path, rtol=1e-13)
    np.testing.assert_allclose(chain.mode.landscape.order_parameters_at(x[:, None])[:, 0], amplitude**4, atol=1e-15)
    assert float(Mode(3, 1.0, 0.1).coordinate(-0.125)) == pytest.approx(-np.sqrt(3) / 2)
    with pytest.raises(InvalidParameterError, match="never negative"):
        chain.mode.coordinate(-0.1)


def test_from_data():
    x = np.array([1.0, -2.0, 3.0])
    chain = DeepLinearChain.from_data(x, 0.5 * x, depth=3, weight_decay=0.1)
    assert (chain.singular_value, chain.input_variance) == (0.5, pytest.approx(14 / 3))
    mode = Mode.from_data(x, depth=4, weight_decay=0.2)
    assert isinstance(mode, Mode)
    assert (mode.singular_value, mode.depth, mode.weight_decay) == (1.0, 4, 0.2)
    with pytest.raises(InvalidParameterError, match=r"Use `-y`"):
        DeepLinearChain.from_data(x, -x, depth=3, weight_decay=0.1)
    with pytest.raises(InvalidParameterError, match=r"`y` has shape \(2,\), expected \(3,\)"):
        DeepLinearChain.from_data(x, x[:2], depth=3, weight_decay=0.1)
    with pytest.raises(InvalidParameterError, match="scalar"):
        DeepLinearChain.from_data(np.stack([x, x], axis=1), depth=3, weight_decay=0.1)
    assert DeepLinearChain.from_data(x[:, None], depth=3, weight_decay=0.1) == DeepLinearChain.from_data(
        x, depth=3, weight_decay=0.1
    )
    with pytest.raises(InvalidParameterError, match="all zeros"):
        DeepLinearChain.from_data(0 * x, depth=3, weight_decay=0.1)
    with pytest.raises(InvalidParameterError, match="at least one element"):
        DeepLinearChain.from_data([], depth=3, weight_decay=0.1)


def test_modes_and_chains_travel_to_other_processes():
    for thing in (Mode(3, 1.0, 0.2), DeepLinearChain(3, 1.0, 0.2)):
        thing.landscape.energy_at(np.zeros(thing.landscape.dimension))  # compiled functions exist now
        assert pickle.loads(pickle.dumps(thing)) == thing
