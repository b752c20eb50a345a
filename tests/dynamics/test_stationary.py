"""Stationary temperatures around a learned minimum, for each sampler, against the prediction and its rivals.

Intervals are asked for at 1e-5, shared by the directions. Measurement and prediction share the model's energy (its
Hessian's eigendirections) and, through it, the per-sample gradients; the sampler's factor is the prediction's alone.
"""

import numpy as np
import pytest
from numpy.typing import NDArray

from kramers_grok.core.exceptions import InvalidParameterError
from kramers_grok.core.noise import activation_noise, per_sample
from kramers_grok.core.region import beyond
from kramers_grok.dynamics.optimizers import Adam
from kramers_grok.dynamics.sampling import FullBatch, Sampler, ShuffledEpochs, WithoutReplacement, WithReplacement
from kramers_grok.dynamics.sgd import SGD
from kramers_grok.dynamics.stationary import hessian_modes, stationary_temperature
from kramers_grok.escape.first_passage import first_passage
from kramers_grok.escape.protocols.trap import without_noise
from kramers_grok.models.data import finite, teacher
from kramers_grok.theory.deep_linear import DeepLinearChain

Array = NDArray[np.float64]
ALPHA = 1e-5
X = np.random.default_rng(0).normal(size=32)
DATA = finite(X, X + 0.15 * np.random.default_rng(1).normal(size=32))
CHAIN = DeepLinearChain.from_data(DATA.x[:, 0], DATA.y[:, 0], depth=3, weight_decay=0.1)
BASE = SGD(CHAIN, DATA, lr=0.02, batch_size=8)


def minimum(process: SGD) -> Array:
    """The learned state, by descent."""
    descent = without_noise(process).replace(lr=0.1)
    amplitude = CHAIN.mode.learned_amplitude()
    return descent.advance(descent.start(1, seed=0, point=[amplitude] * 3), 2000)[0].theta[0].numpy()


POINT = minimum(BASE)
CURVATURES, MODES = hessian_modes(BASE, POINT)


def test_the_hessians_modes() -> None:
    """The balanced direction is the stiffest; the two that unbalance the layers have 2λ: λ, and as much of the fit."""
    assert CURVATURES[-1] > 5 * CURVATURES[0]
    np.testing.assert_allclose(np.abs(MODES[-1]), 3**-0.5, rtol=1e-6)
    np.testing.assert_allclose(CURVATURES[:2], 0.2, rtol=1e-6)
    heavier = hessian_modes(BASE.replace(weight_decay=0.3), POINT)[0]
    np.testing.assert_allclose(heavier, CURVATURES + 0.2, rtol=1e-9)


@pytest.mark.parametrize(
    "sampler", [WithReplacement(), WithoutReplacement(), ShuffledEpochs()], ids=lambda s: type(s).__name__
)
def test_each_sampler_has_its_temperature(sampler: Sampler) -> None:
    """Known to about 1 %. Factors: 1, 24/31 and about λτ/3 = 0.07; each of the others' is far outside."""
    process = BASE.replace(sampler=sampler)
    found = stationary_temperature(
        process, POINT, MODES[-1], n_steps=400, n_replicas=1500, seed=5, confidence=1 - ALPHA / 2
    )
    measured = found.stationary_temperature[:, 0]
    half = found.stationary_temperature_upper[:, 0] - measured
    predicted = found.predicted_stationary_temperature[:, 0]
    # The curvature of one sample is not that of another, and noise moves the curvature: 1 % of T at this lr.
    assert (abs(measured - predicted) < half + 0.01 * predicted).all(), found
    assert (half < 0.1 * measured).all()
    others = {WithReplacement(): 1.0, WithoutReplacement(): 24 / 31, ShuffledEpochs(): float(found.sampler_factor[0])}
    if sampler != ShuffledEpochs():
        del others[ShuffledEpochs()]
        others[FullBatch()] = 0.0
    own = others.pop(sampler)
    for other in others.values():
        assert (abs(measured - predicted * other / own) > half + 0.01 * predicted).all()
    if sampler == ShuffledEpochs():
        assert float(measured[1]) < 0.2 * float(measured[0])  # seen at the ends of epochs


