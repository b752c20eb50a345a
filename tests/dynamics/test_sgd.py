"""SGD's temperature, and what it refuses."""

from typing import Any

import numpy as np
import pytest
import torch
from scipy import stats

from kramers_grok.core.exceptions import InvalidParameterError
from kramers_grok.core.noise import per_sample
from kramers_grok.dynamics.langevin import Langevin
from kramers_grok.dynamics.process import Process
from kramers_grok.dynamics.sampling import FullBatch, ShuffledEpochs, WithReplacement
from kramers_grok.dynamics.sgd import SGD
from kramers_grok.models.data import FiniteData, finite, population, teacher
from kramers_grok.models.deep_linear import DeepLinearNetwork
from kramers_grok.theory.deep_linear import DeepLinearChain

CHAIN = DeepLinearChain(3, 1.3, 0.25, 0.8)
RNG = np.random.default_rng(0)
INPUTS = RNG.normal(size=20)
DATA = finite(INPUTS, 0.9 * INPUTS + RNG.normal(size=20))
FINITE_CHAIN = DeepLinearChain.from_data(DATA.x[:, 0], DATA.y[:, 0], depth=3, weight_decay=0.25)
ALPHA = 1e-5


# ---------------------------------------------------------------- temperature


def chi_square_p(values: torch.Tensor, variance: float) -> float:
    """Two-sided p-value of independent normals of mean 0 and this variance, by their sum of squares."""
    total = float((values**2).sum() / variance)
    return 2 * min(stats.chi2.cdf(total, values.numel()), stats.chi2.sf(total, values.numel()))


NOISE = 1e-6  # per-sample variance: weights of 1e-3 feel the decay alone
NETWORK = DeepLinearNetwork((2, 3, 3, 2), [1.0, 0.5], weight_decay=0.5)
LR, BATCH = 0.4, 5
PROCESSES = {
    "online": SGD(DeepLinearChain(3, 1.0, 0.5), teacher(label_noise=0.3), lr=LR, batch_size=BATCH,
                  noise=per_sample(variance=NOISE)),
    "population": SGD(DeepLinearChain(4, 1.0, 0.5), population(), lr=LR, batch_size=BATCH,
                      noise=per_sample(std=NOISE**0.5)),
    "network": SGD(NETWORK, population(), lr=LR, noise=per_sample(temperature=LR * NOISE / (2 * BATCH))),
    "langevin": Langevin(DeepLinearChain(3, 1.0, 0.5), temperature=LR * NOISE / (2 * BATCH), dt=LR),
}  # fmt: skip


@pytest.mark.parametrize("process", PROCESSES.values(), ids=PROCESSES)
def test_the_stationary_variance_is_that_of_the_temperature(process: Process) -> None:
    """In the trap the weights are linear: their variance is T/(λ(1 − λη/2)) exactly, T = ηg²/(2B).

    30 000 numbers give the variance to 0.8 %, so T wrong by 4 % fails; 20 %, a √2 and the step's 10 % do by far.
    """
    decay, temperature = 0.5, LR * NOISE / (2 * BATCH)
    assert process.describe()["temperature"] == pytest.approx(temperature, rel=1e-12)
    n = 30_000 // process.start(1, seed=0).theta.shape[1]
    state, _ = process.advance(process.start(n, seed=5), 70)  # 0.8^140 of the start's variance is left to come
    expected = temperature / (decay * (1 - decay * LR / 2))
    assert chi_square_p(state.theta, expected) > ALPHA
    for factor in (1.2, 0.8, 2**0.5, 1 - decay * LR / 2):
        assert chi_square_p(state.theta, factor * expected) < ALPHA
    for i, j in ((0, 1), (0, 2), (1, 2)):  # isotropic: no correlation between weights
        assert stats.pearsonr(state.theta[:, i], state.theta[:, j]).pvalue > ALPHA


def test_noise_given_in_three_ways_is_one_noise() -> None:
    kinds = [per_sample(variance=0.36), per_sample(std=0.6), per_sample(temperature=0.1 * 0.36 / 16)]
    ends = []
    for noise in kinds:
        process = SGD(CHAIN, teacher(label_noise=0.1), lr=0.1, batch_size=8, noise=noise)
        assert process.temperature == pytest.approx(0.1 * 0.36 / 16, rel=1e-14)
        ends.append(process.advance(process.start(4, seed=0), 20)[0].theta)
    torch.testing.assert_close(ends[1], ends[0], rtol=1e-12, atol=0)
    torch.testing.assert_close(ends[2], ends[0], rtol=1e-12, atol=0)


@pytest.mark.parametrize("data", [teacher(label_noise=0.5), population(), DATA], ids=["online", "population", "finite"])
def test_minibatch_noise_alone_never_leaves_zero(data: Any) -> None:
    """The noise is gated: at the origin every per-sample gradient vanishes."""
    chain = FINITE_CHAIN if isinstance(data, FiniteData) else CHAIN
    process = SGD(chain, data, lr=0.1, batch_size=2)
    assert process.temperature == 0
    state, _ = process.advance(process.start(5, seed=0), 50)
    assert (state.theta == 0).all()


