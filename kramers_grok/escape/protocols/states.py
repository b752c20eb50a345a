r"""Which states a network can be trapped in: a search from many random starts, and the index of the others.

All starts go down as one ensemble, every end is certified, and ends with the same order parameters are one state. The
count is compared with the criterion of `kramers_grok.theory.phases`: a learned feature k and an unlearned one j make
one unstable direction if :math:`c_j^2 \ge c_k^2 + (q_j-q_k)\,m_k c_k`, so the *index* of a stationary point is the
number of such pairs. For white inputs and autoencoders these are the inversions of the order of strength.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
import xarray as xr
from numpy.typing import NDArray
from torch import Tensor

from kramers_grok.core import checks
from kramers_grok.core.schema import describe
from kramers_grok.dynamics.sgd import SGD
from kramers_grok.escape.protocols.certificate import certify, full_gradient
from kramers_grok.escape.protocols.settling import Settling, settle
from kramers_grok.models.base import BatchModel, SampleModel
from kramers_grok.models.deep_linear import DeepLinearNetwork
from kramers_grok.models.diagonal import DiagonalNetwork
from kramers_grok.theory import mode_states
from kramers_grok.theory.phases import FeatureSpectrum

__all__ = ["find_states", "predicted_index", "random_starts"]

Array = NDArray[np.float64]

_LARGEST = 1.5
_SMALLEST = 0.02  # of the natural size: far inside the trap, but no stationary point


def random_starts(model: BatchModel | SampleModel, n_starts: int, *, seed: int, scale: float = 1.0) -> Tensor:
    """Draw starting weights in which every feature may be large or small, shape (replica, parameter).

    Weights of one size would hardly ever end with some features learned and others not. So every hidden channel of a
    matrix network, and every chain of a diagonal one, has a size of its own, log-uniform from a small fraction of
    `scale` to a little above it; the weights are uniform within it, so that none is far out where curvatures are large.

    Parameters
    ----------
    model : BatchModel or SampleModel
    n_starts : int
    seed : int
    scale : float
        Natural size of the weights, about σ^(1/D).

    Examples
    --------
    >>> network = DeepLinearNetwork((2, 3, 3, 2), [2.0, 1.0], weight_decay=0.1)
    >>> random_starts(network, 5, seed=0).shape
    torch.Size([5, 21])
    """
    rng = np.random.default_rng(checks.seed(seed))
    n = checks.positive_int("n_starts", n_starts)
    size = checks.positive("scale", scale)

    def sizes(*shape: int) -> Array:
        return np.asarray(size * np.exp(rng.uniform(np.log(_SMALLEST), np.log(_LARGEST), size=shape)))

    weights = rng.uniform(-1.0, 1.0, size=(n, model.n_parameters))
    if isinstance(model, DeepLinearNetwork):
        channels = sizes(n, max(model.widths[1:-1]))
        layers = [w.clone() for w in model.layers(torch.from_numpy(weights))]
        for l, layer in enumerate(layers):
            # A weight between two channels has their geometric mean: large channels stay apart from small ones.
            above = channels[:, : layer.shape[1], None] if l < len(layers) - 1 else size
            below = channels[:, None, : layer.shape[2]] if l else size
            inner = 0 < l < len(layers) - 1
            factor = np.sqrt(above * below) if inner else (above if l == 0 else below)
            layer *= torch.from_numpy(np.asarray(factor / np.sqrt(min(layer.shape[1:]))))
        return torch.cat([w.flatten(1) for w in layers], dim=1)
    if isinstance(model, DiagonalNetwork):
        return torch.from_numpy(weights * np.repeat(sizes(n, model.n_features), model.depth, axis=1))
    return torch.from_numpy(weights * sizes(n, 1))


def find_states(
    process: SGD, *, starts: Tensor, seed: int, settling: Settling | None = None, tolerance: float = 1e-2
) -> xr.Dataset:
    """Search the metastable states by descent from many starts.

    Parameters
    ----------
    process : SGD
        Plain gradient descent without noise.
    starts : Tensor, shape (replica, parameter)
        As from `random_starts`.
    seed : int
        Kept with the result.
    settling : Settling, optional
    tolerance : float
        Ends whose order parameters all agree within it are one state.

    Returns
    -------
    xarray.Dataset
        Along ``state``, highest energy first: ``order_parameter`` (and ``feature``), ``learned`` (and ``feature``; m
        above half of the largest that this feature has in any state), ``energy`` [loss], ``n_starts`` that ended
        there, ``curvature`` (the smallest apart from zero modes), ``n_zero_modes``. States that are no certified minima
        are left out; the attribute ``n_uncertified`` counts the starts that ended there.

    Raises
    ------
    DivergedError
        If the learning rate is too large for the starts.

    Examples
    --------
    >>> from kramers_grok.models.data import population
    >>> network = DiagonalNetwork(3, [1.5, 1.0], weight_decay=0.1)
    >>> descent = SGD(network, population(), lr=0.05)
    >>> found = find_states(descent, starts=random_starts(network, 64, seed=0), seed=0)
    >>> found.learned.values.astype(int).tolist()
    [[0, 0], [0, 1], [1, 0], [1, 1]]
    """
    settling = settling or Settling()
    theta, norm, steps = settle(process, starts, settling, seed=seed)
    theta = theta.cpu().to(torch.float64)
    decay = float(process.weight_decay)
    found = certify(full_gradient(process), process.model, theta, scale=settling.scale)
    good = found.is_minimum & (norm <= settling.tolerance * decay * settling.scale)
    m = process.order_parameters(theta).numpy()
    own = float(process.replace(weight_decay=None).weight_decay)  # what the model's energy holds
    energy = process.model.energy(theta) + 0.5 * (decay - own) * theta.square().sum(dim=1)
    labels = _clusters(m[good], tolerance)
    rows = [np.flatnonzero(good)[labels == label] for label in range(labels.max(initial=-1) + 1)]
    values = energy.numpy()
    rows.sort(key=lambda r: -float(values[r].mean()))
    order = np.array([m[r].mean(axis=0) for r in rows]).reshape(len(rows), m.shape[1])
    largest = np.abs(order).max(axis=0, initial=0.0)
    learned = (np.abs(order) > 0.5 * largest) & (np.abs(order) > tolerance)
    columns = {
        "energy": ([values[r].mean() for r in rows], "loss", "free energy"),
        "n_starts": ([r.size for r in rows], "1", "starts that ended here"),
        "curvature": (
            [found.smallest[r].min() for r in rows],
            "loss/weight²",
            "smallest curvature apart from zero modes",
        ),
        "n_zero_modes": ([int(found.n_zero_modes[r].max()) for r in rows], "1", "zero modes"),
    }
    return xr.Dataset(
        {
            "order_parameter": (("state", "feature"), order, describe("order_parameter")),
            "learned": (("state", "feature"), learned, {"units": "1", "long_name": "feature is learned"}),
            **{k: ("state", v, {"units": u, "long_name": name}) for k, (v, u, name) in columns.items()},
        },
        coords={
            "state": ("state", np.arange(len(rows)), {"units": "1", "long_name": "state"}),
            "feature": ("feature", np.arange(m.shape[1]), describe("feature")),
            "weight_decay": ((), decay, describe("weight_decay")),
        },
        attrs={"n_starts": len(theta), "n_uncertified": int((~good).sum()), "steps": steps, "seed": str(seed)},
    )


def _clusters(m: Array, tolerance: float) -> NDArray[np.int64]:
    """Number of the state of each row; rows within `tolerance` of a state's first row belong to it."""
    labels = np.full(len(m), -1, dtype=np.int64)
    number = 0
    while (labels < 0).any():
        first = m[int(np.argmax(labels < 0))]
        near = (np.abs(m - first).max(axis=1) <= tolerance) & (labels < 0)
        labels[near] = number
        number += 1
    return labels


