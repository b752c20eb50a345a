"""Networks whose inputs are not white: sample by sample, against autograd, and feature by feature."""

import itertools

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from torch import Tensor

from kramers_grok.core.exceptions import InvalidParameterError, NoBarrierError
from kramers_grok.models.data import FiniteData, autoencoding, digits, finite
from kramers_grok.models.deep_linear import DeepLinearNetwork
from kramers_grok.theory.phases import FeatureSpectrum

Array = NDArray[np.float64]
F64 = torch.float64


def end_to_end(widths: tuple[int, ...], theta: Tensor) -> Tensor:
    """The map W_D … W_1 of weights that lie in `theta` layer by layer, row by row; shape (replica, output, input)."""
    product, start = torch.eye(widths[0], dtype=F64).expand(len(theta), -1, -1), 0
    for below, above in itertools.pairwise(widths):
        product = theta[:, start : start + above * below].reshape(-1, above, below) @ product
        start += above * below
    return product


def normal(seed: int, *shape: int) -> Tensor:
    return torch.from_numpy(np.random.default_rng(seed).normal(size=shape))


def sample_loss(widths: tuple[int, ...], theta: Tensor, data: FiniteData, decay: float) -> Tensor:
    x, y = torch.from_numpy(data.x), torch.from_numpy(data.y)
    residual = y - x @ end_to_end(widths, theta).transpose(1, 2)
    return 0.5 * (residual**2).sum(dim=2).mean(dim=1) + 0.5 * decay * (theta**2).sum(dim=1)


@st.composite
def cases(draw: st.DrawFn) -> tuple[DeepLinearNetwork, FiniteData]:
    """Data in general position; with fewer samples than inputs Σ_xx is singular."""
    widths = tuple(draw(st.lists(st.integers(1, 4), min_size=3, max_size=5)))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    n = draw(st.integers(1, 9))
    data = finite(rng.normal(size=(n, widths[0])) * 1.7, rng.normal(size=(n, widths[-1])))
    return DeepLinearNetwork.from_data(data, widths[1:-1], weight_decay=draw(st.floats(0.01, 2.0))), data


@given(cases(), st.integers(0, 2**32 - 1))
def test_energy_and_gradient_are_those_of_the_data(case: tuple[DeepLinearNetwork, FiniteData], seed: int) -> None:
    """The energy is the samples' loss less a constant; the gradient is autograd of the samples' loss."""
    network, data = case
    theta = normal(seed, 4, network.n_parameters).requires_grad_(True)
    loss = sample_loss(network.widths, theta, data, network.weight_decay)
    (expected,) = torch.autograd.grad(loss.sum(), theta)
    loss = loss.detach()
    constant = loss - network.energy(theta).detach()
    torch.testing.assert_close(constant, constant[:1].expand(4), rtol=1e-9, atol=1e-9 * float(loss.max()))
    assert float(constant[0]) > -1e-9 * float(loss.max())
    torch.testing.assert_close(network.gradient(theta), expected, rtol=1e-9, atol=1e-9)
    xx, yx = (torch.from_numpy(m)[None] for m in (data.input_covariance, data.cross_covariance))
    torch.testing.assert_close(network.batch_gradient(theta, xx, yx), expected, rtol=1e-9, atol=1e-9)
    with_decay = network.data_gradient(theta, xx, yx) + network.weight_decay * theta
    torch.testing.assert_close(with_decay, expected, rtol=1e-9, atol=1e-9)


def shared(widths: tuple[int, ...], sigma: Array, q: Array, seed: int = 0, decay: float = 0.05) -> DeepLinearNetwork:
    """A network with the features (σ_k, q_k) in random bases; the other inputs are correlated among themselves."""
    rng = np.random.default_rng(seed)
    u, v = (np.linalg.qr(rng.normal(size=(w, w)))[0] for w in (widths[-1], widths[0]))
    rank, rest = len(sigma), widths[0] - len(sigma)
    inner = np.zeros((widths[0], widths[0]))
    inner[:rank, :rank] = np.diag(q)
    noise = rng.normal(size=(rest, rest + 2))
    inner[rank:, rank:] = noise @ noise.T / (rest + 2)
    matrix = u[:, :rank] @ np.diag(sigma) @ v[:, :rank].T
    return DeepLinearNetwork(widths, matrix, weight_decay=decay, input_covariance=v @ inner @ v.T)


# In the order of covariances they come 2, 1, 0.
SIGMA, Q = np.array([6.0, 0.9, 1.5]), np.array([0.3, 3.0, 2.0])


@pytest.mark.parametrize("widths", [(3, 4, 3, 3), (5, 3, 3, 3, 4), (4, 5, 5, 3)])
def test_features_come_in_the_order_of_their_strength(widths: tuple[int, ...]) -> None:
    network = shared(widths, SIGMA, Q)
    strength = Q * SIGMA ** (2 - 2 / network.depth)
    order = np.argsort(-strength)
    assert order.tolist() != np.argsort(-Q * SIGMA).tolist()
    np.testing.assert_allclose(network.spectrum.singular_values, SIGMA[order], rtol=1e-10)
    np.testing.assert_allclose(network.spectrum.input_variances, Q[order], rtol=1e-10)
    assert (np.diff(network.spectrum.strengths(network.depth)) < 0).all()
    for k, mode in enumerate(network.spectrum.modes(network.depth, network.weight_decay)):
        assert network.mode(k) == mode
        assert mode.input_variance == pytest.approx(Q[order[k]])
    assert network.n_features == 3


