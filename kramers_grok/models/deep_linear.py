"""Deep linear networks in torch, batched over replicas, with hand-written gradients."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from itertools import pairwise
from typing import NamedTuple, Self

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from kramers_grok.core import checks
from kramers_grok.core.exceptions import InvalidParameterError
from kramers_grok.models.arguments import covariance, teacher_map
from kramers_grok.models.chain import ChainModel
from kramers_grok.models.data import FiniteData
from kramers_grok.theory.deep_linear import Mode
from kramers_grok.theory.features import Features, features_of
from kramers_grok.theory.phases import FeatureSpectrum
from kramers_grok.theory.saddles import MatrixNetwork, StationaryPoint

__all__ = ["ChainModel", "DeepLinearNetwork"]

Array = NDArray[np.float64]

# Second moments of whitened data are q·1 up to rounding; such a network is white.
_WHITE = 1e-10
# Largest correlation of two features' inputs that counts as none.
_SHARED = 1e-6
# Entries of all features' dyads u_k v_kᵀ that are multiplied out at once; beyond that memory is the limit.
_FEW = 4096


class _Constants(NamedTuple):
    """What a network's every step needs, on one device."""

    teacher: Tensor  # (output, input)
    xx: Tensor  # (1, input, input)
    yx: Tensor  # (1, output, input)
    left: Tensor  # (1, feature, output, 1)
    right: Tensor  # (1, feature, 1, input)


