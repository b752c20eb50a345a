"""What networks learn from: online teachers, the population itself, finite data sets, real arrays."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from kramers_grok.core import checks
from kramers_grok.core.exceptions import InvalidParameterError

__all__ = ["FiniteData", "OnlineTeacher", "Population", "autoencoding", "digits", "finite", "population", "teacher"]

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


def teacher(*, label_noise: float) -> OnlineTeacher:
    """Return an endless stream of Gaussian samples labelled by the model's teacher.

    Parameters
    ----------
    label_noise : float
        Standard deviation s ≥ 0 of the labels' noise.

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
    """
    array = _columns("x", x)
    if center:
        array = array - array.mean(axis=0)
    return FiniteData(array, array)


def digits() -> Array:
    """Return scikit-learn's digits: 1,797 images as rows of 64 pixels with values 0 to 16.

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
