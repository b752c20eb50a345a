"""Sweeps of nonlinear networks: the quasi-Newton continuation goes where plain gradient descent goes.

Continuation and descent share the gradient; descent's steps, brackets and the prediction's fold share the energy only.
"""

from __future__ import annotations

import numpy as np
import pytest
import torch

from kramers_grok.core.exceptions import InvalidParameterError
from kramers_grok.dynamics.sgd import SGD
from kramers_grok.escape.protocols import Settling, hysteresis_loop, sweep
from kramers_grok.escape.protocols.certificate import full_gradient
from kramers_grok.escape.protocols.quasi_newton import finish
from kramers_grok.models.activations import Tanh
from kramers_grok.models.data import finite, population
from kramers_grok.models.deep_linear import DeepLinearNetwork
from kramers_grok.models.mlp import MLP
from kramers_grok.theory.nonlinear_features import chain_spinodal

S = np.random.default_rng(0).standard_normal(24)
END = chain_spinodal(np.tanh, lambda z: 1 - np.tanh(z) ** 2, S, 1.5 * S, units=(2, 2))


def descent() -> SGD:
    """The smallest network with a feature spread over two units."""
    model = MLP.from_data(finite(S, 1.5 * S), (2, 2), Tanh(), weight_decay=0.9 * END)
    return SGD(model, model.data, lr=0.3, fused=False)  # type: ignore[arg-type]


START = np.concatenate([[0.8, 0.8], np.full(4, 0.6), [0.8, 0.8]])


def test_continuation_and_descent_find_the_same_jump_where_the_chain_predicts_it() -> None:
    decays = np.geomspace(0.93, 1.03, 6) * END
    common = {"certify_every": 0, "bisections": 3, "kick": 1e-3}
    fast = Settling(quasi_newton=True, tolerance=1e-4, **common)  # type: ignore[arg-type]
    plain = Settling(tolerance=1e-4, **common)  # type: ignore[arg-type]
    loop = hysteresis_loop(descent(), decays, start=START, seed=0, settling=fast)
    slow = sweep(descent(), decays, start=START, seed=0, settling=plain)
    assert float(loop.before[0]) < END < float(loop.after[0])
    assert float(loop.after[0] / loop.before[0]) < 1.004
    assert (float(slow.before[0]), float(slow.after[0])) == (float(loop.before[0]), float(loop.after[0]))
    np.testing.assert_allclose(
        loop.up.dropna("weight_decay", how="all").values[:3], slow.order_parameter.values[:3], rtol=1e-3
    )
    assert bool(loop.certified.sel(weight_decay=loop.before[0]))
    assert float(loop.returned[0]) < 1e-6  # nothing comes back without noise


def test_behind_a_fold_the_leash_holds() -> None:
    process = descent().replace(weight_decay=0.97 * END)
    theta = torch.from_numpy(START)[None]
    there = finish(process, theta, threshold=1e-7, leash=10.0)
    assert there is not None
    assert float(full_gradient(process)(there).norm()) <= 1e-7
    beyond = descent().replace(weight_decay=1.01 * END)
    assert finish(beyond, there, threshold=1e-7, leash=0.05) is None
    loose = finish(beyond, there, threshold=1e-7, leash=10.0)  # control: only the leash held it
    assert loose is not None
    assert float(beyond.order_parameters(loose)[0, 0]) < 0.01


def test_a_model_without_samples_is_refused() -> None:
    network = DeepLinearNetwork((1, 2, 2, 1), [1.0], weight_decay=0.3)
    process = SGD(network, population(), lr=0.1, fused=False)
    with pytest.raises(InvalidParameterError, match="learns from samples"):
        sweep(process, [0.3, 0.31], start=np.full(8, 0.5), seed=0, settling=Settling(quasi_newton=True))