def test_full_batch_descent_is_the_same_for_every_seed() -> None:
    process = SGD(FINITE_CHAIN, DATA, lr=0.1)
    assert process.sampler == FullBatch()
    assert process.batch_size == 20
    point = [0.8, 0.9, 1.0]
    ends = [process.advance(process.start(2, seed=s, point=point), 100)[0].theta for s in (0, 1)]
    assert torch.equal(ends[0], ends[1])
    slope = FINITE_CHAIN.landscape.gradient_at(point)
    one = process.advance(process.start(1, seed=0, point=point), 1)[0].theta[0]
    np.testing.assert_allclose(one, np.array(point) - 0.1 * slope, rtol=1e-13)


def test_single_precision_and_the_torch_twin() -> None:
    narrow = SGD(CHAIN, teacher(label_noise=0.1), lr=0.1, batch_size=4, dtype=torch.float32)
    start = [0.7, 0.4, 0.6]
    state, _ = narrow.advance(narrow.start(3, seed=0, point=start), 5)
    assert state.theta.dtype == torch.float32
    wide = SGD(CHAIN, teacher(label_noise=0.1), lr=0.1, batch_size=4)
    expected = wide.on_torch().advance(wide.start(3, seed=0, point=start), 5)[0].theta
    torch.testing.assert_close(state.theta.to(torch.float64), expected, rtol=1e-5, atol=1e-6)
    assert wide._kernel is not None  # the twin left the original as it was


# ---------------------------------------------------------------- refusals


ONLINE = teacher(label_noise=0.1)
REFUSALS: list[tuple[Any, Any, dict[str, Any], str]] = [
    (FINITE_CHAIN, DATA, {"batch_size": 21}, r"`batch_size` = 21, expected at most the 20 .*\nUse `batch_size=20`"),
    (FINITE_CHAIN, DATA, {"batch_size": 0}, "`batch_size` = 0, expected an integer >= 1"),
    (FINITE_CHAIN, DATA, {"batch_size": 2.5}, "`batch_size` = 2.5"),
    (FINITE_CHAIN, DATA, {"sampler": ShuffledEpochs()}, r"`batch_size` is missing: `sampler` = ShuffledEpochs\(\)"),
    (FINITE_CHAIN, DATA, {"sampler": WithReplacement()}, "`batch_size` is missing"),
    (CHAIN, ONLINE, {}, r"`batch_size` is missing: an online teacher.*\nUse `batch_size=8`"),
    (CHAIN, ONLINE, {"batch_size": 4, "sampler": ShuffledEpochs()}, "given with OnlineTeacher data, expected a finite"),
    (CHAIN, population(), {"sampler": WithReplacement()}, "given with Population data"),
    (CHAIN, population(), {"lr": 8.0}, r"`lr` = 8 with .* 0.25, expected lr · weight_decay < 2.*\nUse `lr=0.4`"),
    (CHAIN, population(), {"lr": 0.0}, "`lr` = 0.0, expected a finite number > 0"),
    (CHAIN, population(), {"lr": np.nan}, "`lr` = nan"),
    (CHAIN, population(), {"n_threads": 0}, "`n_threads` = 0"),
    (CHAIN, DATA, {"batch_size": 4}, r"input variance differs from the model's.*another landscape.*\n.*from_data"),
    (NETWORK, DATA, {"batch_size": 4}, r"The data have \(outputs, inputs\) = \(1, 1\), the model has \(2, 2\)"),
]


@pytest.mark.parametrize(("model", "data", "arguments", "message"), REFUSALS)
def test_refusals(model: Any, data: Any, arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidParameterError, match=message):
        SGD(model, data, **({"lr": 0.1} | arguments))


def test_data_that_contradict_the_models_teacher() -> None:
    x = np.array([1.0, -1.0, 1.0, -1.0])
    SGD(DeepLinearChain(3, 0.5, 0.1), finite(x, 0.5 * x), lr=0.1, batch_size=2)
    with pytest.raises(InvalidParameterError, match=r"teacher differs from the model's by 0.1"):
        SGD(DeepLinearChain(3, 0.6, 0.1), finite(x, 0.5 * x), lr=0.1, batch_size=2)
    table = np.linalg.qr(RNG.normal(size=(8, 2)))[0] * 8**0.5
    network = DeepLinearNetwork((2, 2, 2), [1.0, 0.5], weight_decay=0.5)
    SGD(network, finite(table, table * [1.0, 0.5]), lr=0.1, batch_size=2)
    with pytest.raises(InvalidParameterError, match=r"input variance differs.*\n.*from_data"):
        SGD(network, finite(table * [1.0, 1.1], table), lr=0.1, batch_size=2)
