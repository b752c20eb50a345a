r"""A deep linear network of many features: which states are metastable, and what each leads to.

Features are the aligned modes of teacher and data: input variance :math:`q_k`, input-output covariance
:math:`c_k`, :math:`\sigma_k = c_k/q_k`. A state is the set of learned features. In a matrix network a
learned feature k and an unlearned one j share hidden channel k, and the state is stable if and only if

.. math:: c_k^2 + (q_j - q_k)\, m_k c_k > c_j^2 \qquad\text{for all such pairs}

(the 2 × 2 block of the Hessian in the first layer's weight from j to k and the last layer's from k to j).
For white inputs and for autoencoders only the ordered states, strongest feature first, pass:
Ersoy & Wiesner, arXiv:2606.17120.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import xarray as xr
from numpy.typing import ArrayLike, NDArray

from kramers_grok.core import checks
from kramers_grok.core.exceptions import InvalidParameterError
from kramers_grok.theory import mode_states
from kramers_grok.theory.deep_linear import Mode
from kramers_grok.theory.features import features_of
from kramers_grok.theory.stability import Phase, Stability, stability

__all__ = ["FeatureSpectrum", "Phase"]

Array = NDArray[np.float64]


@dataclass(frozen=True)
class FeatureSpectrum:
    """Features of a deep linear network, decoupled in the shared singular vectors of teacher and data.

    Parameters
    ----------
    singular_values : tuple of float
        σ_k > 0.
    input_variances : tuple of float
        q_k > 0.
    n_modes : int, optional
        Number of modes including those without covariance (σ = 0), which never matter; at least the
        number of features, which is the default.

    Raises
    ------
    InvalidParameterError
        For values that are not positive, or numbers of values that differ.

    Examples
    --------
    >>> spectrum = FeatureSpectrum.from_teacher([2.0, 1.0, 0.0])
    >>> spectrum.rank, spectrum.number_of_states(depth=3, weight_decay=0.3)
    (2, 3)
    >>> [phase.learned for phase in spectrum.phases(depth=3, weight_decay=0.3)]
    [(), (0,), (0, 1)]
    """

    singular_values: tuple[float, ...]
    input_variances: tuple[float, ...]
    n_modes: int = 0

    def __post_init__(self) -> None:
        sigma = checks.finite_array("singular_values", self.singular_values, ndim=1)
        q = checks.finite_array("input_variances", self.input_variances, ndim=1)
        if sigma.shape != q.shape:
            raise InvalidParameterError(
                f"`singular_values` has {sigma.size} values and `input_variances` {q.size}: expected one of "
                "each per feature.\nUse `FeatureSpectrum.from_teacher(singular_values, input_variance)`."
            )
        reasons = (
            (mode_states.SIGMA_REASON, mode_states.SIGMA_FIX),
            (mode_states.VARIANCE_REASON, mode_states.VARIANCE_FIX),
        )
        for name, values, (why, fix) in zip(("singular_values", "input_variances"), (sigma, q), reasons, strict=True):
            if not (values > 0).all():
                raise checks.invalid(name, float(values.min()), "numbers > 0", why, fix)
            object.__setattr__(self, name, tuple(values.tolist()))
        count = checks.positive_int("n_modes", self.n_modes, minimum=0)
        object.__setattr__(self, "n_modes", max(count, sigma.size))

    # ---------------------------------------------------------------- makers

    @classmethod
    def from_teacher(cls, singular_values: ArrayLike, input_variance: float = 1.0) -> FeatureSpectrum:
        """Take a teacher's singular values, for white inputs of variance `input_variance`.

        Zeros are dropped (the rank says how many are left).

        Parameters
        ----------
        singular_values : array_like, shape (feature,)
        input_variance : float

        Raises
        ------
        InvalidParameterError
            For negative values, or if all are zero.
        """
        sigma = checks.finite_array("singular_values", singular_values, ndim=1)
        if (sigma < 0).any():
            raise checks.invalid(
                "singular_values",
                float(sigma.min()),
                "numbers >= 0",
                "singular values are moduli",
                mode_states.SIGMA_FIX,
            )
        q = checks.positive("input_variance", input_variance, mode_states.VARIANCE_REASON, mode_states.VARIANCE_FIX)
        return cls._keep(np.sort(sigma)[::-1] * q, np.full(sigma.shape, q))

    @classmethod
    def from_teacher_matrix(cls, matrix: ArrayLike, input_variance: float = 1.0) -> FeatureSpectrum:
        """Take a teacher y = M x, M of shape (output, input), for white inputs.

        Parameters
        ----------
        matrix : array_like, shape (output, input)
        input_variance : float
        """
        teacher = checks.finite_array("matrix", matrix, ndim=2)
        sigma = np.linalg.svd(teacher, compute_uv=False)
        sigma[sigma <= sigma[0] * max(teacher.shape) * np.finfo(float).eps] = 0.0
        return cls.from_teacher(sigma, input_variance)

    @classmethod
    def from_covariance(cls, covariance: ArrayLike) -> FeatureSpectrum:
        """Take an autoencoder on data of this second-moment matrix: one feature per eigenvalue, σ = 1.

        Parameters
        ----------
        covariance : array_like, shape (input, input)

        Raises
        ------
        InvalidParameterError
            If the matrix is not square, symmetric and positive semi-definite.
        """
        matrix = checks.finite_array("covariance", covariance, ndim=2)
        if matrix.shape[0] != matrix.shape[1] or not np.allclose(
            matrix, matrix.T, rtol=1e-10, atol=1e-12 * np.abs(matrix).max()
        ):
            raise checks.invalid(
                "covariance",
                checks.Described(f"array of shape {matrix.shape}"),
                "a square symmetric matrix",
                "it holds mean products of inputs",
                "Use `x.T @ x / len(x)`.",
            )
        q: Array = np.linalg.eigvalsh(0.5 * (matrix + matrix.T))[::-1].astype(np.float64)
        rounding = np.abs(q).max() * q.size * np.finfo(float).eps
        if q[-1] < -1e3 * rounding:
            raise checks.invalid(
                "covariance",
                f"matrix with eigenvalue {q[-1]:.6g}",
                "a positive semi-definite matrix",
                "an eigenvalue is the mean square of a projection of the data",
                "Use `x.T @ x / len(x)`.",
            )
        q[q <= rounding] = 0.0
        return cls._keep(q, q)

    @classmethod
    def autoencoder(cls, x: ArrayLike) -> FeatureSpectrum:
        """Take a linear autoencoder on data `x`, shape (sample, input).

        The data are not centred here, because a network without biases does not either: subtract the mean first
        where it is not a feature.

        Parameters
        ----------
        x : array_like, shape (sample, input)
        """
        inputs = checks.finite_array("x", x, ndim=2)
        return cls.from_covariance(inputs.T @ inputs / len(inputs))

    @classmethod
    def from_data(cls, x: ArrayLike, y: ArrayLike, *, tolerance: float = 1e-6) -> FeatureSpectrum:
        r"""Take inputs `x`, shape (sample, input), and targets `y`, shape (sample, output).

        The features are the singular vectors of :math:`\Sigma_{yx} = U C V^T`; they are independent only
        if V also diagonalises :math:`\Sigma_{xx}`.

        Parameters
        ----------
        x, y : array_like
            Not centred here: subtract the means where they are no features.
        tolerance : float
            Largest :math:`|\Sigma_{ij}|/\sqrt{\Sigma_{ii}\Sigma_{jj}}` of the inputs in the basis V that
            counts as zero.

        Raises
        ------
        InvalidParameterError
            For shapes that do not fit, or if inputs and teacher do not share singular vectors: then the
            modes couple, and whitening the inputs is the way out.

        Examples
        --------
        >>> x = np.array([[1.0, 1.0], [1.0, -1.0], [-1.0, 1.0], [-1.0, -1.0]])
        >>> FeatureSpectrum.from_data(x, x @ np.diag([2.0, 0.5])).singular_values
        (2.0, 0.5)
        """
        inputs, targets = checks.finite_array("x", x, ndim=2), checks.finite_array("y", y, ndim=2)
        if len(inputs) != len(targets):
            raise InvalidParameterError(
                f"`x` has {len(inputs)} samples and `y` {len(targets)}: expected one target per input.\n"
                "Use `x[:n], y[:n]`, rows are samples."
            )
        sigma_xx = inputs.T @ inputs / len(inputs)
        return cls.from_moments(sigma_xx, targets.T @ inputs / len(inputs), tolerance=tolerance)

    @classmethod
    def from_moments(cls, sigma_xx: ArrayLike, sigma_yx: ArrayLike, *, tolerance: float = 1e-6) -> FeatureSpectrum:
        """Take second moments instead of samples, shapes (input, input) and (output, input); as `from_data`.

        Parameters
        ----------
        sigma_xx : array_like, shape (input, input)
        sigma_yx : array_like, shape (output, input)
        tolerance : float
            As in `from_data`.

        Examples
        --------
        >>> FeatureSpectrum.from_moments(np.diag([1.0, 4.0]), np.diag([2.0, 1.0])).singular_values
        (2.0, 0.25)
        """
        xx, yx = checks.finite_array("sigma_xx", sigma_xx, ndim=2), checks.finite_array("sigma_yx", sigma_yx, ndim=2)
        if xx.shape != (yx.shape[1], yx.shape[1]):
            raise InvalidParameterError(
                f"`sigma_xx` has shape {xx.shape} and `sigma_yx` {yx.shape}: expected (input, input) and "
                "(output, input).\nUse `x.T @ x / len(x), y.T @ x / len(x)`."
            )
        features = features_of(xx, yx)
        features.require_shared(checks.positive("tolerance", tolerance))
        c, q = np.zeros(len(xx)), np.diag(features.inputs)
        c[: features.rank] = features.covariances
        return cls._keep(c, q)

    @classmethod
    def _keep(cls, c: Array, q: Array) -> FeatureSpectrum:
        there = c > 0
        if not there.any():
            raise InvalidParameterError(
                f"None of the {c.size} modes has an input-output covariance > 0: {mode_states.SIGMA_REASON}.\n"
                "Use targets that depend on the inputs, for instance `y = x @ teacher.T`."
            )
        return cls(tuple((c[there] / q[there]).tolist()), tuple(q[there].tolist()), int(c.size))

    # ---------------------------------------------------------------- per feature

    @property
    def rank(self) -> int:
        """Number of features (modes with σ > 0)."""
        return len(self.singular_values)

    def strengths(self, depth: int) -> Array:
        r"""Strength :math:`q\sigma^{2-2/D}` of each feature, to which spinodal and binodal are proportional.

        Parameters
        ----------
        depth : int

        Returns
        -------
        array, shape (feature,)
        """
        d = self._depth(depth)
        return np.asarray(self.input_variances) * np.asarray(self.singular_values) ** (2 - 2 / d)

    def spinodals(self, depth: int) -> Array:
        """Spinodal of each feature, shape (feature,).

        Parameters
        ----------
        depth : int

        Returns
        -------
        array, shape (feature,)
        """
        return mode_states.spinodal(depth, self.singular_values, self.input_variances)

    def binodals(self, depth: int) -> Array:
        """Binodal of each feature, shape (feature,).

        Parameters
        ----------
        depth : int

        Returns
        -------
        array, shape (feature,)
        """
        return mode_states.binodal(depth, self.singular_values, self.input_variances)

    def modes(self, depth: int, weight_decay: float) -> tuple[Mode, ...]:
        """One mode for each feature.

        Parameters
        ----------
        depth : int
        weight_decay : float

        Returns
        -------
        tuple of Mode
        """
        pairs = zip(self.singular_values, self.input_variances, strict=True)
        return tuple(Mode(depth, sigma, weight_decay, q) for sigma, q in pairs)

    def table(self, depth: int) -> xr.Dataset:
        """Tabulate the features: variance, strength, spinodal, binodal, barrier at the binodal.

        Parameters
        ----------
        depth : int

        Returns
        -------
        Dataset

        Examples
        --------
        >>> table = FeatureSpectrum.from_teacher([2.0, 1.0]).table(depth=3)
        >>> table["binodal"].round(4).values.tolist()
        [1.0, 0.3969]
        """
        binodals = self.binodals(depth)
        heights = mode_states.barrier_height(depth, self.singular_values, binodals, self.input_variances)
        columns = {
            "input_variance": (np.asarray(self.input_variances), "input variance q", "input²"),
            "singular_value": (np.asarray(self.singular_values), "singular value σ", "order parameter"),
            "strength": (self.strengths(depth), "strength q σ^(2-2/D)", "loss/amplitude²"),
            "spinodal": (self.spinodals(depth), "spinodal weight decay", "loss/amplitude²"),
            "binodal": (binodals, "binodal weight decay", "loss/amplitude²"),
            "binodal_barrier": (heights, "barrier height at the binodal", "loss"),
        }
        return xr.Dataset(
            {
                name: ("feature", values, {"units": units, "long_name": label})
                for name, (values, label, units) in columns.items()
            },
            coords={
                "feature": ("feature", np.arange(self.rank), {"units": "1", "long_name": "feature"}),
                "depth": ((), self._depth(depth), {"units": "1", "long_name": "weight layers D"}),
            },
            attrs={"rank": self.rank, "n_modes": self.n_modes},
        )

    # ---------------------------------------------------------------- states

    def number_of_states(self, depth: int, weight_decay: float) -> int:
        """Count the metastable states, without listing them.

        Parameters
        ----------
        depth : int
        weight_decay : float

        Returns
        -------
        int
        """
        return self._stability(depth, weight_decay).number_of_states()

    def phases(self, depth: int, weight_decay: float) -> Iterator[Phase]:
        """Generate the metastable states: the ordered ones first, from none learned to all learnable.

        The others that pass the stability criterion follow lazily, since there can be exponentially many.
        Features of equal strength are learned in the order of their numbers: each such state stands for
        the continuous family that rotates them into one another. At D = 2 the transition is continuous and
        the only state has learned all features with λ < qσ.

        Where inputs are not white and σ differs, a feature can be unstable beside another that is too weak to be
        learned; the network then sits in a state that mixes the two, which is not listed.

        Parameters
        ----------
        depth : int
        weight_decay : float

        Returns
        -------
        iterator of Phase
        """
        return self._stability(depth, weight_decay).phases()

    def _stability(self, depth: int, weight_decay: float) -> Stability:
        decay = checks.positive("weight_decay", weight_decay, mode_states.DECAY_REASON, mode_states.DECAY_FIX)
        return stability(self._depth(depth), decay, np.asarray(self.singular_values), np.asarray(self.input_variances))

    def _depth(self, depth: int) -> int:
        return checks.positive_int("depth", depth, minimum=2, why=mode_states.DEPTH_REASON, fix=mode_states.DEPTH_FIX)