class DeepLinearNetwork:
    r"""A deep linear network W_D … W_1 that learns a linear teacher M.

    .. math:: F = \tfrac12 \operatorname{tr}\big[(M - W)\,\Sigma_{xx}\,(M - W)^T\big]
        + \tfrac\lambda2 \sum_l \|W_l\|_F^2, \qquad W = W_D\cdots W_1,

    which is the population loss up to the constant that no W removes. White inputs, :math:`\Sigma_{xx} = q\,1`, are the
    default. The order parameters are :math:`m_k = u_k^T W v_k` with the singular vectors of
    :math:`\Sigma_{yx} = M\Sigma_{xx}`, strongest feature first: in the order of :math:`q_k\sigma_k^{2-2/D}`, that of
    `spectrum`. Parameters are the entries of W_1, …, W_D, row by row, in one row of `theta`.

    Parameters
    ----------
    widths : sequence of int
        (d, h_1, …, h_{D−1}, o): inputs, hidden widths, outputs.
    teacher_matrix : array_like, shape (o, d), or (K,)
        The map M; K numbers are its singular values on the diagonal.
    weight_decay : float
        λ > 0.
    input_variance : float
        q > 0, the variance of every input; leave it out where `input_covariance` is given.
    input_covariance : array_like, shape (d, d), optional
        Second moments Σ_xx of inputs that are not white. They need not share vectors with the teacher to be trained
        on, but `spectrum`, `mode`, `singular_values` and `ordered_state` then raise, because features couple; the order
        parameters come in the order of the covariances c_k.

    Raises
    ------
    InvalidParameterError
        If shapes do not fit, a parameter is out of range, or Σ_xx is not symmetric and positive semi-definite.

    Examples
    --------
    >>> network = DeepLinearNetwork((2, 3, 2), [2.0, 1.0], weight_decay=0.1)
    >>> network.n_parameters
    12
    >>> theta = torch.zeros(1, 12, dtype=torch.float64)
    >>> network.energy(theta).item(), network.order_parameters(theta).tolist()
    (2.5, [[0.0, 0.0]])
    >>> autoencoder = DeepLinearNetwork((2, 3, 2), [1.0, 1.0], weight_decay=0.1, input_covariance=np.diag([1.0, 4.0]))
    >>> [round(q, 9) for q in autoencoder.spectrum.input_variances]
    [4.0, 1.0]
    """

    def __init__(
        self,
        widths: Sequence[int],
        teacher_matrix: ArrayLike,
        *,
        weight_decay: float,
        input_variance: float = 1.0,
        input_covariance: ArrayLike | None = None,
    ) -> None:
        self.widths = tuple(checks.positive_int("widths", w) for w in widths)
        if len(self.widths) < 3:
            raise InvalidParameterError(
                f"`widths` = {self.widths}, expected (inputs, hidden widths …, outputs): at least one hidden layer.\n"
                "Use `widths=(d, h, o)` for a network with one hidden layer."
            )
        self.weight_decay = checks.positive("weight_decay", weight_decay)
        self._matrix = teacher_map(teacher_matrix, self.widths[0], self.widths[-1])
        self._input_variance = checks.positive("input_variance", input_variance)
        self._covariance: Array | None = None  # of inputs that are not white
        if input_covariance is not None:
            self._covariance = covariance(input_covariance, self.widths[0], self._input_variance)
            q = float(np.diag(self._covariance).mean())
            if np.abs(self._covariance - q * np.eye(self.n_inputs)).max() <= _WHITE * q:
                self._input_variance, self._covariance = q, None
            elif not (self._matrix @ self._covariance).any():
                raise InvalidParameterError(
                    "`teacher_matrix` · `input_covariance` is all zeros, expected inputs on which the teacher acts: "
                    "there is nothing to learn."
                )
        self._moved: dict[tuple[torch.dtype, torch.device], _Constants] = {}

    @classmethod
    def from_data(cls, data: FiniteData, hidden: Sequence[int], *, weight_decay: float) -> Self:
        """Return the network whose population is a data set: Σ_xx and the least-squares teacher are the data's.

        Parameters
        ----------
        data : FiniteData
            Not centred here: a network without biases does not either.
        hidden : sequence of int
            Hidden widths (h_1, …, h_{D−1}).
        weight_decay : float

        Raises
        ------
        InvalidParameterError
            If inputs and outputs are uncorrelated or `hidden` is empty.

        Examples
        --------
        >>> from kramers_grok.models.data import autoencoding
        >>> network = DeepLinearNetwork.from_data(autoencoding([[3.0, 0], [-3, 0], [0, 1], [0, -1]]), (4, 4),
        ...     weight_decay=0.1)
        >>> network.widths, [round(q, 9) for q in network.spectrum.input_variances]
        ((2, 4, 4, 2), [4.5, 0.5])
        """
        widths = (data.x.shape[1], *hidden, data.y.shape[1])
        # The smallest M with M Σ_xx = Σ_yx. From the samples: their moments have the square of their condition number.
        matrix = np.linalg.lstsq(data.x, data.y, rcond=None)[0].T
        return cls(widths, matrix, weight_decay=weight_decay, input_covariance=data.input_covariance)

    @property
    def depth(self) -> int:
        """Number of weight layers D."""
        return len(self.widths) - 1

    @property
    def n_inputs(self) -> int:
        """Input dimension d."""
        return self.widths[0]

    @property
    def n_outputs(self) -> int:
        """Output dimension o."""
        return self.widths[-1]

    @property
    def is_white(self) -> bool:
        """Whether all inputs have one variance and are uncorrelated."""
        return self._covariance is None

    @property
    def input_variance(self) -> float:
        """Variance q of every input.

        Raises
        ------
        InvalidParameterError
            If the inputs are not white.
        """
        self._require_white("has no one input variance")
        return self._input_variance

    @property
    def input_covariance(self) -> Array:
        """Second moments of the inputs Σ_xx, shape (input, input)."""
        return self._input_variance * np.eye(self.n_inputs) if self._covariance is None else self._covariance

    @property
    def teacher_matrix(self) -> Array:
        """Teacher's map M, shape (output, input)."""
        return self._matrix

    def _require_white(self, what: str) -> None:
        if not self.is_white:
            raise InvalidParameterError(
                f"This network {what}: its inputs are not white, and that theory is for white inputs.\n"
                "Use `network.spectrum` for its features, or whiten the inputs with `whitened(x)`."
            )

    @cached_property
    def _features(self) -> Features:
        """Singular vectors of Σ_yx, strongest feature first; by covariance where features couple."""
        if self._covariance is None:
            u, values, vt = np.linalg.svd(self._matrix)
            values = values[values > 1e-12 * values[0]]
            q = self._input_variance
            return Features(u, q * values, vt, q * np.eye(self.n_inputs))
        features = features_of(self._covariance, self._matrix @ self._covariance)
        return features.by_strength(self.depth) if features.worst_correlation[0] <= _SHARED else features

    @property
    def singular_vectors(self) -> tuple[Array, Array]:
        """u_k of every feature, shape (feature, output), and v_k, shape (feature, input), in the order of m_k."""
        features = self._features
        return features.left[:, : features.rank].T.copy(), features.right[: features.rank].copy()

    @property
    def n_features(self) -> int:
        """Number of features, the rank of Σ_yx."""
        return self._features.rank

    @cached_property
    def singular_values(self) -> Array:
        """Singular value σ_k = c_k/q_k of every feature, strongest first; zeros left out.

        Raises
        ------
        InvalidParameterError
            If the inputs do not share singular vectors with the teacher (as `spectrum`, `mode`, `ordered_state`).
        """
        if self._covariance is None:
            values = np.linalg.svd(self._matrix, compute_uv=True)[1]
            return np.asarray(values[values > 1e-12 * values[0]])
        self._features.require_shared(_SHARED)
        return self._features.singular_values

    @cached_property
    def spectrum(self) -> FeatureSpectrum:
        """Theory of the features, in the order of `order_parameters`; raises as `singular_values`."""
        values = self.singular_values
        q = np.full(len(values), self._input_variance) if self.is_white else self._features.input_variances
        count = min(self.n_inputs, self.n_outputs)
        return FeatureSpectrum(tuple(values.tolist()), tuple(q.tolist()), count)

    @cached_property
    def theory(self) -> MatrixNetwork:
        """Stationary points, spectra and barriers of this network.

        Raises
        ------
        InvalidParameterError
            If the inputs are not white.
        """
        self._require_white("has no theory of its whole weight space")
        values = tuple(float(s) for s in self.singular_values)
        return MatrixNetwork(self.widths, values, self.weight_decay, self._input_variance)

    def mode(self, feature: int = 0) -> Mode:
        """Theory of one feature's balanced mode; raises as `singular_values`.

        Parameters
        ----------
        feature : int
            0 is the strongest.

        Returns
        -------
        Mode
        """
        return self.spectrum.modes(self.depth, self.weight_decay)[feature]

    def ordered_state(self, features: Sequence[int]) -> Tensor:
        """Weights of the state that has learned a set of features: balanced, aligned, the rest 0.

        Parameters
        ----------
        features : sequence of int
            Learned features, strongest 0; the i-th of them uses unit i of every hidden layer. Empty: all weights 0.

        Returns
        -------
        Tensor, shape (parameter,)
            float64; a stationary point of `energy`, a minimum only where `spectrum.phases` lists the set.

        Raises
        ------
        InvalidParameterError
            For features that do not exist or repeat, or more of them than the narrowest hidden layer has units.
        NoBarrierError
            If λ is not below the spinodal of one of them.

        Examples
        --------
        >>> network = DeepLinearNetwork((2, 3, 3, 2), [2.0, 1.0], weight_decay=0.1)
        >>> theta = network.ordered_state([0])
        >>> network.order_parameters(theta[None])[0].abs().round(decimals=4).tolist()
        [1.9195, 0.0]
        """
        chosen = [checks.positive_int("features", k, minimum=0) for k in features]
        modes = self.spectrum.modes(self.depth, self.weight_decay)
        narrowest = min(self.widths[1:-1])
        if len(set(chosen)) < len(chosen) or any(k >= len(modes) for k in chosen) or len(chosen) > narrowest:
            raise checks.invalid(
                "features", chosen, f"at most {narrowest} different numbers below {len(modes)}",
                "each learned feature occupies a unit of every hidden layer",
                "Use `range(n)` for the n strongest features.",
            )  # fmt: skip
        u, vt = self._features.left, self._features.right
        layers = [np.zeros((above, below)) for below, above in pairwise(self.widths)]
        for unit, k in enumerate(chosen):
            amplitude = modes[k].learned_amplitude()
            layers[0][unit] = amplitude * vt[k]
            layers[-1][:, unit] = amplitude * u[:, k]
            for layer in layers[1:-1]:
                layer[unit, unit] = amplitude
        return torch.from_numpy(np.concatenate([layer.ravel() for layer in layers]))

    def embed(self, point: StationaryPoint | ArrayLike) -> Tensor:
        """Weights of a point of `theory` in the teacher's own basis: W_1 → W_1 Vᵀ, W_D → U W_D.

        Parameters
        ----------
        point : StationaryPoint, or array_like of shape (parameter,) or (replica, parameter)
            Weights for the teacher diag(singular values), as ``theory.state(rank)`` or ``barrier.saddle``.

        Returns
        -------
        Tensor, the shape of the weights
            float64; energy, order parameters and spectrum are the point's.

        Raises
        ------
        InvalidParameterError
            If the last axis does not hold this network's weights.

        Examples
        --------
        >>> network = DeepLinearNetwork((2, 3, 3, 2), [[0.0, 1.0], [2.0, 0.0]], weight_decay=0.1)
        >>> theta = network.embed(network.theory.state(rank=1))
        >>> (network.gradient(theta[None]).abs().max() < 1e-12).item()
        True
        """
        given = point.theta if isinstance(point, StationaryPoint) else point
        theta = torch.as_tensor(np.array(given, dtype=np.float64))
        if theta.ndim not in (1, 2) or theta.shape[-1] != self.n_parameters:
            raise InvalidParameterError(
                f"`point` has shape {tuple(theta.shape)}, expected (..., {self.n_parameters}): one row holds the "
                f"weights of widths {self.widths}.\nUse `network.theory.state(rank)`."
            )
        u, vt = torch.from_numpy(self._features.left), torch.from_numpy(self._features.right)
        layers = self.layers(theta.reshape(-1, self.n_parameters))
        layers[0], layers[-1] = layers[0] @ vt, u @ layers[-1]
        return torch.cat([w.reshape(len(w), -1) for w in layers], dim=1).reshape(theta.shape)

    @cached_property
    def n_parameters(self) -> int:
        """Number of weights."""
        return sum(a * b for a, b in pairwise(self.widths))

    def layers(self, theta: Tensor) -> list[Tensor]:
        """Weights W_1 … W_D, each of shape (replica, h_l, h_{l−1}).

        Parameters
        ----------
        theta : Tensor, shape (replica, parameter)

        Returns
        -------
        list of Tensor
        """
        sizes = [a * b for a, b in pairwise(self.widths)]
        parts = torch.split(theta, sizes, dim=-1)
        return [p.reshape(-1, b, a) for p, (a, b) in zip(parts, pairwise(self.widths), strict=True)]

    def product(self, theta: Tensor) -> Tensor:
        """End-to-end map W_D … W_1, shape (replica, output, input).

        Parameters
        ----------
        theta : Tensor, shape (replica, parameter)

        Returns
        -------
        Tensor, shape (replica, output, input)
        """
        return self._products_below(self.layers(theta))[-1]

    @cached_property
    def _narrow(self) -> int:
        """Number l of layers in W Σ̂_xx = W_D … W_{l+1} (W_l … W_1 Σ̂_xx) that takes the fewest multiplications."""
        inputs, widths, depth = self.n_inputs, self.widths, self.depth

        def cost(l: int) -> int:
            above = sum(a * b for a, b in pairwise(widths[l:]))
            whole_map = widths[-1] * widths[-2] if l == depth else 0  # which the gradient needs for nothing else
            return inputs * widths[l] + above + whole_map

        return min(range(depth, 0, -1), key=cost)

    @staticmethod
    def _products_below(layers: list[Tensor]) -> list[Tensor]:
        products = [layers[0]]
        for layer in layers[1:]:
            products.append(torch.bmm(layer, products[-1]))
        return products

    def energy(self, theta: Tensor) -> Tensor:
        """Population loss with weight decay (label noise left out), shape (replica,)."""
        constants = self._constants(theta)
        residual = self.product(theta) - constants.teacher
        if self._covariance is None:
            fit = 0.5 * self._input_variance * residual.square().sum(dim=(-2, -1))
        else:
            weighted = torch.bmm(residual, constants.xx.expand(len(residual), -1, -1))
            fit = 0.5 * (weighted * residual).sum(dim=(-2, -1))
        return fit + 0.5 * self.weight_decay * theta.square().sum(dim=-1)

    def gradient(self, theta: Tensor) -> Tensor:
        """Gradient of `energy`, shape (replica, parameter)."""
        constants = self._constants(theta)
        if self._covariance is not None:
            return self.batch_gradient(theta, constants.xx, constants.yx)
        layers = self.layers(theta)
        below = self._products_below(layers)
        error = self._input_variance * below[-1] - constants.yx
        return self._backward(layers, below, error) + self.weight_decay * theta

    def data_gradient(self, theta: Tensor, xx: Tensor, yx: Tensor) -> Tensor:
        """Gradient of a batch's loss without weight decay: A_lᵀ (W Σ̂_xx − Σ̂_yx) B_lᵀ, shape (replica, parameter)."""
        layers, narrow = self.layers(theta), self._narrow
        below = self._products_below(layers[: max(narrow, self.depth - 1)])
        error = torch.bmm(below[narrow - 1], xx.expand(theta.shape[0], -1, -1))
        for layer in layers[narrow:]:
            error = torch.bmm(layer, error)
        return self._backward(layers, below, error - yx)

    @staticmethod
    def _backward(layers: list[Tensor], below: list[Tensor], error: Tensor) -> Tensor:
        """Gradients of all layers from that of the end-to-end map, `error`."""
        gradients: list[Tensor] = []
        back = error  # A_lᵀ · error for the layers above l, from the top down
        for index in range(len(layers) - 1, -1, -1):
            gradient = torch.bmm(back, below[index - 1].transpose(1, 2)) if index else back
            gradients.append(gradient.flatten(1))
            if index:
                back = torch.bmm(layers[index].transpose(1, 2), back)
        gradients.reverse()
        return torch.cat(gradients, dim=-1)

    def batch_gradient(self, theta: Tensor, xx: Tensor, yx: Tensor) -> Tensor:
        """`data_gradient` + λ W_l, shape (replica, parameter)."""
        return self.data_gradient(theta, xx, yx) + self.weight_decay * theta

    def _constants(self, like: Tensor) -> _Constants:
        """Return the network's constants in the dtype and on the device of `like`, moved there once."""
        key = (like.dtype, like.device)
        if key not in self._moved:
            features = self._features
            rank = features.rank
            arrays = (self._matrix, features.left[:, :rank].T.copy(), features.right[:rank])
            teacher, left, right = (torch.as_tensor(a).to(like) for a in arrays)
            if self._covariance is None:
                identity = torch.eye(self.n_inputs, dtype=like.dtype, device=like.device)
                xx, yx = (self._input_variance * m.unsqueeze(0) for m in (identity, teacher))
            else:
                moments = (self._covariance, self._matrix @ self._covariance)
                xx, yx = (torch.as_tensor(m).to(like).unsqueeze(0) for m in moments)
            self._moved[key] = _Constants(teacher, xx, yx, left.reshape(1, rank, -1, 1), right.reshape(1, rank, 1, -1))
        return self._moved[key]

    def input_vectors(self, like: Tensor) -> Tensor:
        """Right singular vector v_k of every feature in the dtype and on the device of `like`, (feature, input).

        Parameters
        ----------
        like : Tensor

        Returns
        -------
        Tensor, shape (feature, input)
        """
        return self._constants(like).right.squeeze(2).squeeze(0)

    def order_parameters(self, theta: Tensor) -> Tensor:
        """m_k = u_kᵀ W v_k, strongest feature first, shape (replica, feature)."""
        left, right = self._constants(theta)[3:]
        product = self.product(theta)
        if self.n_features * self.n_inputs * self.n_outputs <= _FEW:
            return (left * product.unsqueeze(1) * right).sum(dim=(-2, -1))
        seen = torch.bmm(left.squeeze(-1).expand(len(product), -1, -1), product)
        return (seen * right.squeeze(2)).sum(dim=-1)
