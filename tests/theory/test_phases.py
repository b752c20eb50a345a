"""Phases against Hessians of whole matrix networks (by differences), and the makers' refusals."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from kramers_grok.core.exceptions import InvalidParameterError, NoBarrierError
from kramers_grok.theory import mode_states
from kramers_grok.theory.phases import FeatureSpectrum
from kramers_grok.theory.stability import closed_sets, closure, count_closed_sets


def network_gradient(layers, sigma, q, decay):
    """Gradient of the matrix network's loss, for a batch of networks; layers[l] has shape (batch, out, in)."""
    below = [np.eye(len(q))]
    for layer in layers:
        below.append(layer @ below[-1])
    above = (below[-1] - np.diag(sigma)) * np.asarray(q)
    gradients = []
    for layer, under in zip(reversed(layers), reversed(below[:-1]), strict=True):
        gradients.append(above @ np.swapaxes(under, -1, -2) + decay * layer)
        above = np.swapaxes(layer, -1, -2) @ above
    return np.concatenate([g.reshape(len(g), -1) for g in reversed(gradients)], axis=1)


def network_index(depth, sigma, q, decay, amplitudes):
    """Number of negative Hessian eigenvalues at a diagonal point, by central differences of the gradient."""
    k, width = len(sigma), len(sigma) + 1
    widths = [k, *[width] * (depth - 1), k]
    diagonal = []
    for rows, columns in zip(widths[1:], widths[:-1], strict=True):
        layer = np.zeros((rows, columns))
        layer[range(k), range(k)] = amplitudes
        diagonal.append(layer)
    flat = np.concatenate([layer.ravel() for layer in diagonal])

    def gradient(points):
        parts = np.split(points, np.cumsum([layer.size for layer in diagonal])[:-1], axis=1)
        layers = [part.reshape(-1, *layer.shape) for part, layer in zip(parts, diagonal, strict=True)]
        return network_gradient(layers, sigma, q, decay)

    assert np.abs(gradient(flat[None])).max() < 1e-12 * max(q) * max(sigma) ** 2
    step = 1e-5 * np.eye(flat.size)
    hessian = (gradient(flat + step) - gradient(flat - step)) / 2e-5
    np.testing.assert_allclose(hessian, hessian.T, atol=1e-8 * np.abs(hessian).max())
    spectrum = np.linalg.eigvalsh(hessian)
    return int((spectrum < -1e-7 * spectrum.max()).sum())


def point(spectrum, depth, decay, learned, saddle=None):
    arguments = (depth, spectrum.singular_values, decay, spectrum.input_variances)
    amplitudes = np.zeros(spectrum.rank)
    amplitudes[list(learned)] = mode_states.learned_amplitude(*arguments)[list(learned)]
    if saddle is not None:
        amplitudes[saddle] = mode_states.saddle_amplitude(*arguments)[saddle]
    return amplitudes.tolist()


def index(spectrum, depth, decay, learned, saddle=None):
    amplitudes = point(spectrum, depth, decay, learned, saddle)
    return network_index(depth, list(spectrum.singular_values), list(spectrum.input_variances), decay, amplitudes)


def subsets(k):
    return itertools.chain.from_iterable(itertools.combinations(range(k), n) for n in range(k + 1))


def random_spectrum(rng, kind, k=3):
    if kind == "white":
        return FeatureSpectrum.from_teacher(rng.lognormal(0, 0.5, k), float(rng.uniform(0.5, 2)))
    if kind == "autoencoder":
        return FeatureSpectrum.from_covariance(np.diag(rng.lognormal(0, 0.7, k)))
    # Close in strength and apart in variance: where the order by strength fails.
    q, strength = rng.lognormal(0, 0.7, k), rng.uniform(1.0, 1.3, k)
    return FeatureSpectrum(tuple((strength / q) ** 0.75), tuple(q))


@pytest.mark.parametrize("kind", ["white", "autoencoder"])
@pytest.mark.parametrize("depth", [3, 4])
def test_ordered_states_are_the_only_minima_and_the_index_counts_inversions(kind, depth):
    rng = np.random.default_rng([depth, len(kind)])
    for _ in range(3):
        spectrum = random_spectrum(rng, kind)
        decay = 0.8 * float(spectrum.spinodals(depth).min())
        phases = list(spectrum.phases(depth, decay))
        assert [p.learned for p in phases] == [(), (0,), (0, 1), (0, 1, 2)]
        assert all(p.ordered for p in phases)
        assert spectrum.number_of_states(depth, decay) == 4
        for learned in subsets(3):
            inversions = sum(j < k for k in learned for j in range(3) if j not in learned)
            assert index(spectrum, depth, decay, learned) == inversions


