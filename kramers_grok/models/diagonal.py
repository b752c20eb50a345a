"""A network without matrices: independent chains, one for each feature."""

from __future__ import annotations

from functools import lru_cache
from typing import Self

import numpy as np
import sympy
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from kramers_grok.core import checks
from kramers_grok.core.exceptions import InvalidParameterError
from kramers_grok.core.landscape import Landscape
from kramers_grok.models.chain import products_of_others
from kramers_grok.models.data import FiniteData
from kramers_grok.theory.deep_linear import DeepLinearChain, Mode

__all__ = ["DiagonalNetwork"]

Array = NDArray[np.float64]


class DiagonalNetwork:
    r"""K chains of D scalar weights side by side: a deep network whose layers are diagonal matrices.

    .. math:: F = \sum_k \Big[\tfrac12 q_k (\sigma_k - m_k)^2 + \tfrac\lambda2 \sum_l a_{kl}^2\Big], \qquad
        m_k = \prod_l a_{kl}

    Chain k reads input k alone and writes output k alone, so of a batch's moments only the diagonals of
    :math:`\hat\Sigma_{xx}` and :math:`\hat\Sigma_{yx}` act on it. There are no rotations that turn one feature into
    another: every set of learned features is metastable, :math:`2^K` states where a matrix network has K + 1.

    Parameters
    ----------
    depth : int
        Number of layers D ≥ 2.
    singular_values : array_like, shape (feature,)
        σ_k > 0, in any order, which is the order of the chains, inputs, outputs and order parameters.
    weight_decay : float
        λ > 0.
    input_variances : float or array_like, shape (feature,)
        q_k > 0.

    Raises
    ------
    InvalidParameterError
        If a parameter is out of range or numbers of values differ.

    Examples
    --------
    >>> network = DiagonalNetwork(3, [2.0, 1.0], weight_decay=0.1)
    >>> theta = torch.tensor([[1.0, 1.0, 2.0, 0.0, 0.0, 0.0]], dtype=torch.float64)
    >>> network.order_parameters(theta).tolist(), round(network.energy(theta).item(), 12)
    ([[2.0, 0.0]], 0.8)
    >>> network.number_of_states()
    4
    """

    def __init__(
        self,
        depth: int,
        singular_values: ArrayLike,
        *,
        weight_decay: float,
        input_variances: ArrayLike = 1.0,
    ) -> None:
        sigma = checks.finite_array("singular_values", singular_values, ndim=1)
        q = checks.finite_array("input_variances", input_variances)
        if q.ndim > 1 or q.size not in (1, sigma.size):
            raise InvalidParameterError(
                f"`input_variances` has shape {q.shape}, expected one number or one for each of the {sigma.size} "
                "features.\nUse `input_variances=1.0` for white inputs."
            )
        variances = np.broadcast_to(q.reshape(-1), sigma.shape)
        pairs = zip(sigma.tolist(), variances.tolist(), strict=True)
        self.chains = tuple(DeepLinearChain(depth, value, weight_decay, variance) for value, variance in pairs)
        self.depth = self.chains[0].depth
        self.weight_decay = self.chains[0].weight_decay
        self.singular_values: Array = sigma
        self.input_variances: Array = np.array(variances)
        self._moved: dict[tuple[torch.dtype, torch.device], tuple[Tensor, Tensor]] = {}

    @classmethod
    def from_data(cls, data: FiniteData, depth: int, *, weight_decay: float) -> Self:
        r"""Take :math:`q_k = \overline{x_k^2}` and :math:`\sigma_k = \overline{x_k y_k}/q_k` from a data set.

        Parameters
        ----------
        data : FiniteData
        depth : int
        weight_decay : float

        Raises
        ------
        InvalidParameterError
            If inputs and outputs differ in number, or an input is uncorrelated or anticorrelated with its output.

        Examples
        --------
        >>> from kramers_grok.models.data import finite
        >>> data = finite([[1.0, 2.0], [-1.0, 2.0]], [[2.0, 1.0], [-2.0, 1.0]])
        >>> DiagonalNetwork.from_data(data, 3, weight_decay=0.1).singular_values.tolist()
        [2.0, 0.5]
        """
        if data.x.shape != data.y.shape:
            raise InvalidParameterError(
                f"The data have {data.x.shape[1]} inputs and {data.y.shape[1]} outputs, expected as many of both: "
                "chain k leads from input k to output k.\nUse `DeepLinearNetwork.from_data`."
            )
        q, c = np.diag(data.input_covariance), np.diag(data.cross_covariance)
        if not (c > 0).all():
            raise InvalidParameterError(
                f"The data have mean x·y = {c.min():.6g} along an axis, expected > 0: every chain learns something.\n"
                "Use singular vectors as axes, for instance `x @ v, y @ u`, and leave out those without covariance."
            )
        return cls(depth, c / q, weight_decay=weight_decay, input_variances=q)

    # ---------------------------------------------------------------- sizes and statistics

    @property
    def n_features(self) -> int:
        """Number of chains K."""
        return len(self.chains)

    @property
    def n_inputs(self) -> int:
        """Input dimension K."""
        return self.n_features

    @property
    def n_outputs(self) -> int:
        """Output dimension K."""
        return self.n_features

    @property
    def n_parameters(self) -> int:
        """Number of weights K·D."""
        return self.n_features * self.depth

    @property
    def teacher_matrix(self) -> Array:
        """Teacher's map diag(σ), shape (output, input)."""
        return np.diag(self.singular_values)

    @property
    def input_covariance(self) -> Array:
        """Second moments of the inputs diag(q), shape (input, input)."""
        return np.diag(self.input_variances)

    @property
    def input_variance(self) -> float:
        """Variance q of every input.

        Raises
        ------
        InvalidParameterError
            If inputs differ.
        """
        if np.ptp(self.input_variances) > 0:
            raise InvalidParameterError(
                f"The inputs have variances from {self.input_variances.min():g} to {self.input_variances.max():g}, not "
                "one.\nUse `network.input_variances`."
            )
        return float(self.input_variances[0])

    # ---------------------------------------------------------------- theory

    def mode(self, feature: int = 0) -> Mode:
        """Theory of one feature's balanced mode.

        Parameters
        ----------
        feature : int

        Returns
        -------
        Mode
        """
        return self.chains[feature].mode

    def number_of_states(self) -> int:
        """Number of metastable states up to signs of weights: 2 for each feature below its spinodal.

        At D = 2 the state 0 of a learnable feature is unstable, and there is one.

        Returns
        -------
        int
        """
        learnable = sum(chain.weight_decay < chain.spinodal() for chain in self.chains)
        return 1 if self.depth == 2 else int(2**learnable)

    @property
    def landscape(self) -> Landscape:
        """Energy of all weights, with its K order parameters."""
        return _landscape(self.chains)

    def ordered_state(self, features: ArrayLike) -> Tensor:
        """Weights at which the features with these numbers are learned and the rest 0; shape (parameter,), float64.

        Parameters
        ----------
        features : sequence of int

        Returns
        -------
        Tensor, shape (parameter,)

        Raises
        ------
        InvalidParameterError
            For a feature that does not exist.
        NoBarrierError
            If λ is not below the spinodal of one of them.

        Examples
        --------
        >>> network = DiagonalNetwork(3, [2.0, 1.0], weight_decay=0.1)
        >>> network.gradient(network.ordered_state([1])[None]).abs().max().item() < 1e-12
        True
        """
        theta = np.zeros((self.n_features, self.depth))
        for k in np.asarray(features, dtype=object).tolist():
            index = checks.positive_int("features", k, minimum=0)
            if index >= self.n_features:
                raise checks.invalid("features", k, f"numbers below {self.n_features}", "the network has no more")
            theta[index] = self.chains[index].learned_amplitude()
        return torch.from_numpy(theta.ravel())

    # ---------------------------------------------------------------- dynamics

    def _weights(self, theta: Tensor) -> Tensor:
        """Weights by chain, shape (replica, feature, layer)."""
        return theta.reshape(-1, self.n_features, self.depth)

    def order_parameters(self, theta: Tensor) -> Tensor:
        """m_k = ∏_l a_kl, shape (replica, feature)."""
        return self._weights(theta).prod(dim=-1)

    def energy(self, theta: Tensor) -> Tensor:
        """Population loss with weight decay (label noise left out), shape (replica,)."""
        q, cross = self._constants(theta)
        gap = cross / q - self.order_parameters(theta)
        return 0.5 * (q * gap.square()).sum(dim=-1) + 0.5 * self.weight_decay * theta.square().sum(dim=-1)

    def gradient(self, theta: Tensor) -> Tensor:
        """Gradient of `energy`, shape (replica, parameter)."""
        q, cross = self._constants(theta)
        return self._chain_gradient(theta, q, cross) + self.weight_decay * theta

    def data_gradient(self, theta: Tensor, xx: Tensor, yx: Tensor) -> Tensor:
        """(xx_kk m_k − yx_kk) ∂m_k/∂a_kl, shape (replica, parameter)."""
        return self._chain_gradient(theta, xx.diagonal(dim1=-2, dim2=-1), yx.diagonal(dim1=-2, dim2=-1))

    def batch_gradient(self, theta: Tensor, xx: Tensor, yx: Tensor) -> Tensor:
        """`data_gradient` + λ a_kl, shape (replica, parameter)."""
        return self.data_gradient(theta, xx, yx) + self.weight_decay * theta

    def _chain_gradient(self, theta: Tensor, xx: Tensor, yx: Tensor) -> Tensor:
        others, m = products_of_others(self._weights(theta))
        return ((xx * m - yx).unsqueeze(-1) * others).reshape(theta.shape)

    def _constants(self, like: Tensor) -> tuple[Tensor, Tensor]:
        """Variances q and covariances qσ, shape (1, feature), moved once to the dtype and device of `like`."""
        key = (like.dtype, like.device)
        if key not in self._moved:
            arrays = (self.input_variances, self.input_variances * self.singular_values)
            q, cross = (torch.as_tensor(a).to(like).unsqueeze(0) for a in arrays)
            self._moved[key] = q, cross
        return self._moved[key]


@lru_cache(maxsize=64)
def _landscape(chains: tuple[DeepLinearChain, ...]) -> Landscape:
    """Sum of the chains' landscapes, each with coordinates of its own."""
    energy: sympy.Expr = sympy.Integer(0)
    coordinates: list[sympy.Symbol] = []
    orders: list[sympy.Expr] = []
    for k, chain in enumerate(chains, start=1):
        own = chain.landscape
        names = tuple(sympy.Symbol(f"a_{k}_{l}", real=True) for l in range(1, chain.depth + 1))
        rename = dict(zip(own.coordinates, names, strict=True))
        energy += own.energy.xreplace(rename)
        orders += [m.xreplace(rename) for m in own.order_parameters]
        coordinates += names
    return Landscape(energy, tuple(coordinates), tuple(orders))