def test_injected_noise_does_not_ask_the_sampler() -> None:
    """Isotropic noise fills soft directions too, with η g²/(B(2 − ηλ)) under every sampler."""
    process = BASE.replace(sampler=ShuffledEpochs(), noise=per_sample(variance=0.05), lr=0.1)
    found = stationary_temperature(
        process, POINT, MODES[:2], n_steps=400, n_replicas=400, seed=2, confidence=1 - ALPHA / 4
    )
    predicted = 0.1 * 0.05 / (8 * (2 - 0.1 * 0.2))
    # Along the soft directions of a balanced chain minibatches make no noise at all.
    np.testing.assert_allclose(found.predicted_stationary_temperature, predicted, rtol=1e-6)
    assert (found.stationary_temperature_lower < predicted).all()
    assert (found.stationary_temperature_upper > predicted).all()
    assert (found.stationary_temperature_upper < 1.2 * predicted).all()


def test_an_online_teacher_and_no_noise() -> None:
    quiet = stationary_temperature(without_noise(BASE), POINT, MODES[-1], n_steps=5, n_replicas=4, seed=0)
    assert (quiet.stationary_temperature < 1e-20).all()
    assert quiet.stationary_temperature_ratio.isnull().all()
    online = SGD(CHAIN, teacher(label_noise=0.2), lr=0.02, batch_size=8)
    found = stationary_temperature(online, POINT, MODES[-1], n_steps=300, n_replicas=600, seed=1, confidence=1 - ALPHA)
    assert float(found.sampler_factor[0]) == 1
    assert float(found.stationary_temperature_lower[0, 0]) < 1.01 * float(found.predicted_stationary_temperature[0, 0])
    assert float(found.stationary_temperature_upper[0, 0]) > 0.99 * float(found.predicted_stationary_temperature[0, 0])


def test_refusals() -> None:
    def ask(process: SGD = BASE, point: Array = POINT, directions: Array = MODES[-1]) -> None:
        stationary_temperature(process, point, directions, n_steps=1, n_replicas=4, seed=0)

    with pytest.raises(InvalidParameterError, match=r"`directions` = number 0 .*eigendirections.*\n.*hessian_modes"):
        ask(directions=np.array([1.0, 0.0, 0.0]))
    with pytest.raises(InvalidParameterError, match="expected eigendirections"):
        ask(point=0.75 * POINT)  # beyond the barrier's top, where the balanced direction is not bound
    with pytest.raises(InvalidParameterError, match="expected lr · curvature < 2"):
        ask(BASE.replace(lr=4.0))
    with pytest.raises(InvalidParameterError, match="expected GradientDescent"):
        ask(BASE.replace(optimizer=Adam()))
    with pytest.raises(InvalidParameterError, match="`activation_noise` is given, expected none"):
        ask(BASE.replace(activation_noise=activation_noise(std=0.1)))
    with pytest.raises(InvalidParameterError, match="`n_replicas` = 3"):
        stationary_temperature(BASE, POINT, MODES[-1], n_steps=1, n_replicas=3, seed=0)


def test_shuffled_epochs_keep_what_independent_draws_lose() -> None:
    """A chain near its spinodal forgets under either kind of independent draws, and under shuffled epochs not once.

    An epoch is a fraction of the relaxation time; were their noise that of the others, all 64 would forget here too.
    """
    rng = np.random.default_rng(0)
    x, e = rng.normal(size=(2, 64))
    x /= np.sqrt(np.mean(x**2))
    e -= np.mean(e * x) * x
    data = finite(x, x + 0.5 * e / np.sqrt(np.mean(e**2)))
    chain = DeepLinearChain.from_data(data.x[:, 0], data.y[:, 0], depth=3, weight_decay=0.46)
    barrier = chain.forgetting_barrier()
    lost = {}
    for sampler in (WithReplacement(), WithoutReplacement(), ShuffledEpochs()):
        process = SGD(chain, data, lr=0.1, batch_size=16, sampler=sampler)
        run = first_passage(
            process, target=beyond(barrier), n_replicas=64, max_time=800.0, seed=1, start=barrier.minimum
        )
        lost[type(sampler).__name__] = int(run.escaped.sum())
    assert lost == {"WithReplacement": 64, "WithoutReplacement": 64, "ShuffledEpochs": 0}
