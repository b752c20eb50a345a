"""Batches drawn as second moments have the law of batches drawn sample by sample.

Statistical tests: seeds are fixed, each p-value (times the number of quantities it is the least of) is tested at 1e-5.
The two sources share the normal numbers' generator, the teacher and the root of Σ_xx, nothing else; each is compared
with exact formulas and with the other.
"""

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from scipy import stats
from torch import Tensor

from kramers_grok.core.exceptions import InvalidParameterError
from kramers_grok.dynamics.sampling import (
    BatchSource,
    ByMoments,
    BySamples,
    MomentSource,
    SampledSource,
    Sampler,
    ScalarMomentSource,
    WithReplacement,
    batch_source,
)
from kramers_grok.dynamics.sgd import SGD
from kramers_grok.models.data import finite, teacher
from kramers_grok.models.deep_linear import ChainModel, DeepLinearNetwork
from kramers_grok.models.diagonal import DiagonalNetwork
from kramers_grok.theory.deep_linear import DeepLinearChain

Array = NDArray[np.float64]
ALPHA, N, NOISE = 1e-5, 20_000, 0.6
LIKE = torch.empty(0, dtype=torch.float64)
ROOT = np.random.default_rng(5).normal(size=(3, 3))
COVARIANCES = {"white": 0.8 * np.eye(3), "correlated": ROOT @ ROOT.T / 3, "singular": ROOT[:, :2] @ ROOT[:, :2].T}
MATRIX = np.random.default_rng(3).normal(size=(2, 3))


def network(kind: str) -> DeepLinearNetwork:
    return DeepLinearNetwork((3, 2, 2), MATRIX, weight_decay=0.1, input_covariance=COVARIANCES[kind])


def draw(source: BatchSource, n: int = N, step: int = 0, seed: int = 1) -> tuple[Array, Array]:
    """Σ̂_xx (replica, input, input) and Σ̂_yx (replica, output, input)."""
    xx, yx, _ = source.moments(seed, torch.arange(n), step, {})
    return xx.numpy(), yx.numpy()


def worst_p(values: Array, expected: Array) -> float:
    """Smallest p-value of the means over samples against `expected`, times the number of quantities."""
    flat, expected = values.reshape(len(values), -1), expected.ravel()
    spread = flat.std(axis=0) / len(flat) ** 0.5
    scale = np.abs(expected).max() + np.abs(flat).max()
    z = (flat.mean(axis=0) - expected) / np.maximum(spread, 1e-13 * scale)
    return float(2 * stats.norm.sf(np.abs(z)).min() * z.size)


def p_values(xx: Array, yx: Array, sigma: Array, batch: int) -> dict[str, float]:
    """Means and covariances of Σ̂_xx and of its labels' part against exact formulas.

    Cov(Σ̂_ij, Σ̂_kl) = (Σ_ik Σ_jl + Σ_il Σ_jk)/B. Given Σ̂_xx the labels' part L = Σ̂_yx − M Σ̂_xx is normal with
    E[L_ai L_bj | Σ̂_xx] = δ_ab s² Σ̂_ij / B, tested with weights 1 and Σ̂_kl.
    """
    pair = np.einsum("ik,jl->ijkl", sigma, sigma)
    pair = (pair + pair.swapaxes(2, 3)) / batch
    labels = yx - MATRIX @ xx
    gap = xx - sigma
    given = np.einsum("ab,nij->naibj", np.eye(2), xx) * NOISE**2 / batch
    excess = np.einsum("nai,nbj->naibj", labels, labels) - given
    return {
        "mean xx": worst_p(xx, sigma),
        "covariance xx": worst_p(np.einsum("nij,nkl->nijkl", gap, gap), pair),
        "mean labels": worst_p(labels, np.zeros((2, 3))),
        "covariance labels": worst_p(excess, np.zeros((2, 3, 2, 3))),
        "given xx": worst_p(np.einsum("naibj,nkl->naibjkl", excess, xx), np.zeros((2, 3, 2, 3, 3, 3))),
    }


SOURCES = {"by moments": MomentSource, "by samples": SampledSource}


