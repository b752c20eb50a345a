"""A symbolic energy with named coordinates, and its numerical versions."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import sympy
from numpy.typing import ArrayLike, NDArray

from kramers_grok.core.exceptions import InvalidParameterError

__all__ = ["Landscape", "with_float_constants"]

Array = NDArray[np.float64]


def with_float_constants(expression: sympy.Expr) -> sympy.Expr:
    """Return an expression whose irrational constants (√3, π) are floats, for backends that know no symbols.

    Examples
    --------
    >>> x = sympy.Symbol("x")
    >>> with_float_constants(sympy.sqrt(4) * x**2 + sympy.sqrt(2) * x)
    2*x**2 + 1.4142135623731*x
    """
    return expression.replace(
        lambda e: e.is_number and not e.is_Rational and not e.is_Float and bool(e.is_real),
        lambda e: sympy.Float(float(e)),
    )


@dataclass(frozen=True)
class Landscape:
    r"""An energy :math:`F(x)` and the order parameters :math:`m_k(x)` in named coordinates.

    All parameters except the coordinates are already numbers. The expressions are the single source
    from which numpy functions (here) and compiled kernels (elsewhere) are made, so they cannot differ.

    Parameters
    ----------
    energy : sympy.Expr
        :math:`F(x)` [loss].
    coordinates : tuple of sympy.Symbol
        Names and order of the coordinates.
    order_parameters : tuple of sympy.Expr
        :math:`m_k(x)`, one for each feature.

    Raises
    ------
    InvalidParameterError
        If an expression holds a symbol that is not a coordinate.

    Examples
    --------
    >>> import sympy
    >>> x = sympy.Symbol("x", real=True)
    >>> double_well = Landscape((x**2 - 1) ** 2, (x,), (x,))
    >>> double_well.gradient
    (4*x*(x**2 - 1),)
    >>> double_well.hessian_at([[0.0], [1.0]]).ravel().tolist()
    [-4.0, 8.0]
    """

    energy: sympy.Expr
    coordinates: tuple[sympy.Symbol, ...]
    order_parameters: tuple[sympy.Expr, ...]

    def __post_init__(self) -> None:
        object.__setattr__(self, "energy", sympy.sympify(self.energy))
        object.__setattr__(self, "coordinates", tuple(self.coordinates))
        object.__setattr__(self, "order_parameters", tuple(sympy.sympify(m) for m in self.order_parameters))
        known = set(self.coordinates)
        free = self.energy.free_symbols.union(*(m.free_symbols for m in self.order_parameters)) - known
        if free:
            raise InvalidParameterError(
                f"The landscape holds the symbols {sorted(map(str, free))}, which are not coordinates: "
                "a landscape is numeric in everything else.\nUse `energy.subs({symbol: number})` first."
            )

    def __getstate__(self) -> dict[str, Any]:
        """What travels to another process: the expressions; compiled functions are made anew there."""
        return {name: getattr(self, name) for name in ("energy", "coordinates", "order_parameters")}

    @property
    def dimension(self) -> int:
        """Number of coordinates."""
        return len(self.coordinates)

    @cached_property
    def gradient(self) -> tuple[sympy.Expr, ...]:
        """Symbolic gradient of the energy."""
        return tuple(sympy.diff(self.energy, x) for x in self.coordinates)

    @cached_property
    def hessian(self) -> tuple[tuple[sympy.Expr, ...], ...]:
        """Symbolic Hessian of the energy."""
        return tuple(tuple(sympy.diff(g, x) for x in self.coordinates) for g in self.gradient)

    def energy_at(self, x: ArrayLike) -> Array:
        """Energy at points `x` of shape (..., coordinate); shape (...).

        Parameters
        ----------
        x : array_like, shape (..., coordinate)

        Returns
        -------
        array, shape (...)
            [loss]
        """
        return self._evaluate(self._energy_function, x, ())

    def gradient_at(self, x: ArrayLike) -> Array:
        """Gradient at points `x` of shape (..., coordinate); the same shape.

        Parameters
        ----------
        x : array_like, shape (..., coordinate)

        Returns
        -------
        array, shape (..., coordinate)
        """
        return self._evaluate(self._gradient_function, x, (self.dimension,))

    def hessian_at(self, x: ArrayLike) -> Array:
        """Hessian at points `x` of shape (..., coordinate); shape (..., coordinate, coordinate).

        Parameters
        ----------
        x : array_like, shape (..., coordinate)

        Returns
        -------
        array, shape (..., coordinate, coordinate)
        """
        return self._evaluate(self._hessian_function, x, (self.dimension, self.dimension))

    def order_parameters_at(self, x: ArrayLike) -> Array:
        """Order parameters at points `x` of shape (..., coordinate); shape (..., feature).

        Parameters
        ----------
        x : array_like, shape (..., coordinate)

        Returns
        -------
        array, shape (..., feature)
        """
        return self._evaluate(self._order_parameters_function, x, (len(self.order_parameters),))

    # One at a time: a large landscape's Hessian takes minutes to compile, and may never be asked for.
    @cached_property
    def _energy_function(self) -> Callable[..., Any]:
        return self._compiled([self.energy])

    @cached_property
    def _gradient_function(self) -> Callable[..., Any]:
        return self._compiled(list(self.gradient))

    @cached_property
    def _hessian_function(self) -> Callable[..., Any]:
        return self._compiled([entry for row in self.hessian for entry in row])

    @cached_property
    def _order_parameters_function(self) -> Callable[..., Any]:
        return self._compiled(list(self.order_parameters))

    def _compiled(self, expressions: list[sympy.Expr]) -> Callable[..., Any]:
        function: Callable[..., Any] = sympy.lambdify(self.coordinates, expressions, "numpy", cse=True)
        return function

    def _evaluate(self, function: Callable[..., Any], x: ArrayLike, shape: tuple[int, ...]) -> Array:
        points = np.asarray(x, dtype=np.float64)
        if points.ndim == 0 or points.shape[-1] != self.dimension:
            raise InvalidParameterError(
                f"`x` has shape {points.shape}, expected (..., {self.dimension}): the last axis holds the "
                f"coordinates {[str(c) for c in self.coordinates]}.\nUse `x[..., None]` for one coordinate."
            )
        values = function(*np.moveaxis(points, -1, 0))
        # A constant entry (say, a Hessian of a quadratic energy) comes back as a bare number.
        columns = [np.broadcast_to(np.asarray(v, dtype=np.float64), points.shape[:-1]) for v in values]
        return np.stack(columns, axis=-1).reshape(points.shape[:-1] + shape)
