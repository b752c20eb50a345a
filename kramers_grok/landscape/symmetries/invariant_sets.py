r"""Sets that minibatches cannot leave: where the gradient of every single sample keeps to a subspace.

A step of SGD is a sum of gradients of single samples and of the weights themselves. If at all points of a linear
subspace S each of them lies in S, then training that starts in S stays in S, whatever the batches, the sampler, the
learning rate or the momentum. The smallest such S through a state θ is found by closure: begin with θ, add the samples'
gradients at random points of what there is, until nothing is added. No symmetry has to be known. Of a state that a
symmetry g of the network leaves alone (two units alike, an odd unit at 0) the vectors fixed by g form such a set, since
:math:`f_{g\theta} = f_\theta` makes each sample's gradient turn with θ; closure may find a smaller one.

What is not in S is never shaken where it is 0, and off S by an amplitude a the noise across S is of the order
:math:`a^p`. With p = 1 unused directions obey linear equations with random coefficients, and their growth rate decides
(`kramers_grok.dynamics.transverse`); with p ≥ 2 small ones decay at the rate of the weight decay under noise of any
strength. Where S is the whole space the noise reaches everything: nothing is absorbing.
"""

from __future__ import annotations

import math
import warnings
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from kramers_grok.core import checks
from kramers_grok.core.exceptions import InvalidParameterError, ValidityWarning
from kramers_grok.models.base import BatchModel, SampleModel
from kramers_grok.models.data import FiniteData, OnlineTeacher
from kramers_grok.models.layers import learning_model

__all__ = ["InvariantSet", "invariant_set", "per_sample_gradients"]

Array = NDArray[np.float64]

RADIUS = 0.3  # of the probing points about the state, in units of its norm: far enough for all orders to show
PROBES = 4  # random points in each round of the closure
MOST_SAMPLES = 512  # of which gradients are taken at each point
DOUBTFUL = 30.0  # directions held that are closer than this factor to the tolerance, or to those left out, are reported
STEPS_OFF = (3e-2, 3e-3)  # distances off the set, in units of the state's norm, between which the order is read
ROUNDING = 1e-13  # of a gradient: what is smaller across the set vanishes


@dataclass(frozen=True, eq=False)
class InvariantSet:
    r"""The smallest linear set through a state that no minibatch leaves.

    Attributes
    ----------
    point : ndarray, shape (parameter,)
        The state θ.
    basis : ndarray, shape (parameter, dimension)
        Orthonormal, of the set S.
    transverse : ndarray, shape (parameter, codimension)
        Orthonormal, of the directions across S.
    noise : float
        Root of the trace of the covariance of the samples' gradients at θ itself [loss/weight]; where it is 0 and θ is
        stationary, θ is absorbing as a point.
    order : float
        Power p of the amplitude off S with which the samples' gradients across S vanish: 1, 2, …; infinite where they
        are 0 in a neighbourhood, NaN where S is the whole space.
    kept, left_out : float
        The weakest direction that S holds, and the strongest that was taken for rounding, relative to the gradients:
        far apart where the answer is clear.
    """

    point: Array
    basis: Array
    transverse: Array
    noise: float
    order: float
    kept: float
    left_out: float

    @property
    def n_parameters(self) -> int:
        """Number of parameters."""
        return int(self.point.size)

    @property
    def dimension(self) -> int:
        """Dimension of the set."""
        return int(self.basis.shape[1])

    @property
    def codimension(self) -> int:
        """Number of directions across it, which minibatches never shake."""
        return int(self.transverse.shape[1])

    def distance(self, theta: ArrayLike | Tensor) -> Array:
        """Distance of points from the set [weight], shape (replica,) for (replica, parameter)."""
        rows = np.atleast_2d(np.asarray(theta, dtype=np.float64))
        return np.asarray(np.linalg.norm(rows @ self.transverse, axis=1))

    def contains(self, theta: ArrayLike | Tensor, *, tolerance: float = 1e-6) -> bool:
        """Whether a point lies in the set, to a tolerance relative to its norm: only such can ever be reached."""
        row = np.asarray(theta, dtype=np.float64).reshape(-1)
        return bool(self.distance(row)[0] <= tolerance * max(float(np.linalg.norm(row)), 1e-300))