def test_strength_is_not_covariance() -> None:
    """c = (2, 1.9) but strengths 1.2 and 2.4 at D = 3: order parameter 0 is the second singular vector's."""
    network = DeepLinearNetwork(
        (2, 3, 3, 2), np.diag([0.2, 1.9]), weight_decay=0.1, input_covariance=np.diag([10.0, 1.0])
    )
    theta = network.ordered_state([0])[None]
    m = end_to_end(network.widths, theta)[0]
    assert float(m[1, 1]) > 1.5
    assert float(m[0, 0]) == 0.0
    np.testing.assert_allclose(network.order_parameters(theta)[0], [float(m[1, 1]), 0.0], atol=1e-14)


@pytest.mark.parametrize("widths", [(3, 4, 3, 3), (5, 3, 3, 3, 4), (4, 5, 5, 3), (3, 3, 4)])
def test_states_are_sums_of_modes(widths: tuple[int, ...]) -> None:
    """Every set of features is a stationary point whose energy is the sum of the modes', learned or at 0."""
    network = shared(widths, SIGMA, Q)
    modes = network.spectrum.modes(network.depth, network.weight_decay)
    amplitudes = [mode.learned_amplitude() for mode in modes]
    for count in range(4):
        for chosen in itertools.permutations(range(3), count):
            theta = network.ordered_state(chosen)[None]
            assert float(network.gradient(theta).abs().max()) < 1e-12
            a = [amplitudes[k] if k in chosen else 0.0 for k in range(3)]
            energy = sum(float(mode.free_energy(value)) for mode, value in zip(modes, a, strict=True))
            assert float(network.energy(theta)) == pytest.approx(energy, rel=1e-10)
            np.testing.assert_allclose(
                network.order_parameters(theta)[0], np.array(a) ** network.depth, rtol=1e-10, atol=1e-13
            )
            assert float((theta**2).sum()) == pytest.approx(network.depth * sum(v**2 for v in a))


@pytest.mark.parametrize(
    ("sigma", "q"), [(SIGMA, Q), (np.ones(3), np.array([3.0, 2.0, 1.0]))], ids=["general", "autoencoder"]
)
def test_the_spectrums_phases_are_the_minima(sigma: Array, q: Array) -> None:
    """A set of features that is listed has no negative curvature, one that is not has some.

    The whole Hessian by autograd, against pairs of modes: they share only the amplitudes.
    """
    network = shared((3, 3, 3, 3), sigma, q)
    listed = {phase.learned for phase in network.spectrum.phases(network.depth, network.weight_decay)}
    assert 2 <= len(listed) < 8
    for count in range(4):
        for chosen in itertools.combinations(range(3), count):
            theta = network.ordered_state(chosen)
            hessian = torch.autograd.functional.hessian(lambda t: network.energy(t[None])[0], theta)
            lowest = float(torch.linalg.eigvalsh(hessian)[0])
            assert (lowest > -1e-9) == (chosen in listed), (chosen, lowest)


def test_white_covariances_are_white() -> None:
    """The same numbers to the last bit as a network that was given one variance."""
    matrix = np.random.default_rng(0).normal(size=(3, 4))
    plain = DeepLinearNetwork((4, 3, 3), matrix, weight_decay=0.1, input_variance=0.7)
    given_ = DeepLinearNetwork((4, 3, 3), matrix, weight_decay=0.1, input_covariance=0.7 * np.eye(4))
    theta = normal(0, 5, plain.n_parameters)
    assert given_.is_white
    assert given_.input_variance == pytest.approx(0.7, rel=1e-15)
    for name in ("energy", "gradient", "order_parameters"):
        torch.testing.assert_close(getattr(plain, name)(theta), getattr(given_, name)(theta), rtol=1e-14, atol=1e-14)
    assert given_.theory.singular_values == plain.theory.singular_values
    np.testing.assert_allclose(plain.spectrum.input_variances, 0.7)
    np.testing.assert_allclose(plain.spectrum.singular_values, np.linalg.svd(matrix)[1])
    assert plain.mode(1).singular_value == plain.singular_values[1]
    np.testing.assert_array_equal(plain.input_covariance, 0.7 * np.eye(4))


@pytest.mark.parametrize("features", [(), (0,), (0, 1)])
def test_white_states_are_the_theorys(features: tuple[int, ...]) -> None:
    matrix = np.random.default_rng(2).normal(size=(3, 4))
    network = DeepLinearNetwork((4, 3, 4, 3), matrix, weight_decay=0.05, input_variance=0.9)
    torch.testing.assert_close(network.ordered_state(features), network.embed(network.theory.state(len(features))))


