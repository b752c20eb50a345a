r"""What is needed of a Hessian too large to be written down, from its products with vectors.

Lanczos' iteration finds the ends of the spectrum (scipy's ``eigsh``), and turns a vector's view of the whole spectrum
into a quadrature: with Ritz values :math:`\vartheta_i` and the squares :math:`w_i` of the first components of their
vectors, :math:`z^T f(H) z \approx \sum_i w_i f(\vartheta_i)` for a unit vector z. Averaged over all directions that is
the trace of f(H) over the dimension: stochastic Lanczos quadrature (Ubaru, Chen & Saad, SIAM J. Matrix Anal. Appl. 38,
1075 (2017)). Directions that are known exactly, zero modes and both ends of the spectrum, are projected out first and
added exactly; so is the trace on a sketch of ln H's range (Meyer, Musco, Musco & Woodruff, Symposium on Simplicity in
Algorithms 2021). What is left is the bulk that weight decay makes, and the more curvatures are equal the less do probes
scatter; their scatter is the error.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import eigh_tridiagonal
from scipy.sparse.linalg import LinearOperator, eigsh

from kramers_grok.landscape.surface import Surface

__all__ = ["highest_modes", "lanczos", "log_determinant_samples", "lowest_modes", "projected"]

Array = NDArray[np.float64]
Products = Callable[[Array], Array]

_PROBES_AT_ONCE = 32
_ROUGH = 20  # steps of Lanczos' iteration for a function that need not be exact
_BROKEN = 1e-8  # of the largest curvature: the space is exhausted, and what is left is rounding


def lanczos(products: Products, starts: Array, n_steps: int, away: Array) -> tuple[Array, Array, Array]:
    """Lanczos' iteration with full reorthogonalisation, from several starts at once.

    Parameters
    ----------
    products : callable
        Symmetric matrix times each row, (vector, parameter) to the same.
    starts : ndarray, shape (start, parameter)
    n_steps : int
    away : ndarray, shape (direction, parameter)
        Orthonormal null vectors of the matrix, which starts do not hold and rounding would bring in.

    Returns
    -------
    diagonal, off_diagonal : ndarray, shape (start, step) and (start, step − 1)
        Of the tridiagonal matrices. Couplings of an exhausted space are 0.
    basis : ndarray, shape (start, step, parameter)
        Orthonormal vectors; 0 beyond an exhausted space.
    """
    count, size = starts.shape
    steps = min(n_steps, size)
    diagonal, off = np.zeros((count, steps)), np.zeros((count, steps))
    basis = np.zeros((count, steps, size))
    lengths = np.linalg.norm(starts, axis=1, keepdims=True)
    vector = np.divide(starts, lengths, out=np.zeros_like(starts), where=lengths > 0)
    for step in range(steps):
        basis[:, step] = vector
        image = products(vector)
        diagonal[:, step] = np.einsum("sp,sp->s", vector, image)
        for _ in range(2):  # twice is enough: once leaves rounding of the size of what was cancelled
            image -= np.einsum("sk,skp->sp", np.einsum("skp,sp->sk", basis, image), basis)
            image -= (image @ away.T) @ away
        off[:, step] = np.linalg.norm(image, axis=1)
        scale = np.abs(diagonal[:, : step + 1]).max(axis=1) + off[:, : step + 1].max(axis=1)
        off[off[:, step] <= _BROKEN * scale, step] = 0.0
        coupling = off[:, step : step + 1]
        vector = np.divide(image, coupling, out=np.zeros_like(image), where=coupling > 0)
    return diagonal, off[:, :-1], basis


def projected(surface: Surface, theta: Array, away: Array) -> Products:
    """Products with the Hessian, restricted to what is orthogonal to the rows of `away`."""

    def products(vectors: Array) -> Array:
        inside = vectors - (vectors @ away.T) @ away
        image = surface.products(theta, inside)
        return np.asarray(image - (image @ away.T) @ away)

    return products


def _start(size: int, away: Array) -> Array:
    vector = np.cos(np.arange(size) ** 2.0)  # any fixed vector: scipy's own would come from a global generator
    return np.asarray(vector - (vector @ away.T) @ away)


def lowest_modes(
    surface: Surface,
    theta: Array,
    count: int,
    away: Array,
    largest: float,
    *,
    start: Array | None = None,
    tolerance: float = 1e-9,
) -> tuple[Array, Array]:
    """Lowest eigenvalues and eigenvectors orthogonal to `away`, ascending: (mode,) and (mode, parameter).

    Parameters
    ----------
    surface : Surface
    theta : ndarray, shape (parameter,)
    count : int
    away : ndarray, shape (direction, parameter)
        Orthonormal.
    largest : float
        Upper bound of the moduli of the curvatures: directions in `away` are lifted there.
    start : ndarray, shape (parameter,), optional
        About where the lowest mode is.
    tolerance : float
        Relative, of the eigenvalues.
    """
    products = projected(surface, theta, away)

    def lifted(vector: Array) -> Array:
        flat = np.asarray(vector, dtype=np.float64).reshape(1, -1)
        return np.asarray((products(flat) + 2 * largest * (flat @ away.T) @ away)[0])

    begin = _start(surface.size, away) if start is None else start
    return _ends(lifted, surface.size, count, "SA", begin, tolerance)


def highest_modes(surface: Surface, theta: Array, count: int, away: Array) -> tuple[Array, Array]:
    """Highest eigenvalues and eigenvectors orthogonal to `away`; as `lowest_modes`."""
    products = projected(surface, theta, away)

    def one(vector: Array) -> Array:
        return np.asarray(products(np.asarray(vector, dtype=np.float64).reshape(1, -1))[0])

    return _ends(one, surface.size, count, "LA", _start(surface.size, away), 1e-9)


def _ends(
    product: Callable[[Array], Array], size: int, count: int, which: Literal["SA", "LA"], start: Array, tolerance: float
) -> tuple[Array, Array]:
    operator: Any = LinearOperator((size, size), matvec=product, dtype=np.float64)
    values, vectors = eigsh(operator, k=count, which=which, v0=start, ncv=min(size, max(4 * count, 60)), tol=tolerance)
    order = np.argsort(values)
    return values[order], np.ascontiguousarray(vectors[:, order].T)


def log_determinant_samples(
    surface: Surface, theta: Array, away: Array, *, n_probes: int = 32, n_steps: int = 60, sketch: int = 192
) -> tuple[Array, Array]:
    """Estimates of Σ ln of the moduli of the eigenvalues orthogonal to `away`, and of their sum, one for each probe.

    The probes are the same for every point, so that their scatter cancels in the difference of two similar points.

    Parameters
    ----------
    surface : Surface
    theta : ndarray, shape (parameter,)
    away : ndarray, shape (direction, parameter)
        Orthonormal eigenvectors; zero modes among them.
    n_probes, n_steps : int
        Number of probes, and of the quadrature's nodes.
    sketch : int
        Directions on which the trace is summed exactly. Where fewer curvatures differ from the bulk, nothing scatters.
    """
    products = projected(surface, theta, away)
    rng = np.random.default_rng(0)
    inside = surface.size - len(away)
    columns = min(sketch, inside // 2)

    def draw(count: int) -> Array:
        # Normal, so that their directions are even in the subspace that is left.
        vectors = rng.normal(size=(count, surface.size))
        return np.asarray(vectors - (vectors @ away.T) @ away)

    # The bulk, which counts as nothing: what is left has few directions, and the sketch holds them.
    nodes, weights = _quadratures(products, draw(1), n_steps, away)[0]
    bulk = float(np.abs(nodes[np.searchsorted(np.cumsum(weights), 0.5)]))
    range_ = _function_of(products, draw(columns), _ROUGH, away, bulk)
    basis = np.linalg.qr(np.concatenate([away, range_]).T)[0].T[len(away) :] if columns else range_
    exact = _traces(products, basis, n_steps, away, bulk).sum(axis=0)
    probes = draw(n_probes)
    probes -= (probes @ basis.T) @ basis
    probes /= np.linalg.norm(probes, axis=1, keepdims=True)
    rest = (inside - columns) * _traces(products, probes, n_steps, away, bulk)
    logs, sums = (exact + rest).T
    return logs + inside * np.log(bulk), sums + inside * bulk


def _quadratures(products: Products, starts: Array, n_steps: int, away: Array) -> list[tuple[Array, Array]]:
    """Nodes, ascending, and weights of each start's quadrature; the weights sum to 1."""
    found = []
    for first in range(0, len(starts), _PROBES_AT_ONCE):
        diagonal, off, _ = lanczos(products, starts[first : first + _PROBES_AT_ONCE], n_steps, away)
        for d, e in zip(diagonal, off, strict=True):
            nodes, vectors = _ritz(d, e)
            found.append((nodes, vectors[0] ** 2))
    return found