def invariant_set(
    model: object,
    point: ArrayLike | Tensor,
    *,
    data: FiniteData | OnlineTeacher | None = None,
    seed: int,
    tolerance: float = 1e-9,
) -> InvariantSet:
    r"""Return the smallest linear set through a state that SGD with minibatches cannot leave.

    Parameters
    ----------
    model : SampleModel, BatchModel, Mode or DeepLinearChain
        Any network that SGD takes.
    point : array_like, shape (parameter,)
        The state: a minimum, a saddle or any other point.
    data : FiniteData or OnlineTeacher, optional
        What batches are drawn of; the model's own data if not given. Of an online teacher's samples some hundred are
        drawn.
    seed : int
        Of the random points and samples.
    tolerance : float
        Directions below it, relative to the gradients, are taken for rounding. A state found numerically is symmetric
        to its own precision only: the tolerance has to be above that.

    Returns
    -------
    InvariantSet

    Raises
    ------
    InvalidParameterError
        If the model does not learn from samples, there are no data, or the point does not fit.

    Warns
    -----
    ValidityWarning
        If a direction that the set holds is within a factor of 30 of the tolerance: a smaller set is nearly invariant,
        as with a unit that saturates.

    Notes
    -----
    The set is that of a neighbourhood: of a network with ReLU, a unit that is dead on all samples stays so near the
    state, not everywhere in the subspace. Weight decay and momentum keep the set too; optimizers that rescale entries
    (Adam) keep entries that are 0 or alike, but not a general subspace.

    References
    ----------
    F. Chen, D. Kunin, A. Yamamura and S. Ganguli, Stochastic collapse, NeurIPS 2023 (arXiv:2306.04251). L. Ziyin,
    Symmetry induces structure and constraint of learning, ICML 2024 (arXiv:2309.16932).

    Examples
    --------
    >>> from kramers_grok.models.activations import Softplus, Tanh
    >>> from kramers_grok.models.data import finite
    >>> from kramers_grok.models.mlp import MLP
    >>> data = finite([[1.0, 0.0], [0.0, 1.0], [1.0, 1.0]], [1.0, -1.0, 0.5])
    >>> zero = np.zeros(9)
    >>> odd = invariant_set(MLP((2, 3, 1), Tanh(), weight_decay=0.1, data=data), zero, seed=0)
    >>> odd.dimension, odd.codimension, odd.order, odd.noise
    (0, 9, 1.0, 0.0)
    >>> biased = invariant_set(MLP((2, 3, 1), Softplus(), weight_decay=0.1, data=data), zero, seed=0)
    >>> biased.dimension, biased.noise > 0  # three units alike: two weights in, one out
    (3, True)
    """
    network = learning_model(model)
    theta = _point(network, point)
    x, y = _samples(network, data, checks.seed(seed))
    limit = checks.fraction("tolerance", tolerance)
    rng = np.random.default_rng([seed, 1])
    scale = max(float(np.linalg.norm(theta)), 1.0)
    at_point = per_sample_gradients(network, theta[None], x, y)[0]
    noise = float(np.sqrt(np.square(at_point - at_point.mean(axis=0)).sum(axis=1).mean()))
    basis, kept, left = _closure(network, theta, at_point, (x, y), scale, limit, rng)
    if 0 < kept < DOUBTFUL * max(limit, left):
        warnings.warn(
            f"The weakest direction that minibatches reach has the relative size {kept:.1e}, the strongest that was "
            f"taken for rounding {left:.1e}: a smaller set is nearly invariant.\n"
            f"Units that saturate do this; `tolerance` = {limit:.0e} says what counts.",
            ValidityWarning,
            stacklevel=2,
        )
    across = _complement(basis)
    order = _order(network, theta, basis, across, (x, y), scale, rng)
    return InvariantSet(theta, basis, across, noise, order, kept, left)


def per_sample_gradients(model: BatchModel | SampleModel, theta: Array, x: Array, y: Array) -> Array:
    """Gradients of the loss of single samples, without weight decay, shape (point, sample, parameter).

    Parameters
    ----------
    model : BatchModel or SampleModel
    theta : ndarray, shape (point, parameter)
    x : ndarray, shape (sample, input)
    y : ndarray, shape (sample, output)

    Examples
    --------
    >>> from kramers_grok.models.chain import ChainModel
    >>> from kramers_grok.theory.deep_linear import DeepLinearChain
    >>> chain = ChainModel(DeepLinearChain(2, 1.0, 0.25))
    >>> per_sample_gradients(chain, np.array([[1.0, 2.0]]), np.array([[1.0]]), np.array([[3.0]])).tolist()
    [[[-2.0, -1.0]]]
    """
    inputs, labels = torch.as_tensor(x).unsqueeze(1), torch.as_tensor(y).unsqueeze(1)
    found = []
    for row in torch.as_tensor(theta):
        rows = row.expand(len(inputs), -1)
        if isinstance(model, SampleModel):
            gradient = model.sample_gradient(rows, inputs, labels)
        else:
            across = inputs.transpose(1, 2)
            gradient = model.data_gradient(rows, torch.bmm(across, inputs), torch.bmm(labels.transpose(1, 2), inputs))
        found.append(gradient.detach())
    return np.asarray(torch.stack(found).numpy())


# ---------------------------------------------------------------- parts