@pytest.mark.parametrize("batch", [1, 2, 3, 7])
@pytest.mark.parametrize("kind", COVARIANCES)
@pytest.mark.parametrize("source", SOURCES.values(), ids=SOURCES)
def test_moments_of_the_moments(source: type[MomentSource] | type[SampledSource], kind: str, batch: int) -> None:
    """Variances are known to about 1.5 %: 8 % too much noise, or a χ² with one degree of freedom too many, is seen."""
    model, sigma = network(kind), COVARIANCES[kind]
    xx, yx = draw(source(model, NOISE, batch, LIKE))
    assert (xx == xx.swapaxes(1, 2)).all()
    found = p_values(xx, yx, sigma, batch)
    assert min(found.values()) > ALPHA, found


def bartlett(sigma: Array, batch: int, *, lost: int = 0, root: bool = True) -> tuple[Array, Array]:
    """Bartlett's construction with numpy, right or with `lost` degrees of freedom not taken off, or no root."""
    rng = np.random.default_rng(8)
    a = np.tril(rng.normal(size=(N, 3, 3)), -1)
    for i in range(3):
        chi2 = rng.chisquare(batch - (i if i < 3 - lost else 0), size=N)
        a[:, i, i] = np.sqrt(chi2) if root else chi2 / batch**0.5
    factor = np.linalg.cholesky(sigma) @ a
    xx = factor @ factor.swapaxes(1, 2) / batch
    noise = rng.normal(size=(N, 2, 3)) @ factor.swapaxes(1, 2)
    return xx, MATRIX @ xx + NOISE / batch * noise


def test_wrong_constructions_are_noticed() -> None:
    """Negative control: the same test on Bartlett's factors with a slip."""
    sigma, batch = COVARIANCES["correlated"], 7
    right = bartlett(sigma, batch)
    assert min(p_values(*right, sigma, batch).values()) > ALPHA
    degrees = p_values(*bartlett(sigma, batch, lost=1), sigma, batch)
    assert degrees["mean xx"] < ALPHA
    no_root = p_values(*bartlett(sigma, batch, root=False), sigma, batch)
    assert no_root["mean xx"] < ALPHA or no_root["covariance xx"] < ALPHA
    xx, yx = right
    louder = MATRIX @ xx + 1.08 * (yx - MATRIX @ xx)
    assert p_values(xx, louder, sigma, batch)["covariance labels"] < ALPHA
    independent = p_values(xx, MATRIX @ xx + np.roll(yx - MATRIX @ xx, 1, axis=0), sigma, batch)  # not given Σ̂_xx
    assert independent["given xx"] < ALPHA
    small_root = bartlett(sigma * 0.97, batch)  # a variance 3 % off
    assert p_values(*small_root, sigma, batch)["mean xx"] < ALPHA


def summaries(xx: Array, yx: Array) -> Array:
    """What a network and a reader could see of a batch: eigenvalues, singular values, one gradient; (quantity, n)."""
    w = np.array([[0.7, -0.2, 0.4], [0.1, 0.9, -0.5]])
    gradient = (w @ xx - yx).reshape(len(xx), -1)
    return np.concatenate(
        [np.linalg.eigvalsh(xx).T, np.linalg.svd(yx, compute_uv=False).T, gradient.T, (gradient**2).sum(axis=1)[None]]
    )


@pytest.mark.parametrize("batch", [1, 2, 3, 7])
def test_moments_and_samples_have_one_law(batch: int) -> None:
    """Kolmogorov and Smirnov at n = 2 × 20 000 see distances of 2.3 %: label noise 30 % stronger is."""
    model = network("correlated")
    ours, theirs = (summaries(*draw(s(model, NOISE, batch, LIKE), seed=k)) for k, s in enumerate(SOURCES.values()))
    varying = theirs.std(axis=1) > 1e-6  # eigenvalues that are 0 for B < d are rounding
    assert varying.sum() == 12 - max(0, 3 - batch) - max(0, 2 - batch)
    p = [stats.ks_2samp(a, b).pvalue for a, b in zip(ours[varying], theirs[varying], strict=True)]
    assert min(p) * len(p) > ALPHA
    control = summaries(*draw(MomentSource(model, NOISE * 1.3, batch, LIKE), seed=5))
    p = [stats.ks_2samp(a, b).pvalue for a, b in zip(control[varying], theirs[varying], strict=True)]
    assert min(p) * len(p) < ALPHA