@pytest.mark.parametrize("depth", [3, 4])
def test_inputs_that_are_not_white_have_the_minima_of_the_criterion(depth):
    rng = np.random.default_rng(depth)
    unordered = 0
    for _ in range(8):
        spectrum = random_spectrum(rng, "general")
        decay = float(rng.uniform(0.1, 0.95) * spectrum.spinodals(depth).min())
        found = {frozenset(p.learned) for p in spectrum.phases(depth, decay)}
        minima = {frozenset(s) for s in subsets(3) if index(spectrum, depth, decay, s) == 0}
        assert found == minima
        assert spectrum.number_of_states(depth, decay) == len(minima)
        unordered += any(not p.ordered for p in spectrum.phases(depth, decay))
    assert unordered  # the case that this test is about did occur


def test_a_case_with_another_number_of_states():
    # Close in strength and apart in variance: either feature alone is stable, so nothing orders them.
    spectrum = FeatureSpectrum((0.24, 0.89), (1.75, 0.30))
    decay = 0.95 * float(spectrum.spinodals(5).min())
    found = {frozenset(p.learned) for p in spectrum.phases(5, decay)}
    assert found == {frozenset(s) for s in subsets(2) if index(spectrum, 5, decay, s) == 0}
    assert spectrum.number_of_states(5, decay) == len(found) == 4
    # With the same strengths and white inputs there are three.
    white = FeatureSpectrum.from_teacher(spectrum.strengths(5) ** (5 / 8))
    assert white.number_of_states(5, decay) == 3


@pytest.mark.parametrize("kind", ["white", "general"])
def test_the_next_feature_has_a_saddle_of_index_one(kind):
    rng = np.random.default_rng(5)
    for _ in range(6):
        spectrum = random_spectrum(rng, kind)
        decay = float(rng.uniform(0.3, 0.95) * spectrum.spinodals(3).min())
        for phase in spectrum.phases(3, decay):
            rest = [j for j in range(3) if j not in phase.learned]
            single = [j for j in rest if index(spectrum, 3, decay, phase.learned, saddle=j) == 1]
            if kind == "white":
                assert single == rest[:1]
            assert (phase.next_feature in single) if single else (phase.next_feature is None)
            if single:
                modes = spectrum.modes(3, decay)
                lowest = min(modes[j].barrier().height for j in single)
                assert phase.barrier_height == pytest.approx(lowest, rel=1e-12)
            else:
                assert np.isnan(phase.barrier_height)


def test_energies_and_ground_state():
    spectrum = FeatureSpectrum.from_teacher([3.0, 2.0, 1.0])
    decay = 0.9 * float(spectrum.binodals(3)[1])
    phases = list(spectrum.phases(3, decay))
    energies = []
    for mode in spectrum.modes(3, decay):
        try:
            energies.append(mode.barrier().height - mode.forgetting_barrier().height)
        except NoBarrierError:
            break
    expected = [0.0, *np.cumsum(energies)]
    np.testing.assert_allclose([p.energy for p in phases], expected, rtol=1e-12)
    assert [p.is_ground_state for p in phases] == [False, False, True] + [False] * (len(phases) - 3)
    assert phases[-1].next_feature is None
    # At a binodal two states are equally deep.
    at = float(spectrum.binodals(3)[0])
    assert [p.is_ground_state for p in spectrum.phases(3, at)][:2] == [True, True]
    assert [p.learned for p in spectrum.phases(3, 100.0)] == [()]


def test_equal_features_count_as_one_family_each():
    spectrum = FeatureSpectrum.from_teacher([1.0, 1.0, 1.0])
    assert [p.learned for p in spectrum.phases(3, 0.2)] == [(), (0,), (0, 1), (0, 1, 2)]
    assert [p.next_feature for p in spectrum.phases(3, 0.2)] == [0, 1, 2, None]


def test_depth_two_has_one_state_and_no_barrier():
    spectrum = FeatureSpectrum.from_teacher([2.0, 1.0, 0.1])
    (phase,) = spectrum.phases(2, 0.5)
    assert (phase.learned, phase.next_feature, phase.is_ground_state) == ((0, 1), None, True)
    assert spectrum.number_of_states(2, 0.5) == 1
    assert network_index(2, [2.0, 1.0], [1.0, 1.0], 0.5, [1.5**0.5, 0.5**0.5]) == 0
    assert network_index(2, [2.0, 1.0], [1.0, 1.0], 0.5, [1.5**0.5, 0.0]) > 0


def test_sixty_features_are_lazy():
    spectrum = FeatureSpectrum.from_teacher(np.linspace(1, 2, 60))
    assert spectrum.number_of_states(3, 0.01) == 61
    first = next(iter(spectrum.phases(3, 0.01)))
    assert first.learned == ()
    assert len(list(spectrum.phases(3, 0.01))) == 61
    # More features than Python allows nested calls.
    many = FeatureSpectrum(tuple(np.linspace(0.24, 0.89, 1200)), (1.0,) * 1200)
    assert many.number_of_states(3, 1e-3) == 1201


