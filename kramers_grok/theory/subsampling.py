r"""What a network sees in a sub-sample, and when training on it gives the curve of grokking.

N samples of :math:`y = Mx + s\,n` have second moments :math:`\hat\Sigma_{xx}`, :math:`\hat\Sigma_{yx}` of their own:
the train loss is that of another network, with features :math:`(u_k, v_k)`, input variances :math:`q_k` and
covariances :math:`c_k`. A network that has learned them to order parameters :math:`m_k` makes the errors

.. math::
    E_{\rm train} = \tfrac12\Big[\operatorname{tr}\hat\Sigma_{yy} - \sum_k (2 m_kc_k - m_k^2q_k)\Big],\qquad
    E_{\rm test} = \tfrac12\Big[\operatorname{tr}(MCM^T) + s^2o - \sum_k (2 m_kt_k - m_k^2p_k)\Big],

:math:`t_k = u_k^TMCv_k`, :math:`p_k = v_k^TCv_k`, C the covariance of the population's inputs. Sub-sampling does two
things, which lead to two different late transitions.

- *It hides features.* The variances :math:`q_k` spread between :math:`(1\pm\sqrt{d/N})^2`. A direction that the sample
  hardly contains costs :math:`\tfrac12q_k\sigma_k^2` in train error, little, and :math:`\tfrac12\sigma_k^2` in test
  error, and its barrier is the highest. The network is trapped without it: train error low, test error high, until
  noise carries it over and the test error falls to the train error. This is the curve of grokking.
- *It adds features.* Label noise makes :math:`M + E`, with spurious singular values up to
  :math:`s(\sqrt d+\sqrt o)/\sqrt N` when the inputs are whitened. Between its binodal and its spinodal a spurious
  feature that is learned is metastable, and noise drops it: a gap between train and test error closes late. But
  dropping m changes the train error by :math:`\tfrac12m(2\sigma-m)` and the test error by :math:`-\tfrac12m^2`, and
  above the binodal :math:`m\le\sigma(D-2)/(D-1)`: at D = 3 the train error rises three times as much as the test error
  falls, or more.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from kramers_grok.core import checks
from kramers_grok.core.exceptions import InvalidParameterError
from kramers_grok.theory import mode_states
from kramers_grok.theory.features import features_of
from kramers_grok.theory.phases import FeatureSpectrum

__all__ = [
    "GrokkingCriterion",
    "Subsample",
    "input_variance_edges",
    "noisy_singular_value",
    "spurious_edges",
]

Array = NDArray[np.float64]

_SHARED = 1e-6  # largest correlation of two features' inputs that counts as none


def input_variance_edges(n_samples: int, n_inputs: int) -> tuple[float, float]:
    r"""Edges :math:`(1\pm\sqrt{d/N})^2` of the variances of N samples of d white inputs, for large d and N.

    The lower one is 0 for N ≤ d: directions without any sample are never learned.

    Source: Marchenko & Pastur, Math. USSR Sb. 1, 457 (1967).

    Examples
    --------
    >>> input_variance_edges(16, 4)
    (0.25, 2.25)
    """
    ratio = checks.positive_int("n_inputs", n_inputs) / checks.positive_int("n_samples", n_samples)
    return float(max(0.0, 1 - ratio**0.5) ** 2), float((1 + ratio**0.5) ** 2)


def spurious_edges(label_noise: float, n_samples: int, n_inputs: int, n_outputs: int) -> tuple[float, float]:
    r"""Edges :math:`s\,|\sqrt o\pm\sqrt d|/\sqrt N` of the singular values that label noise makes.

    For whitened inputs :math:`E = s\,n^Tx/N` has independent entries of variance :math:`s^2/N` exactly.

    Examples
    --------
    >>> spurious_edges(0.5, n_samples=25, n_inputs=4, n_outputs=9)
    (0.1, 0.5)
    """
    s = checks.non_negative("label_noise", label_noise)
    roots = [checks.positive_int(n, v) ** 0.5 for n, v in (("n_inputs", n_inputs), ("n_outputs", n_outputs))]
    scale = s / checks.positive_int("n_samples", n_samples) ** 0.5
    return float(scale * abs(roots[1] - roots[0])), float(scale * (roots[1] + roots[0]))


def noisy_singular_value(
    singular_value: float, label_noise: float, n_samples: int, n_inputs: int, n_outputs: int
) -> float:
    r"""Singular value that a teacher's σ turns into under label noise, for large d and o.

    .. math:: \hat\sigma^2 = (\sigma^2+\tau o)(\sigma^2+\tau d)/\sigma^2, \qquad \tau = s^2/N,

    if :math:`\sigma^4 > \tau^2do`; below, it drowns and the upper edge of `spurious_edges` is all that is seen.

    Source: Benaych-Georges & Nadakuditi, J. Multivariate Anal. 111, 120 (2012).

    Examples
    --------
    >>> noisy_singular_value(1.0, 0.0, 10, 4, 4)
    1.0
    """
    sigma = checks.positive("singular_value", singular_value, mode_states.SIGMA_REASON, mode_states.SIGMA_FIX)
    edge = spurious_edges(label_noise, n_samples, n_inputs, n_outputs)[1]
    tau = label_noise**2 / n_samples
    if sigma**4 <= tau**2 * n_inputs * n_outputs:
        return edge
    return float(np.sqrt((sigma**2 + tau * n_outputs) * (sigma**2 + tau * n_inputs)) / sigma)


@dataclass(frozen=True, eq=False)
class Subsample:
    """The features of a sub-sample, strongest first at the depth asked for, and what each is worth.

    Made by `Subsample.of`.

    Attributes
    ----------
    input_variances, covariances : ndarray, shape (feature,)
        q_k and c_k in the sub-sample.
    population_variances, population_covariances : ndarray, shape (feature,)
        p_k and t_k in the population.
    train_total, test_total : float
        Twice the errors of the network that has learned nothing [loss].
    depth : int
    """

    input_variances: Array
    covariances: Array
    population_variances: Array
    population_covariances: Array
    train_total: float
    test_total: float
    depth: int

    @classmethod
    def of(
        cls,
        x: ArrayLike,
        y: ArrayLike,
        *,
        teacher: ArrayLike,
        depth: int,
        label_noise: float = 0.0,
        input_covariance: ArrayLike | None = None,
    ) -> Subsample:
        """Take a sub-sample's inputs and labels beside the population that they come from.

        Parameters
        ----------
        x, y : array_like, shape (sample, input), (sample, output)
        teacher : array_like, shape (output, input)
            The population's map M.
        depth : int
            D ≥ 2.
        label_noise : float
            Its s; the test labels carry it too.
        input_covariance : array_like, shape (input, input), optional
            C of the population's inputs; the identity if not given.

        Raises
        ------
        InvalidParameterError
            For shapes that do not fit, or if the sub-sample's inputs and labels do not share singular vectors: whiten
            the inputs, or take a teacher that is a multiple of a rotation.

        Examples
        --------
        >>> x = np.array([[1.0, 0.5], [-1.0, 0.5], [1.0, -0.5], [-1.0, -0.5]])
        >>> hidden = Subsample.of(x, x, teacher=np.eye(2), depth=3)
        >>> hidden.input_variances.tolist(), [float(e) for e in hidden.errors([1.0, 0.0])]
        ([1.0, 0.25], [0.125, 0.5])
        """
        inputs, targets = checks.finite_array("x", x, ndim=2), checks.finite_array("y", y, ndim=2)
        matrix = checks.finite_array("teacher", teacher, ndim=2)
        if len(inputs) != len(targets) or matrix.shape != (targets.shape[1], inputs.shape[1]):
            raise InvalidParameterError(
                f"`x` has shape {inputs.shape}, `y` {targets.shape} and `teacher` {matrix.shape}, expected (sample, "
                "input), (sample, output) and (output, input).\nUse `data.x, data.y` and the teacher's matrix."
            )
        metric = np.eye(inputs.shape[1]) if input_covariance is None else np.asarray(input_covariance, dtype=np.float64)
        noise = checks.non_negative("label_noise", label_noise)
        n = len(inputs)
        features = features_of(inputs.T @ inputs / n, targets.T @ inputs / n).by_strength(
            checks.positive_int("depth", depth, minimum=2)
        )
        features.require_shared(_SHARED)
        rank = features.rank
        u, v = features.left[:, :rank], features.right[:rank].T
        return cls(
            input_variances=features.input_variances,
            covariances=features.covariances,
            population_variances=np.einsum("ik,ij,jk->k", v, metric, v),
            population_covariances=np.einsum("ik,ij,jk->k", u, matrix @ metric, v),
            train_total=float(np.sum(targets**2) / n),
            test_total=float(np.trace(matrix @ metric @ matrix.T) + noise**2 * len(matrix)),
            depth=depth,
        )

    @property
    def singular_values(self) -> Array:
        """σ_k = c_k / q_k, shape (feature,)."""
        return np.asarray(self.covariances / self.input_variances)

    @property
    def spectrum(self) -> FeatureSpectrum:
        """Spinodals, binodals and states of the train loss."""
        return FeatureSpectrum(tuple(self.singular_values.tolist()), tuple(self.input_variances.tolist()))

    def errors(self, order_parameters: ArrayLike) -> tuple[Array, Array]:
        """Train and test error at order parameters m, shape (..., feature); each of shape (...) [loss].

        Parameters
        ----------
        order_parameters : array_like, shape (..., feature)

        Returns
        -------
        array, shape (...)
            Train errors.
        array, shape (...)
            Test errors.
        """
        m = checks.finite_array("order_parameters", order_parameters)
        if m.shape[-1:] != self.covariances.shape:
            raise checks.invalid(
                "order_parameters",
                checks.Described(f"array of shape {m.shape}"),
                f"shape (..., {self.covariances.size})",
                "one for each feature",
            )
        train = 0.5 * (self.train_total - 2 * m @ self.covariances + m**2 @ self.input_variances)
        test = 0.5 * (self.test_total - 2 * m @ self.population_covariances + m**2 @ self.population_variances)
        return np.asarray(train), np.asarray(test)

    def learned(self, features: Sequence[int], weight_decay: float) -> Array:
        """Order parameters of the state that has learned some features, with weight decay's shrinkage.

        Parameters
        ----------
        features : sequence of int
        weight_decay : float

        Returns
        -------
        array, shape (feature,)

        Raises
        ------
        NoBarrierError
            If λ is not below the spinodal of one of them.
        """
        m = np.zeros(self.covariances.size)
        modes = self.spectrum.modes(self.depth, weight_decay)
        for k in features:
            m[k] = modes[k].learned_amplitude() ** self.depth
        return m

    def learnable(self, weight_decay: float) -> tuple[int, ...]:
        """Features whose spinodal is above λ, strongest first.

        Parameters
        ----------
        weight_decay : float

        Returns
        -------
        tuple of int
        """
        return tuple(np.flatnonzero(self.spectrum.spinodals(self.depth) > weight_decay).tolist())

    def curves(
        self, times: ArrayLike, escape_times: ArrayLike, weight_decay: float, *, activated: ArrayLike | None = None
    ) -> tuple[Array, Array]:
        r"""Mean train and test error against time, features being learned independently.

        Errors are quadratic in each m_k alone, so their means need no more than the probability that it is learned:
        :math:`1-e^{-t/\tau_k}` over a barrier, and a step at :math:`\tau_k` where there is none to speak of.

        Parameters
        ----------
        times : array_like, shape (time,)    [time]
        escape_times : array_like, shape (feature,)    [time]
            Mean times τ_k; infinite for features that are never learned.
        weight_decay : float
        activated : array_like of bool, shape (feature,), optional
            Whether a feature's barrier is high enough for an exponential law; all if not given.

        Returns
        -------
        ndarray, shape (time,), twice
        """
        t, tau = checks.finite_array("times", times, ndim=1), np.asarray(escape_times, dtype=np.float64)
        if tau.shape != self.covariances.shape or not (tau > 0).all():
            raise checks.invalid(
                "escape_times", tau, f"{self.covariances.size} numbers > 0", "each feature has its own"
            )  # fmt: skip
        m = self.learned([k for k in self.learnable(weight_decay) if np.isfinite(tau[k])], weight_decay)
        share = -np.expm1(-t[:, None] / tau)
        if activated is not None:
            share = np.where(np.asarray(activated, dtype=bool), share, t[:, None] >= tau)
        train = 0.5 * (self.train_total - share @ (2 * m * self.covariances - m**2 * self.input_variances))
        gain = 2 * m * self.population_covariances - m**2 * self.population_variances
        return train, 0.5 * (self.test_total - share @ gain)


@dataclass(frozen=True)
class GrokkingCriterion:
    """When train and test error against time are a curve of grokking.

    With errors in units of the first test error: there is a span of time, from t₁ to at least ``span`` t₁, in which the
    train error is below `low` while the gap between test and train error is above `gap`; and at the end the gap is
    below `closed` times its largest value in that span, with the test error below what it was.

    Attributes
    ----------
    low : float
    gap : float
    span : float
    closed : float

    Examples
    --------
    >>> t = np.geomspace(1, 1e4, 41)
    >>> late = np.where(t < 1e3, 0.5, 0.02)
    >>> GrokkingCriterion().holds(t, np.where(t < 10, 1.0, 0.02), np.where(t < 5, 1.0, late))
    True
    >>> GrokkingCriterion().holds(t, late, late)
    False
    """

    low: float = 0.15
    gap: float = 0.1
    span: float = 10.0
    closed: float = 0.5

    def plateau(self, times: ArrayLike, train: ArrayLike, test: ArrayLike) -> tuple[float, float]:
        """First and last time of the longest span, in ratio, of low train error and open gap; NaN if there is none."""
        t, low, high = (checks.finite_array(n, v, ndim=1) for n, v in zip("tab", (times, train, test), strict=True))
        unit = high[0]
        inside = (low < self.low * unit) & (high - low > self.gap * unit) & (t > 0)
        best = (float("nan"), float("nan"))
        begin = None
        for i, here in enumerate(inside.tolist()):
            begin = (i if begin is None else begin) if here else None
            if begin is not None and not t[i] / t[begin] <= best[1] / best[0]:
                best = (float(t[begin]), float(t[i]))
        return best

    def holds(self, times: ArrayLike, train: ArrayLike, test: ArrayLike) -> bool:
        """Whether the curves satisfy the criterion."""
        first, last = self.plateau(times, train, test)
        if not last >= self.span * first:
            return False
        t, a, b = (np.asarray(v, dtype=np.float64) for v in (times, train, test))
        inside = (t >= first) & (t <= last)
        open_gap = float((b - a)[inside].max())
        return bool((b - a)[-1] < self.closed * open_gap and b[-1] < b[inside].max())