def _point(network: BatchModel | SampleModel, point: ArrayLike | Tensor) -> Array:
    theta = checks.finite_array("point", np.asarray(point))
    if theta.shape != (network.n_parameters,):
        raise InvalidParameterError(
            f"`point` has shape {theta.shape}, expected ({network.n_parameters},): one state of the network.\n"
            "Use `theta[0]` for the first of several replicas."
        )
    return theta


def _samples(
    network: BatchModel | SampleModel, data: FiniteData | OnlineTeacher | None, seed: int
) -> tuple[Array, Array]:
    """Samples whose gradients stand for those of all."""
    given = data if data is not None else getattr(network, "data", None)
    rng = np.random.default_rng([seed, 0])
    if isinstance(given, FiniteData):
        chosen = rng.permutation(given.n_samples)[:MOST_SAMPLES]
        return given.x[chosen], given.y[chosen]
    if not isinstance(given, OnlineTeacher) or network.teacher_matrix is None:
        raise InvalidParameterError(
            f"`data` = {given!r}, expected a data set, or an online teacher whose map the model has: sets that "
            "minibatches cannot leave are those of single samples.\nUse `data=teacher(label_noise=0.5)`."
        )
    root = np.linalg.cholesky(network.input_covariance + 0.0)
    x = rng.normal(size=(max(64, 2 * network.n_inputs), network.n_inputs)) @ root.T
    matrix = network.teacher_matrix
    return x, x @ matrix.T + given.label_noise * rng.normal(size=(len(x), len(matrix)))


def _closure(
    network: BatchModel | SampleModel,
    theta: Array,
    at_point: Array,
    samples: tuple[Array, Array],
    scale: float,
    limit: float,
    rng: np.random.Generator,
) -> tuple[Array, float, float]:
    """Orthonormal basis of the smallest set that holds its samples' gradients; weakest kept, strongest left out."""
    basis = np.zeros((theta.size, 0))
    kept, left = math.inf, 0.0
    rows = np.concatenate([theta[None] * np.abs(at_point).max(initial=1.0), at_point])
    unit = float(np.linalg.norm(rows, axis=1).max())
    while True:
        _, values, found = np.linalg.svd(_off(rows, basis), full_matrices=False)
        relative = values / max(unit, 1e-300)
        new = relative > limit
        left = max(left, float(relative[~new].max(initial=0.0)))
        if not new.any():
            return basis, kept if basis.shape[1] else 0.0, left
        kept = min(kept, float(relative[new].min()))
        # Twice is enough: the second pass takes out what rounding left along the directions there are.
        basis = np.linalg.qr(np.concatenate([basis, _off(_off(found[new], basis), basis).T], axis=1))[0]
        rows = per_sample_gradients(network, _probes(theta, basis, scale, rng), *samples).reshape(-1, theta.size)
        unit = float(np.linalg.norm(rows, axis=1).max())


def _probes(theta: Array, basis: Array, scale: float, rng: np.random.Generator) -> Array:
    """Random points of the set at a distance from the state, shape (point, parameter)."""
    steps = rng.normal(size=(PROBES, basis.shape[1]))
    steps *= RADIUS * scale / np.maximum(np.linalg.norm(steps, axis=1, keepdims=True), 1e-300)
    return np.asarray((theta @ basis + steps) @ basis.T)


def _off(rows: Array, basis: Array) -> Array:
    """What of vectors, one a row, does not lie along an orthonormal basis."""
    return np.asarray(rows - (rows @ basis) @ basis.T)


def _complement(basis: Array) -> Array:
    """Orthonormal basis of what is at right angles, shape (parameter, codimension)."""
    full = np.linalg.svd(basis, full_matrices=True)[0] if basis.shape[1] else np.eye(len(basis))
    return np.asarray(full[:, basis.shape[1] :])


def _order(
    network: BatchModel | SampleModel,
    theta: Array,
    basis: Array,
    across: Array,
    samples: tuple[Array, Array],
    scale: float,
    rng: np.random.Generator,
) -> float:
    """Power of the amplitude off the set with which gradients across it vanish."""
    if not across.shape[1]:
        return math.nan
    points = _probes(theta, basis, scale, rng) if basis.shape[1] else np.tile(theta, (PROBES, 1))
    off = rng.normal(size=(len(points), across.shape[1])) @ across.T
    off *= scale / np.linalg.norm(off, axis=1, keepdims=True)
    found = [per_sample_gradients(network, points + step * off, *samples) for step in STEPS_OFF]
    sizes = [float(np.linalg.norm(g @ across)) for g in found]
    if sizes[1] <= ROUNDING * float(np.linalg.norm(found[1])):
        return math.inf
    return float(round(math.log(sizes[0] / sizes[1]) / math.log(STEPS_OFF[0] / STEPS_OFF[1])))