def test_closed_sets_by_brute_force():
    rng = np.random.default_rng(0)
    for _ in range(30):
        implied = [sum(1 << int(j) for j in np.flatnonzero(row)) for row in rng.random((7, 7)) < 0.12]
        closed = closure(implied)
        brute = {mask for mask in range(2**7) if all(not mask >> k & 1 or implied[k] & ~mask == 0 for k in range(7))}
        found = list(closed_sets(closed, 2**7 - 1))
        assert len(found) == len(set(found)) == count_closed_sets(closed, 2**7 - 1)
        assert set(found) == brute


def test_makers_agree():
    rng = np.random.default_rng(1)
    teacher = rng.normal(size=(4, 3))
    x = np.linalg.svd(rng.normal(size=(50, 3)), full_matrices=False)[0] * 50**0.5
    white = FeatureSpectrum.from_data(x, x @ teacher.T)
    matrix = FeatureSpectrum.from_teacher_matrix(teacher)
    np.testing.assert_allclose(white.singular_values, matrix.singular_values, rtol=1e-12)
    np.testing.assert_allclose(white.input_variances, 1, rtol=1e-12)
    data = rng.normal(size=(40, 5)) * np.arange(5)
    auto, coded = FeatureSpectrum.autoencoder(data), FeatureSpectrum.from_data(data, data)
    np.testing.assert_allclose(auto.input_variances, coded.input_variances, rtol=1e-12)
    np.testing.assert_allclose(coded.singular_values, 1, rtol=1e-12)
    assert (auto.rank, auto.n_modes) == (coded.rank, coded.n_modes) == (4, 5)
    assert FeatureSpectrum.from_teacher([0.0, 1.0, 2.0]).singular_values == (2.0, 1.0)
    assert FeatureSpectrum.from_teacher_matrix(np.ones((3, 3))).rank == 1


def test_inputs_that_are_not_white_need_shared_singular_vectors():
    rng = np.random.default_rng(2)
    x = rng.normal(size=(200, 3)) * [1.0, 2.0, 3.0]
    y = x @ rng.normal(size=(3, 3))
    with pytest.raises(InvalidParameterError, match=r"not white.*correlation 0\.\d+.*\n?.*Whiten") as error:
        FeatureSpectrum.from_data(x, y)
    fix = str(error.value).rsplit("`", 2)[1]
    scope = {"np": np, "x": x}
    exec(fix, scope)
    assert FeatureSpectrum.from_data(scope["x"], y).rank == 3
    # Shared vectors and equal covariances c = qσ: the vectors are arbitrary until the inputs choose.
    square = np.array([[1.0, 1.0], [1.0, -1.0], [-1.0, 1.0], [-1.0, -1.0]])
    inputs, teacher = square * [1.0, 2.0], np.diag([4.0, 1.0])
    rotation = np.array([[0.6, -0.8], [0.8, 0.6]])
    shared = FeatureSpectrum.from_data(inputs @ rotation.T, inputs @ teacher)
    assert sorted(zip(shared.singular_values, shared.input_variances, strict=True)) == [
        (pytest.approx(1), pytest.approx(4)),
        (pytest.approx(4), pytest.approx(1)),
    ]


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: FeatureSpectrum.from_teacher([-1.0]), "singular values are moduli"),
        (lambda: FeatureSpectrum.from_teacher([0.0, 0.0]), "None of the 2 modes"),
        (lambda: FeatureSpectrum.from_teacher([1.0], input_variance=0.0), "input_variance"),
        (lambda: FeatureSpectrum.from_covariance(np.ones((2, 3))), "square symmetric"),
        (lambda: FeatureSpectrum.from_covariance([[1.0, 2.0], [2.0, 1.0]]), "positive semi-definite"),
        (lambda: FeatureSpectrum.from_data(np.ones((3, 2)), np.ones((4, 2))), "one target per input"),
        (lambda: FeatureSpectrum.autoencoder(np.zeros((0, 3))), "at least one element"),
        (lambda: FeatureSpectrum((1.0,), (1.0, 2.0)), "one of each per feature"),
        (lambda: FeatureSpectrum((1.0, 0.0), (1.0, 1.0)), "numbers > 0"),
        (lambda: FeatureSpectrum.from_teacher([1.0]).phases(1, 0.1), "linear regression"),
        (lambda: FeatureSpectrum.from_teacher([1.0]).phases(3, float("nan")), "weight_decay"),
        (lambda: FeatureSpectrum.from_teacher([1.0]).number_of_states(3, 0.0), "weight_decay"),
    ],
)
def test_refusals(make, words):
    with pytest.raises(InvalidParameterError, match=words):
        make()


def test_table_is_labelled():
    table = FeatureSpectrum.from_teacher([2.0, 1.0, 0.0]).table(3)
    assert table.sizes == {"feature": 2}
    assert (table.attrs["rank"], table.attrs["n_modes"]) == (2, 3)
    for variable in table.variables.values():
        assert {"units", "long_name"} <= set(variable.attrs)
    np.testing.assert_allclose(table["binodal_barrier"], [4 * 0.0337211244341, 0.0337211244341], rtol=1e-10)
    assert np.isnan(FeatureSpectrum.from_teacher([1.0]).table(2)["binodal_barrier"]).all()