def predicted_index(spectrum: FeatureSpectrum, depth: int, weight_decay: float, learned: Sequence[int]) -> int:
    """Count the unstable directions of the matrix network at the point with these features learned.

    Parameters
    ----------
    spectrum : FeatureSpectrum
    depth : int
        Number of weight layers D ≥ 3.
    weight_decay : float
        Below the spinodals of the learned features [loss/weight²].
    learned : sequence of int
        Numbers of features, as in `spectrum`.

    Raises
    ------
    NoBarrierError
        If a learned feature is above its spinodal.

    Examples
    --------
    >>> spectrum = FeatureSpectrum.from_teacher([3.0, 2.0, 1.0])
    >>> [predicted_index(spectrum, 3, 0.1, learned) for learned in [(), (0, 1), (1,), (2,), (0, 2)]]
    [0, 0, 1, 2, 1]
    """
    sigma, q = np.asarray(spectrum.singular_values), np.asarray(spectrum.input_variances)
    c = sigma * q
    others = np.setdiff1d(np.arange(spectrum.rank), np.asarray(learned, dtype=np.int64))
    pairs = 0
    for k in learned:
        mode = spectrum.modes(depth, weight_decay)[k]
        mode.learned_amplitude()  # raises above the spinodal
        m = float(mode_states.learned_amplitude(depth, sigma[k], weight_decay, q[k])) ** depth
        pairs += int((c[others] ** 2 > c[k] ** 2 + (q[others] - q[k]) * m * c[k]).sum())
    return pairs
