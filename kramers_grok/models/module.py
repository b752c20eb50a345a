"""Any small `torch.nn.Module` as a replica-batched model."""

from __future__ import annotations

import copy
from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import Tensor, nn
from torch.func import functional_call, grad, vmap

from kramers_grok.core import checks
from kramers_grok.core.exceptions import InvalidParameterError
from kramers_grok.models.data import FiniteData
from kramers_grok.models.on_data import OnData
from kramers_grok.models.probe import Loss, check_derivative, is_mean_over_samples, probed_outputs
from kramers_grok.models.readouts import BetweenFunctions, Readout

__all__ = ["ModuleModel", "squared_loss"]

Place = tuple[torch.dtype, torch.device]


def squared_loss(outputs: Tensor, labels: Tensor) -> Tensor:
    """½‖f − y‖², summed over outputs, averaged over samples: the loss of all networks of the package.

    Parameters
    ----------
    outputs, labels : Tensor, shape (sample, output)

    Examples
    --------
    >>> squared_loss(torch.tensor([[1.0], [3.0]]), torch.zeros(2, 1)).item()
    2.5
    """
    return 0.5 * (outputs - labels).square().sum() / outputs.shape[0]


class ModuleModel(OnData):
    r"""A `torch.nn.Module` with any differentiable loss, on a data set, with weight decay on all its parameters.

    .. math:: F(\theta) = \ell\bigl(f_\theta(X), Y\bigr) + \tfrac\lambda2\|\theta\|^2 .

    It is run by `torch.func.functional_call` under `torch.func.vmap`: `theta` holds one row of parameters for each
    replica, in the order of ``module.named_parameters()``, those that require no gradient left out (they stay as they
    are, as buffers do). The module itself is copied and never changed.

    The order parameter is measured in function space, which no symmetry of the parameters can fool,

    .. math:: m(\theta) = \frac{\langle f_\theta - f_A,\, f_B - f_A\rangle}{\|f_B - f_A\|^2},

    0 where the network computes what A does and 1 at B, with the inner product summed over the data and outputs.
    A is the function 0 and B the labels; `between` returns the model with others.

    Paths do not depend on the number of replicas as far as the module's operations do not: to the last bit for
    linear layers with tanh or ReLU, to rounding with torch's GELU, softplus or SiLU, which compute the last few entries
    of a tensor by other code than the rest (`MLP` has its own).

    Parameters
    ----------
    module : torch.nn.Module
        Maps inputs (sample, input) to outputs (sample, output), in float64.
    data : FiniteData
        What energy, gradient and order parameters are of, and what SGD trains on without an online teacher.
    weight_decay : float
        λ ≥ 0.
    loss : callable, optional
        Loss of outputs (sample, output) and labels (sample, label), a scalar; `squared_loss` if not given. Minibatches
        need one that is a mean over samples, as `torch.nn.CrossEntropyLoss()` is.
    teacher_matrix : array_like, shape (output, input), or (K,), optional
        The map M of an online teacher, y = M x + noise, for SGD on fresh samples; `data` is then a probe.
    input_variance : float
        q > 0, the variance of every input of the online teacher.

    Raises
    ------
    InvalidParameterError
        If the module has nothing to train, does not fit the data, or is not a deterministic function of parameters
        and sample: random (dropout), changing its buffers, or mixing the samples of a batch (batch normalisation).
        The message names the submodule. Also if the loss is no scalar, or not differentiable through the module.

    Examples
    --------
    >>> from kramers_grok.models.data import finite
    >>> with torch.random.fork_rng(devices=[]):  # modules draw their first weights from the global generator
    ...     net = nn.Sequential(nn.Linear(2, 3), nn.Tanh(), nn.Linear(3, 1))
    >>> model = ModuleModel(net, data=finite([[1.0, 0.0], [0.0, 1.0]], [1.0, -1.0]), weight_decay=0.1)
    >>> model.n_parameters
    13
    >>> theta = torch.zeros(2, 13, dtype=torch.float64)
    >>> model.energy(theta).tolist(), model.order_parameters(theta).tolist()
    ([0.5, 0.5], [[0.0], [0.0]])
    """

    data: FiniteData

    def __init__(
        self,
        module: nn.Module,
        *,
        data: FiniteData,
        weight_decay: float,
        loss: Loss | None = None,
        teacher_matrix: ArrayLike | None = None,
        input_variance: float = 1.0,
    ) -> None:
        if not isinstance(module, nn.Module):
            raise checks.invalid(
                "module", module, "a torch.nn.Module", "its parameters are what moves",
                "Use `torch.nn.Sequential(…)`, or a class with `forward(x)`.",
            )  # fmt: skip
        if not isinstance(data, FiniteData):
            raise checks.invalid(
                "data", checks.Described(f"a {type(data).__name__}"), "a finite data set",
                "the energy is a mean over its samples", "Use `kg.finite(x, y)`.",
            )  # fmt: skip
        self.module = copy.deepcopy(module).cpu()
        self.data = data  # what has the numbers of inputs and outputs
        super().__init__(data, checks.non_negative("weight_decay", weight_decay), teacher_matrix, input_variance)
        self.loss = squared_loss if loss is None else loss
        self._read_parameters()
        self._still_moved: dict[Place, dict[str, Tensor]] = {}
        outputs = probed_outputs(self.module, torch.as_tensor(data.x))
        self._mean = is_mean_over_samples(self.loss, outputs, torch.as_tensor(data.y))
        check_derivative(self.energy, self.gradient, self.initial)
        self._width = int(outputs.shape[1])
        self._to_labels = self._towards_labels()

    def _read_parameters(self) -> None:
        free = [(name, p) for name, p in self.module.named_parameters() if p.requires_grad]
        if not free:
            raise InvalidParameterError(
                "`module` has no parameter that requires a gradient, expected at least one: nothing could move.\n"
                "Use `parameter.requires_grad_(True)`."
            )
        self._names = [name for name, _ in free]
        self._shapes = [p.shape for _, p in free]
        self._sizes = [p.numel() for _, p in free]
        frozen = {name: p.detach() for name, p in self.module.named_parameters() if not p.requires_grad}
        self._fixed = frozen | dict(self.module.named_buffers())

    def _towards_labels(self) -> BetweenFunctions | None:
        """The order parameter from nothing to the labels; None where they are no outputs, as classes, or all 0."""
        if self.data.y.shape != (self.data.n_samples, self._width) or not self.data.y.any():
            return None
        return BetweenFunctions(np.zeros_like(self.data.y), self.data.y)

    # ---------------------------------------------------------------- what it is

    @property
    def n_parameters(self) -> int:
        """Number of parameters that move."""
        return sum(self._sizes)

    @property
    def n_inputs(self) -> int:
        """Input dimension d of the data."""
        return int(self.data.x.shape[1])

    @property
    def n_outputs(self) -> int:
        """Number of labels of a sample."""
        return int(self.data.y.shape[1])

    @property
    def initial(self) -> Tensor:
        """The parameters that the module came with, shape (parameter,), float64."""
        return self.parameters_of(self.module)

    def parameters_of(self, module: nn.Module) -> Tensor:
        """Return the parameters of a module of the same kind as one point, shape (parameter,), float64.

        Parameters
        ----------
        module : torch.nn.Module

        Returns
        -------
        Tensor, shape (parameter,)
        """
        held = dict(module.named_parameters())
        return torch.cat([held[name].detach().reshape(-1).to("cpu", torch.float64) for name in self._names])

    def load(self, theta: Tensor, module: nn.Module) -> None:
        """Write one point, shape (parameter,), into a module of the same kind.

        Parameters
        ----------
        theta : Tensor, shape (parameter,)
        module : torch.nn.Module
        """
        held = dict(module.named_parameters())
        with torch.no_grad():
            for name, part in zip(self._names, torch.split(theta, self._sizes), strict=True):
                held[name].copy_(part.reshape(held[name].shape))

    @property
    def readout(self) -> Readout:
        """How the order parameter is read off outputs; raises where it needs `between`."""
        chosen = self._to_labels if self.own_readout is None else self.own_readout
        if chosen is None:
            raise InvalidParameterError(
                f"Labels have shape {self.data.y.shape} and are no outputs, or all 0, expected a point of function "
                "space to measure towards.\nUse `model.between(theta_a, theta_b)` with the two states of interest."
            )
        return chosen

    def required_data(self) -> FiniteData:
        """Return `data`."""
        return self.data

    @property
    def _output_width(self) -> int:
        return self._width

    # ---------------------------------------------------------------- samples

    def forward(self, theta: Tensor, x: Tensor) -> Tensor:
        """Outputs, shape (replica, sample, output); x has shape (replica or 1, sample, input)."""
        return self._over_replicas(self._outputs, theta, x)

    def sample_loss(self, theta: Tensor, x: Tensor, y: Tensor) -> Tensor:
        """Mean loss over samples, without weight decay, shape (replica,); shapes as `sample_gradient`."""
        self._require_mean()
        return self._over_replicas(self._loss, theta, x, y)

    def sample_gradient(self, theta: Tensor, x: Tensor, y: Tensor) -> Tensor:
        """Gradient of the mean loss over samples, without weight decay, shape (replica, parameter).

        Parameters
        ----------
        theta : Tensor, shape (replica, parameter)
        x : Tensor, shape (replica or 1, sample, input)
        y : Tensor, shape (replica or 1, sample, label)
        """
        self._require_mean()
        return self._over_replicas(grad(self._loss), theta, x, y)

    def weighted_gradient(self, theta: Tensor, x: Tensor, y: Tensor, weights: Tensor) -> Tensor:
        """Σ_i w_i ∇ℓ_i over samples, without weight decay, shape (replica, parameter).

        Parameters
        ----------
        theta, x, y : Tensor
            As for `sample_gradient`.
        weights : Tensor, shape (replica or 1, sample)
        """
        self._require_mean()
        return self._over_replicas(grad(self._weighted), theta, x, y, weights)

    def _over_replicas(self, function: Callable[..., Tensor], theta: Tensor, *tables: Tensor) -> Tensor:
        """`function` of each replica; tables with one row are shared by all."""
        if theta.shape[0] == 0:  # which vmap refuses
            one = [table if table.shape[0] == 1 else table.new_zeros((1, *table.shape[1:])) for table in tables]
            return self._over_replicas(function, theta.new_zeros((1, theta.shape[1])), *one).narrow(0, 0, 0)
        self._still(theta)  # made out here: a tensor made under vmap belongs to that call alone
        dims = [0 if table.shape[0] > 1 else None for table in tables]
        given = [table.squeeze(0) if dim is None else table for table, dim in zip(tables, dims, strict=True)]
        mapped: Tensor = vmap(function, in_dims=(0, *dims))(theta, *given)
        return mapped

    def _loss(self, theta: Tensor, x: Tensor, y: Tensor) -> Tensor:
        return self.loss(self._outputs(theta, x), y)

    def _weighted(self, theta: Tensor, x: Tensor, y: Tensor, weights: Tensor) -> Tensor:
        single: Tensor = vmap(lambda f, label: self.loss(f.unsqueeze(0), label.unsqueeze(0)))(
            self._outputs(theta, x), y
        )
        return (weights * single).sum()

    def _outputs(self, theta: Tensor, x: Tensor) -> Tensor:
        """Outputs of one replica, (sample, output); theta is (parameter,)."""
        parts = torch.split(theta, self._sizes)
        held = {n: p.reshape(s) for n, p, s in zip(self._names, parts, self._shapes, strict=True)}
        outputs: Tensor = functional_call(self.module, held | self._still(theta), (x,))
        return outputs

    def _require_mean(self) -> None:
        if not self._mean:
            raise InvalidParameterError(
                "`loss` is not the mean of the losses of single samples, expected one where minibatches are drawn: "
                "a batch's gradient would not be an estimate of that of all samples.\n"
                "Use `reduction='mean'`, or `Langevin(model, …)`, which sees all samples at every step."
            )

    def _still(self, like: Tensor) -> dict[str, Tensor]:
        """What does not move, in the dtype and on the device of `like`, brought there once."""
        place = (like.dtype, like.device)
        if place not in self._still_moved:
            self._still_moved[place] = {
                name: value.to(like.device, like.dtype if value.is_floating_point() else value.dtype)
                for name, value in self._fixed.items()
            }
        return self._still_moved[place]

    def _loss_of_all(self, theta: Tensor, x: Tensor, y: Tensor) -> Tensor:
        return self._over_replicas(self._loss, theta, x, y)

    def _gradient_of_all(self, theta: Tensor, x: Tensor, y: Tensor) -> Tensor:
        return self._over_replicas(grad(self._loss), theta, x, y)
