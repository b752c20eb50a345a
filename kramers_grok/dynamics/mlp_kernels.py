"""Compiled CPU kernels of nonlinear networks: those of matrix networks with activation functions, on samples.

SGD takes its batches as samples, Langevin dynamics and full batches all samples of the data, a part of them at a time.
Paths are those of the torch loop to rounding, on the same noise.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from kramers_grok.core import lane_functions
from kramers_grok.dynamics import network_batches
from kramers_grok.dynamics.mlp_steps import WHOLE, NonlinearLayout, SampleBatches, make_nonlinear_layout
from kramers_grok.dynamics.network_kernels import BatchPlan, NetworkKernel
from kramers_grok.dynamics.sampling import FullBatch, Sampler, ShuffledEpochs, WithoutReplacement
from kramers_grok.models.activations import GELU, Identity, Quadratic, ReLU, Softplus, Tanh
from kramers_grok.models.data import FiniteData, OnlineTeacher, Population
from kramers_grok.models.mlp import MLP

__all__ = ["NonlinearShape", "activation_of", "langevin_mlp_kernel", "sgd_mlp_kernel"]

Array = NDArray[np.float64]

# Samples that are passed through the network at once where all of a data set are seen: their activations stay in the
# second-level cache.
CHUNK = 32

_ACTIVATIONS = {
    Identity: lane_functions.IDENTITY,
    Tanh: lane_functions.TANH,
    ReLU: lane_functions.RELU,
    GELU: lane_functions.GELU,
    Softplus: lane_functions.SOFTPLUS,
    Quadratic: lane_functions.QUADRATIC,
}


def activation_of(mlp: MLP) -> int | None:
    """Return the compiled number of a network's activation function, None for one of the user's own.

    Examples
    --------
    >>> from kramers_grok.models.data import finite
    >>> activation_of(MLP.from_data(finite([1.0], [1.0]), (2,), Tanh(), weight_decay=0.1)) == lane_functions.TANH
    True
    """
    return _ACTIVATIONS.get(type(mlp.activation))


@dataclass(frozen=True, eq=False)
class NonlinearShape:
    """A multilayer perceptron as a kernel knows it; see `network_kernels.Shape`.

    Attributes
    ----------
    mlp : MLP
    whole : bool
        Batches are all samples, of which only a part is in memory at a time.
    """

    mlp: MLP
    whole: bool = False

    @property
    def weight_decay(self) -> float:
        """λ."""
        return self.mlp.weight_decay

    @property
    def measurable(self) -> bool:
        """Whether there are samples that order parameters are of; torch says what is missing."""
        return self._probe is not None

    @property
    def _probe(self) -> Array | None:
        """Inputs that order parameters are of."""
        own = self.mlp.own_readout
        if own is not None and own.x is not None:
            return own.x
        return None if self.mlp.data is None else self.mlp.data.x

    def layout(self, columns: int) -> tuple[NDArray[np.int64], NonlinearLayout]:
        """Return the table and the layout for batches of at most so many samples."""
        probe, activation = self._probe, activation_of(self.mlp)
        assert activation is not None
        samples = 0 if probe is None else len(probe)
        room = min(columns, CHUNK) if self.whole else max(columns, min(samples, CHUNK))
        return make_nonlinear_layout(self.mlp.widths, room, activation, biased=self.mlp.biases)

    def vectors(self, feature: int | None) -> tuple[Array, Array]:
        """There are none: order parameters are read off the outputs on the data, see `batches`."""
        return np.zeros(0), np.zeros(0)

    def batches(self, plan: BatchPlan, feature: int | None, dtype: np.dtype[np.floating]) -> SampleBatches:
        """Return a plan, and what order parameters are of, in the form that compiled code takes."""
        nothing = np.zeros((1, 1))
        x, y = (nothing,) * 2 if plan.data is None else (plan.data.x, plan.data.y)
        probe, weights, offset = nothing, nothing, 0.0
        if feature is not None and self._probe is not None:
            probe, (weights, offset) = self._probe, self.mlp.readout.weights(feature)
        # Copies, which may be written: what may not is another type to numba, for which all is compiled again.
        x, y, probe, shares = (np.array(a, dtype=dtype, order="C") for a in (x, y, probe, weights.T))
        white, noisy = plan.spread is not None, plan.label_noise != 0.0
        return SampleBatches(plan.kind, white, noisy, x, y, probe, shares, float(dtype.type(offset)))


def sgd_mlp_kernel(
    mlp: MLP,
    data: OnlineTeacher | Population | FiniteData,
    batch_size: int,
    sampler: Sampler,
    dtype: torch.dtype,
    noise: torch.dtype | None = None,
) -> NetworkKernel | None:
    """Return the kernel of SGD on states of a dtype, whose noise is made in another if asked for.

    None for activation functions of the user's own, shuffled epochs, and dtypes other than float32 and float64.
    """
    if activation_of(mlp) is None or dtype not in (torch.float32, torch.float64):
        return None
    noise = dtype if noise is None or dtype == torch.float32 else noise
    nothing = np.zeros((1, 1))
    if isinstance(data, OnlineTeacher):
        assert mlp.teacher_matrix is not None
        spread, root = mlp.input_variance**0.5, np.eye(mlp.n_inputs)
        plan = BatchPlan(network_batches.SAMPLES, batch_size, -mlp.teacher_matrix, root, spread, data.label_noise)
        return NetworkKernel(NonlinearShape(mlp), plan, noise)
    assert isinstance(data, FiniteData)
    kind = network_batches.REPLACEMENT
    if isinstance(sampler, ShuffledEpochs):
        return None
    if isinstance(sampler, FullBatch):
        kind = WHOLE
    elif isinstance(sampler, WithoutReplacement):
        kind = network_batches.DISTINCT
    plan = BatchPlan(kind, batch_size, nothing, nothing, None, data=data)
    return NetworkKernel(NonlinearShape(mlp, kind == WHOLE), plan, noise)


def langevin_mlp_kernel(mlp: MLP, dtype: torch.dtype, noise: torch.dtype) -> NetworkKernel | None:
    """Return the kernel of Langevin dynamics on the network's data, or None; arguments as for `sgd_mlp_kernel`."""
    data = mlp.required_data()
    return sgd_mlp_kernel(mlp, data, data.n_samples, FullBatch(), dtype, noise)
