"""What networks learn from: online teachers, the population itself, finite data sets, real arrays."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from kramers_grok.core import checks
from kramers_grok.core.exceptions import InvalidParameterError

__all__ = [
    "FiniteData",
    "OnlineTeacher",
    "Population",
    "Split",
    "autoencoding",
    "digits",
    "finite",
    "linear_teacher_data",
    "modular_addition",
    "population",
    "subsample",
    "teacher",
    "whitened",
]

Array = NDArray[np.float64]


@dataclass(frozen=True)
class OnlineTeacher:
    """Fresh Gaussian samples: x ~ N(0, q·1), y = M x + s·n with n ~ N(0, 1).

    The teacher's map M and the input variance q are the model's own.

    Attributes
    ----------
    label_noise : float
        Standard deviation s of the labels' noise.
    """

    label_noise: float


@dataclass(frozen=True)
class Population:
    """The exact expected gradient: minibatches of infinitely many samples.

    SGD on it plus per-sample Gaussian noise *is* Euler–Maruyama with dt = lr; an agreement of the two is an
    identity, not evidence. It serves path-by-path tests and the noise-free control.
    """


@dataclass(frozen=True, eq=False)
class FiniteData:
    """A data set of N samples.

    Attributes
    ----------
    x : ndarray, shape (sample, input)
    y : ndarray, shape (sample, output)
    """

    x: Array
    y: Array

    @property
    def n_samples(self) -> int:
        """Number of samples N."""
        return int(self.x.shape[0])

    @property
    def input_covariance(self) -> Array:
        """Second moment of the inputs, shape (input, input), normalised by N."""
        return np.asarray(self.x.T @ self.x / self.n_samples)

    @property
    def cross_covariance(self) -> Array:
        """Second moment of outputs with inputs, shape (output, input), normalised by N."""
        return np.asarray(self.y.T @ self.x / self.n_samples)


class Split(NamedTuple):
    """Two parts of one set of samples: what a network is trained on, and what it never sees.

    Attributes
    ----------
    train, test : FiniteData
    """

    train: FiniteData
    test: FiniteData


def teacher(*, label_noise: float) -> OnlineTeacher:
    """Return an endless stream of Gaussian samples labelled by the model's teacher.

    Parameters
    ----------
    label_noise : float
        Standard deviation s ≥ 0 of the labels' noise.

    Returns
    -------
    OnlineTeacher

    Examples
    --------
    >>> teacher(label_noise=0.1)
    OnlineTeacher(label_noise=0.1)
    """
    return OnlineTeacher(checks.non_negative("label_noise", label_noise))


def population() -> Population:
    """Return the exact expected gradient as a data source (no sampling noise)."""
    return Population()


def _columns(name: str, value: ArrayLike) -> Array:
    array = checks.finite_array(name, value)
    if array.ndim == 1:
        array = array[:, None]
    if array.ndim != 2:
        raise InvalidParameterError(
            f"`{name}` has shape {array.shape}, expected (sample,) or (sample, dimension): one row is one sample.\n"
            f"Use `{name}.reshape(len({name}), -1)`."
        )
    return array


def finite(x: ArrayLike, y: ArrayLike) -> FiniteData:
    """Return a finite data set.

    Parameters
    ----------
    x, y : array_like, shape (sample,) or (sample, dimension)
        Inputs and labels.

    Returns
    -------
    FiniteData

    Raises
    ------
    InvalidParameterError
        If they are empty, not finite, or have different numbers of samples.

    Examples
    --------
    >>> finite([1.0, -1.0], [0.5, -0.5]).cross_covariance
    array([[0.5]])
    """
    inputs, outputs = _columns("x", x), _columns("y", y)
    if len(inputs) != len(outputs):
        raise InvalidParameterError(
            f"`x` has {len(inputs)} samples and `y` has {len(outputs)}, expected as many labels as inputs.\n"
            "Check that both were cut from the same rows."
        )
    return FiniteData(inputs, outputs)


def autoencoding(x: ArrayLike, *, center: bool = True) -> FiniteData:
    """Return a data set whose labels are its inputs: a linear autoencoder learns its principal components.

    Parameters
    ----------
    x : array_like, shape (sample,) or (sample, dimension)
    center : bool
        Subtract the mean of every column.

    Returns
    -------
    FiniteData
    """
    array = _columns("x", x)
    if center:
        array = array - array.mean(axis=0)
    return FiniteData(array, array)


def subsample(data: FiniteData, n_samples: int, *, seed: int) -> FiniteData:
    """Return `n_samples` different samples, drawn at random and in random order.

    Under one seed a smaller set is the beginning of a larger one.

    Parameters
    ----------
    data : FiniteData
    n_samples : int
    seed : int

    Returns
    -------
    FiniteData

    Raises
    ------
    InvalidParameterError
        If there are not so many samples.

    Examples
    --------
    >>> data = finite([1.0, 2.0, 3.0], [2.0, 4.0, 6.0])
    >>> part = subsample(data, 2, seed=0)
    >>> part.n_samples, bool((part.y == 2 * part.x).all())
    (2, True)
    """
    count = checks.positive_int("n_samples", n_samples)
    if count > data.n_samples:
        raise checks.invalid(
            "n_samples", count, f"at most {data.n_samples}", "the data set has no more samples, and none is drawn twice"
        )
    chosen = np.random.default_rng(checks.seed(seed)).permutation(data.n_samples)[:count]
    return FiniteData(data.x[chosen], data.y[chosen])


def whitened(x: ArrayLike, *, tolerance: float = 1e-9) -> Array:
    """Return inputs turned and scaled so that their second moments are exactly 1: xᵀx/N = 1, to rounding.

    Parameters
    ----------
    x : array_like, shape (sample, dimension)
        Not centred here.
    tolerance : float
        Directions whose standard deviation is below it, relative to the largest, are dropped.

    Returns
    -------
    ndarray, shape (sample, rank)
        Columns in the order of the variance they had, largest first.

    Raises
    ------
    InvalidParameterError
        If all inputs are 0, or `tolerance` is not between 0 and 1.

    Examples
    --------
    >>> x = whitened([[3.0, 1.0], [-3.0, 1.0], [3.0, -1.0], [-3.0, -1.0]])
    >>> bool(np.abs(x.T @ x / 4 - np.eye(2)).max() < 1e-12)
    True
    """
    inputs = _columns("x", x)
    u, s, _ = np.linalg.svd(inputs, full_matrices=False)
    if s[0] == 0:
        raise checks.invalid("x", "all zeros", "inputs that vary", "nothing can be scaled to variance 1")
    kept = s > checks.fraction("tolerance", tolerance) * s[0]
    return np.asarray(u[:, kept] * len(inputs) ** 0.5)


def linear_teacher_data(
    matrix: ArrayLike, *, n_samples: int, label_noise: float, seed: int, whiten: bool = False
) -> FiniteData:
    """Return samples of a linear teacher, y = M x + s·n, with standard normal inputs and noise.

    Parameters
    ----------
    matrix : array_like, shape (output, input), or (K,)
        M; K numbers are a diagonal.
    n_samples : int
        N. Under one seed a smaller set is the beginning of a larger one, unless it is whitened.
    label_noise : float
        s ≥ 0.
    seed : int
    whiten : bool
        Turn and scale the inputs so that xᵀx/N = 1 exactly, which needs N ≥ d; noise is added afterwards. A network
        from these data is white, and its teacher is M + s·nᵀx/N.

    Returns
    -------
    FiniteData

    Raises
    ------
    InvalidParameterError
        If a parameter is out of range, or fewer samples than inputs are to be whitened.

    Examples
    --------
    >>> data = linear_teacher_data([2.0, 1.0], n_samples=50, label_noise=0.0, seed=0, whiten=True)
    >>> bool(np.abs(data.cross_covariance - np.diag([2.0, 1.0])).max() < 1e-12)
    True
    """
    teacher_map = checks.finite_array("matrix", matrix)
    teacher_map = np.diag(teacher_map) if teacher_map.ndim == 1 else teacher_map
    if teacher_map.ndim != 2:
        raise checks.invalid("matrix", checks.Described(f"array of shape {teacher_map.shape}"), "one or two dimensions")
    outputs, inputs = teacher_map.shape
    count, noise = checks.positive_int("n_samples", n_samples), checks.non_negative("label_noise", label_noise)
    # Streams of their own, so that neither depends on how many numbers the other took.
    streams = np.random.SeedSequence(checks.seed(seed)).spawn(2)
    x, n = (
        np.random.default_rng(s).normal(size=(count, width))
        for s, width in zip(streams, (inputs, outputs), strict=True)
    )
    if whiten:
        if count < inputs:
            raise checks.invalid(
                "n_samples", count, f"at least {inputs}", "fewer samples than inputs cannot have second moments 1",
                "Use `whiten=False`.",
            )  # fmt: skip
        u, _, vt = np.linalg.svd(x, full_matrices=False)
        x = u @ vt * count**0.5  # the nearest whitened inputs: singular values set to √N, axes kept
    return FiniteData(x, x @ teacher_map.T + noise * n)


def modular_addition(p: int, train_fraction: float, *, seed: int, center: bool = True) -> Split:
    r"""Return the task a + b modulo p: all p² pairs, some to train on and the others to test.

    Inputs are two digits one-hot, :math:`x = (e_a, e_b)`, and labels the sum one-hot: the canonical task of grokking.
    Nothing but the rule joins the two parts, and the sum is a function of no linear map of the inputs: over all pairs
    inputs and centred labels are uncorrelated.

    Parameters
    ----------
    p : int
        Modulus, at least 2; a prime has the fewest subgroups to be learned halfway.
    train_fraction : float
        Share of the pairs in the train set, rounded to whole pairs; both sets hold one at least. Under one seed a
        smaller set is the beginning of a larger one.
    seed : int
        Of the split.
    center : bool
        Subtract 1/p from every label, which takes out the constant that a network would learn first.

    Returns
    -------
    Split
        `train` and `test`, with inputs of shape (pair, 2p) and labels of shape (pair, p).

    Raises
    ------
    InvalidParameterError
        If p or the fraction is out of range, or a set would be empty.

    References
    ----------
    Power et al., arXiv:2201.02177 (2022); with squared loss and quadratic activation Gromov, arXiv:2301.02679 (2023).

    Examples
    --------
    >>> train, test = modular_addition(5, 0.6, seed=0, center=False)
    >>> train.x.shape, test.y.shape
    ((15, 10), (10, 5))
    >>> a, b = train.x[0].nonzero()[0] - [0, 5]
    >>> bool(train.y[0].argmax() == (a + b) % 5)
    True
    """
    base = checks.positive_int("p", p, 2, "it is the modulus, and modulo 1 every sum is 0")
    count = round(checks.fraction("train_fraction", train_fraction) * base * base)
    if not 0 < count < base * base:
        raise checks.invalid(
            "train_fraction", train_fraction, f"at least half a pair of {base * base} in either set",
            "a set without samples has no loss", "Use a larger `p`, or a fraction nearer to 0.5.",
        )  # fmt: skip
    order = np.random.default_rng(checks.seed(seed)).permutation(base * base)
    first, second = np.divmod(order, base)
    digit = np.eye(base)
    x = np.concatenate([digit[first], digit[second]], axis=1)
    y = digit[(first + second) % base] - (1.0 / base if center else 0.0)
    return Split(FiniteData(x[:count], y[:count]), FiniteData(x[count:], y[count:]))


def digits() -> Array:
    """Return scikit-learn's digits: 1,797 images as rows of 64 pixels with values 0 to 16.

    Returns
    -------
    array, shape (1797, 64)

    Raises
    ------
    ImportError
        If scikit-learn is not installed (`pip install kramers_grok[data]`).
    """
    try:
        from sklearn.datasets import load_digits
    except ImportError as error:
        raise ImportError(
            "The digits come with scikit-learn, which is not installed.\nUse `pip install 'kramers_grok[data]'`."
        ) from error
    bunch: Any = load_digits()
    return np.asarray(bunch.data, dtype=np.float64)