def test_order_parameters_of_many_features() -> None:
    """More than are multiplied out at once: u_kᵀ W v_k all the same."""
    network = DeepLinearNetwork((20, 6, 15), np.random.default_rng(0).normal(size=(15, 20)), weight_decay=0.1)
    u, _, vt = np.linalg.svd(network.teacher_matrix)
    theta = normal(1, 3, network.n_parameters)
    expected = np.einsum("ok,roi,ki->rk", u, end_to_end(network.widths, theta).numpy(), vt[:15])
    np.testing.assert_allclose(network.order_parameters(theta), expected, rtol=1e-10, atol=1e-12)


def test_the_digits_autoencoder() -> None:
    """Features in the order of the principal components' variances; constant pixels drop out; states add up."""
    pytest.importorskip("sklearn")
    data = autoencoding(digits() / 16)
    network = DeepLinearNetwork.from_data(data, (12, 12), weight_decay=0.05)
    reference = FeatureSpectrum.autoencoder(data.x)
    assert network.n_features == reference.rank == 61
    np.testing.assert_allclose(network.spectrum.input_variances, reference.input_variances, rtol=1e-9)
    np.testing.assert_allclose(network.spectrum.singular_values, 1.0, rtol=1e-9)
    theta = network.ordered_state(range(8))[None]
    assert float(network.gradient(theta).abs().max()) < 1e-12
    m = network.order_parameters(theta)[0]
    assert (m[:8] > 0.6).all()
    assert float(m[8:].abs().max()) < 1e-12
    modes = network.spectrum.modes(3, 0.05)
    learned = sum(float(mode.free_energy(mode.learned_amplitude())) for mode in modes[:8])
    zero = sum(float(mode.free_energy(0.0)) for mode in modes[8:])
    assert float(network.energy(theta)) == pytest.approx(learned + zero, rel=1e-10)


# ---------------------------------------------------------------- refusals


def test_features_that_couple_can_be_trained_but_have_no_spectrum() -> None:
    rng = np.random.default_rng(0)
    root = rng.normal(size=(3, 3))
    network = DeepLinearNetwork((3, 2, 2), rng.normal(size=(2, 3)), weight_decay=0.1, input_covariance=root @ root.T)
    assert network.order_parameters(torch.ones(1, network.n_parameters, dtype=F64)).shape == (1, 2)
    for ask in (
        lambda: network.spectrum,
        lambda: network.singular_values,
        lambda: network.mode(0),
        lambda: network.ordered_state([0]),
    ):
        with pytest.raises(InvalidParameterError, match=r"do not share singular vectors.*\n.*Whiten the inputs"):
            ask()
    # its order parameters come by covariance
    u, _, vt = np.linalg.svd(network.teacher_matrix @ network.input_covariance)
    theta = normal(1, 3, network.n_parameters)
    expected = np.einsum("ok,roi,ki->rk", u, end_to_end(network.widths, theta).numpy(), vt[:2])
    np.testing.assert_allclose(network.order_parameters(theta), expected, rtol=1e-10, atol=1e-12)


def test_theory_of_the_whole_weight_space_is_for_white_inputs() -> None:
    network = shared((3, 3, 3, 3), SIGMA, Q)
    with pytest.raises(InvalidParameterError, match=r"not white.*\n.*network\.spectrum"):
        _ = network.theory
    with pytest.raises(InvalidParameterError, match="no one input variance"):
        _ = network.input_variance


@pytest.mark.parametrize(
    ("keywords", "message"),
    [
        ({"input_covariance": np.eye(2)}, r"`input_covariance` = array of shape \(2, 2\), expected shape \(3, 3\)"),
        ({"input_covariance": np.diag([1.0, 1.0, -1.0])}, "positive semi-definite"),
        ({"input_covariance": np.zeros((3, 3))}, "other than 0"),
        ({"input_covariance": np.triu(np.ones((3, 3)))}, "symmetric"),
        ({"input_covariance": np.eye(3), "input_variance": 2.0}, "`input_variance` = 2.0, expected nothing beside"),
        ({"input_covariance": np.diag([0.0, 0.0, 1.0])}, "all zeros, expected inputs on which the teacher acts"),
    ],
)
def test_bad_covariances(keywords: dict[str, object], message: str) -> None:
    with pytest.raises(InvalidParameterError, match=message):
        DeepLinearNetwork((3, 2, 2), [2.0, 1.0], weight_decay=0.1, **keywords)  # type: ignore[arg-type]


@pytest.mark.parametrize("features", [[0, 0], [3], [0, 1, 2], [-1], [0.5]])
def test_bad_features(features: list[int]) -> None:
    network = DeepLinearNetwork((3, 2, 2, 3), [2.0, 1.0, 0.5], weight_decay=0.05)
    with pytest.raises(InvalidParameterError, match="`features` = "):
        network.ordered_state(features)


def test_a_feature_above_its_spinodal_has_no_state() -> None:
    network = DeepLinearNetwork((2, 2, 2, 2), [2.0, 1.0], weight_decay=0.5)
    assert network.ordered_state([0]).shape == (12,)
    with pytest.raises(NoBarrierError, match="spinodal"):
        network.ordered_state([1])