@pytest.mark.parametrize("batch", [1, 2, 3, 50])
def test_a_small_batch_has_as_many_directions_as_samples(batch: int) -> None:
    xx, yx = draw(MomentSource(network("white"), NOISE, batch, LIKE), 50)
    assert (np.linalg.matrix_rank(xx) == min(batch, 3)).all()
    # labels live in the directions that were seen
    assert (np.linalg.matrix_rank(np.concatenate([xx, yx], axis=1)) == min(batch, 3)).all()


def test_without_label_noise_labels_are_the_teachers() -> None:
    for source in SOURCES.values():
        xx, yx = draw(source(network("correlated"), 0.0, 4, LIKE), 10)
        np.testing.assert_allclose(yx, MATRIX @ xx, rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("source", SOURCES.values(), ids=SOURCES)
def test_steps_and_replicas_are_independent(source: type[MomentSource] | type[SampledSource]) -> None:
    """Correlations at n = 5000 are known to 1.4 %; 7 % would be seen."""
    made = source(network("correlated"), NOISE, 4, LIKE)
    first, second = (summaries(*draw(made, 5001, step)) for step in (0, 1))
    for a, b in zip(first, second, strict=True):
        assert stats.pearsonr(a, b).pvalue > ALPHA
        assert stats.pearsonr(a[1:], a[:-1]).pvalue > ALPHA
        assert stats.pearsonr(a, b + 0.2 * a).pvalue < ALPHA


@pytest.mark.parametrize("source", SOURCES.values(), ids=SOURCES)
def test_rows_do_not_depend_on_the_batch(source: type[MomentSource] | type[SampledSource]) -> None:
    made = source(network("correlated"), NOISE, 4, LIKE)
    streams = torch.arange(200)
    whole = made.moments(1, streams, 3, {})
    for part in (streams[:1], streams[1:8], streams[7:200:13]):
        for ours, all_rows in zip(made.moments(1, part, 3, {})[:2], whole[:2], strict=True):
            assert torch.equal(ours, all_rows[part])


@pytest.mark.parametrize("outputs", [1, 2])
@pytest.mark.parametrize("source", SOURCES.values(), ids=SOURCES)
def test_batch_sizes_may_change_from_step_to_step(
    source: type[MomentSource] | type[SampledSource], outputs: int
) -> None:
    """No step of one batch size meets the numbers of another step of another: their moments are uncorrelated.

    With one or two numbers a step packed into one counter, step 2 of B = 1 would repeat numbers of step 1 of B = 3.
    """
    model = DeepLinearNetwork((2, 2, outputs), np.ones((outputs, 2)), weight_decay=0.1)
    for steps in ((2, 1), (3, 1), (4, 1), (4, 2), (5, 2)):
        (_, one), (_, three) = (draw(source(model, 5.0, b, LIKE), 5000, s) for b, s in zip((1, 3), steps, strict=True))
        for a in one.reshape(5000, -1).T:
            for b in three.reshape(5000, -1).T:
                assert stats.spearmanr(a, b).pvalue > ALPHA


def test_the_number_of_draws_does_not_depend_on_the_batch() -> None:
    small, large = (MomentSource(network("white"), NOISE, b, LIKE) for b in (3, 10**6))
    assert small.n_normals == large.n_normals == 3
    assert small.columns == large.columns == 3
    xx, yx = draw(large, 50)
    np.testing.assert_allclose(xx, np.broadcast_to(COVARIANCES["white"], (50, 3, 3)), atol=0.01)
    np.testing.assert_allclose(yx, np.broadcast_to(MATRIX @ COVARIANCES["white"], (50, 2, 3)), atol=0.03)


# ---------------------------------------------------------------- training

WIDE = DeepLinearNetwork((4, 3, 3, 2), [1.5, 1.0], weight_decay=0.05)


def ends(sampler: Sampler, label_noise: float = 0.3) -> Array:
    """Order parameters and norm after 40 steps of batches of 3 in 4 dimensions; (quantity, replica)."""
    process = SGD(WIDE, teacher(label_noise=label_noise), lr=0.05, batch_size=3, sampler=sampler)
    start = np.random.default_rng(0).normal(size=WIDE.n_parameters) * 0.5
    theta = process.advance(process.start(6000, seed=4, point=start), 40)[0].theta
    m = process.order_parameters(theta)
    return np.concatenate([m.T.numpy(), theta.square().sum(dim=1)[None].numpy()])


def test_training_by_moments_and_by_samples_has_one_law() -> None:
    """At n = 2 × 6000 distances of 4.5 % are seen: label noise 30 % stronger is."""
    ours, theirs, louder = ends(ByMoments()), ends(BySamples()), ends(ByMoments(), 0.6)
    assert min(stats.ks_2samp(a, b).pvalue for a, b in zip(ours, theirs, strict=True)) > ALPHA / 3
    assert min(stats.ks_2samp(a, b).pvalue for a, b in zip(louder, theirs, strict=True)) < ALPHA / 3


def test_a_chain_by_samples_takes_the_slow_road_to_the_same_law() -> None:
    chain = DeepLinearChain(3, 1.0, 0.25)
    runs: list[Tensor] = []
    for sampler in (None, BySamples()):
        process = SGD(chain, teacher(label_noise=0.5), lr=0.1, batch_size=2, sampler=sampler)
        runs.append(process.advance(process.start(6000, seed=1, point=np.full(3, 0.8)), 30)[0].theta.prod(dim=1))
    assert process.describe()["sampler"] == "BySamples"
    assert not torch.equal(runs[0], runs[1])
    assert stats.ks_2samp(*(r.numpy() for r in runs)).pvalue > ALPHA


def test_independent_chains_see_independent_inputs() -> None:
    """Σ̂_xx of a diagonal network's online data is that of its own variances."""
    model = DiagonalNetwork(3, [2.0, 1.0], weight_decay=0.1, input_variances=[0.5, 2.0])
    xx, yx = draw(MomentSource(model, 0.0, 4, LIKE))
    assert worst_p(xx, np.diag([0.5, 2.0])) > ALPHA
    np.testing.assert_allclose(yx, np.diag([2.0, 1.0]) @ xx, rtol=1e-12)


@pytest.mark.parametrize("batch", [1, 3, 20])
@pytest.mark.parametrize("kind", list(COVARIANCES))
def test_labels_without_noise_are_the_teachers(kind: str, batch: int) -> None:
    """In whichever order the products are taken, for batches smaller and larger than the number of inputs."""
    xx, yx = draw(MomentSource(network(kind), 0.0, batch, LIKE), 5)
    np.testing.assert_allclose(yx, MATRIX @ xx, rtol=1e-12, atol=1e-14)
    _, noisy = draw(MomentSource(network(kind), 1e-9, batch, LIKE), 5)
    np.testing.assert_allclose(noisy, yx, rtol=0, atol=1e-7)


# ---------------------------------------------------------------- which source, and refusals


def test_which_source() -> None:
    chain, data = ChainModel(DeepLinearChain(3, 1.0, 0.25)), teacher(label_noise=0.1)
    assert isinstance(batch_source(chain, data, 4, ByMoments(), LIKE), ScalarMomentSource)
    assert isinstance(batch_source(WIDE, data, 4, ByMoments(), LIKE), MomentSource)
    for model in (chain, WIDE):
        assert isinstance(batch_source(model, data, 4, BySamples(), LIKE), SampledSource)
    assert batch_source(WIDE, data, 4, ByMoments(), LIKE).buffers(3) == {}
    assert batch_source(WIDE, data, 4, BySamples(), LIKE).buffers(3) == {}


@pytest.mark.parametrize("sampler", [ByMoments(), BySamples()])
def test_finite_data_have_samples_of_their_own(sampler: Sampler) -> None:
    data = finite([1.0, -1.0], [1.0, -1.0])
    chain = ChainModel(DeepLinearChain(3, 1.0, 0.25))
    with pytest.raises(InvalidParameterError, match=r"is given with finite data.*\n.*WithReplacement"):
        batch_source(chain, data, 1, sampler, LIKE)
    assert batch_source(chain, data, 1, WithReplacement(), LIKE).buffers(1) == {}


def test_dtypes_are_kept() -> None:
    for source in SOURCES.values():
        narrow = source(network("correlated"), NOISE, 4, LIKE.float()).moments(1, torch.arange(5), 0, {})
        wide = source(network("correlated"), NOISE, 4, LIKE).moments(1, torch.arange(5), 0, {})
        for a, b in zip(narrow[:2], wide[:2], strict=True):
            assert a.dtype == torch.float32
            torch.testing.assert_close(a.double(), b, rtol=1e-4, atol=1e-5)