def _traces(products: Products, vectors: Array, n_steps: int, away: Array, bulk: float) -> Array:
    """zᵀ ln(|H|/bulk) z and zᵀ (H − bulk) z of unit vectors z, shape (vector, 2)."""
    pairs = _quadratures(products, vectors, n_steps, away)
    return np.array([(w @ np.log(np.abs(x) / bulk), w @ (x - bulk)) for x, w in pairs]).reshape(-1, 2)


def _function_of(products: Products, vectors: Array, n_steps: int, away: Array, bulk: float) -> Array:
    """ln(|H|/bulk) times each row, about."""
    rows = []
    for first in range(0, len(vectors), _PROBES_AT_ONCE):
        diagonal, off, basis = lanczos(products, vectors[first : first + _PROBES_AT_ONCE], n_steps, away)
        for d, e, q in zip(diagonal, off, basis, strict=True):
            nodes, ritz = _ritz(d, e)
            rows.append((ritz * np.log(np.abs(nodes) / bulk)) @ ritz[0] @ q[: len(nodes)])
    return np.array(rows).reshape(-1, vectors.shape[1])


def _ritz(diagonal: Array, off: Array) -> tuple[Array, Array]:
    exhausted = np.flatnonzero(off == 0)
    end = int(exhausted[0]) + 1 if len(exhausted) else len(diagonal)
    nodes, vectors = eigh_tridiagonal(diagonal[:end], off[: end - 1])
    return np.asarray(nodes), np.asarray(vectors)
