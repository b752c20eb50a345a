"""Orbit volumes against tangent vectors made by finite rotations, and against exact partition functions.

What a comparison shares. The Gram check takes tangent vectors from finite rotations of the weights, and knows the
symmetry group and the stabiliser's structure, but neither a Gram determinant nor a Stiefel volume. The partition
functions know nothing of orbits at all: the network's integral is reduced by polar coordinates and exact Gaussian
integrals to a few coordinates without symmetry, and done by quadrature; they share the spectra with the volumes.
"""

import math
from collections.abc import Callable, Sequence
from itertools import combinations, pairwise, product

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.linalg import expm

from kramers_grok.theory.orbits import (
    log_orbit_volume,
    log_pair_gram,
    log_sphere_area,
    log_stiefel_volume,
    orbit_dimension,
)
from kramers_grok.theory.saddles import MatrixNetwork, StationaryPoint

Array = NDArray[np.float64]


def generator(n: int, i: int, j: int) -> Array:
    g = np.zeros((n, n))
    g[i, j], g[j, i] = 1.0, -1.0
    return g


def log_orthogonal_group(n: int) -> float:
    """Volume of O(n) from its known total: 2 · ∏_{k=2..n} 2π^{k/2}/Γ(k/2)."""
    return math.log(2) + sum(math.log(2) + 0.5 * k * math.log(math.pi) - math.lgamma(k / 2) for k in range(2, n + 1))


def weights_of(widths: Sequence[int], features: Sequence[int], amplitudes: Sequence[float]) -> list[Array]:
    layers = [np.zeros((above, below)) for below, above in pairwise(widths)]
    for unit, (feature, a) in enumerate(zip(features, amplitudes, strict=True)):
        for l, layer in enumerate(layers):
            layer[feature if l == len(layers) - 1 else unit, feature if l == 0 else unit] = a
    return layers


def turned(layers: list[Array], which: int | str, turn: Array) -> Array:
    """All weights after one rotation: of hidden layer `which`, or of the data's inputs and outputs together."""
    new = [w.copy() for w in layers]
    if which == "data":
        new[0] = new[0] @ turn[: new[0].shape[1], : new[0].shape[1]].T
        new[-1] = turn[: new[-1].shape[0], : new[-1].shape[0]] @ new[-1]
    else:
        new[int(which)] = turn @ new[int(which)]
        new[int(which) + 1] = new[int(which) + 1] @ turn.T
    return np.concatenate([w.ravel() for w in new])


def gram_spectrum(
    layers: list[Array], clusters: Sequence[Sequence[int]], rng: np.random.Generator
) -> tuple[Array, Array]:
    """Eigenvalues and vectors of the Gram matrix of all generators, by finite rotations at a random orbit point."""
    depth, eps = len(layers), 1e-5
    for l in range(depth - 1):  # an orbit has one Gram determinant everywhere: take any point
        turn = np.linalg.qr(rng.normal(size=(layers[l].shape[0],) * 2))[0]
        layers = [turn @ w if k == l else w @ turn.T if k == l + 1 else w for k, w in enumerate(layers)]
    tangents = []
    moves: list[tuple[int | str, Array]] = [
        (l, generator(layers[l].shape[0], i, j))
        for l in range(depth - 1)
        for i, j in combinations(range(layers[l].shape[0]), 2)
    ]
    size = max(layers[0].shape[1], layers[-1].shape[0])
    moves += [("data", generator(size, i, j)) for c in clusters for i, j in combinations(c, 2)]
    for which, g in moves:
        forth, back = turned(layers, which, expm(eps * g)), turned(layers, which, expm(-eps * g))
        tangents.append((forth - back) / (2 * eps))
    if not tangents:
        return np.empty(0), np.empty((0, 0))
    stacked = np.array(tangents)
    values, vectors = np.linalg.eigh(stacked @ stacked.T)
    return values, vectors


def log_volume_by_generators(
    widths: Sequence[int],
    labels: Sequence[int],
    features: Sequence[int],
    amplitudes: Sequence[float],
    rng: np.random.Generator,
) -> tuple[float, int]:
    """ln Vol = ln|G| − ln|stabiliser| + ½ ln det′ of the Gram matrix of *all* generators; and the dimension."""
    clusters = [[k for k, c in enumerate(labels) if c == label] for label in dict.fromkeys(labels)]
    hidden, s, depth = widths[1:-1], len(amplitudes), len(widths) - 1
    values, _ = gram_spectrum(weights_of(widths, features, amplitudes), clusters, rng)
    positive = values[values > 1e-7]
    log_group = sum(map(log_orthogonal_group, hidden)) + sum(log_orthogonal_group(len(c)) for c in clusters)
    log_stabiliser = sum(log_orthogonal_group(h - s) for h in hidden if h > s)
    for c in clusters:
        used = [a for f, a in zip(features, amplitudes, strict=True) if f in c]
        if len(c) > len(used):
            log_stabiliser += log_orthogonal_group(len(c) - len(used))
        for a in set(used):
            g = used.count(a)  # O(g) turns D frames at once
            log_stabiliser += log_orthogonal_group(g) + g * (g - 1) / 2 * math.log(math.sqrt(depth))
    return log_group - log_stabiliser + 0.5 * float(np.log(positive).sum()), len(positive)


def random_orbit(rng: np.random.Generator) -> tuple[list[int], list[int], list[int], list[float]]:
    """Widths, cluster labels by feature, the channels' features and amplitudes."""
    depth, n_features = int(rng.integers(3, 6)), int(rng.integers(1, 4))
    s = int(rng.integers(0, n_features + 1))
    hidden = [int(rng.integers(max(s, 1), s + 3)) for _ in range(depth - 1)]
    widths = [n_features + int(rng.integers(0, 2)), *hidden, n_features + int(rng.integers(0, 2))]
    labels = [0]
    for _ in range(n_features - 1):
        labels.append(labels[-1] + int(rng.integers(0, 2)))
    features = [int(f) for f in np.sort(rng.permutation(n_features)[:s])]
    of_cluster = {c: rng.uniform(0.3, 1.5, size=2) for c in set(labels)}
    amplitudes = [float(of_cluster[labels[f]][int(rng.random() < 0.3)]) for f in features]
    return widths, labels, features, amplitudes


def ordered_labels(labels: Sequence[int], features: Sequence[int]) -> list[int]:
    return [labels[f] for f in features] + [c for k, c in enumerate(labels) if k not in features]


def test_volumes_are_those_of_the_generators() -> None:
    """300 random orbits: unequal widths, one to three features, degenerate clusters at equal and other amplitudes."""
    rng = np.random.default_rng(1)
    kinds = {"pair in a cluster, equal": 0, "pair in a cluster, unequal": 0, "clustered and unlearned": 0}
    for _ in range(300):
        widths, labels, features, amplitudes = random_orbit(rng)
        expected, dimension = log_volume_by_generators(widths, labels, features, amplitudes, rng)
        order = ordered_labels(labels, features)
        assert orbit_dimension(widths[1:-1], amplitudes, order) == dimension
        assert log_orbit_volume(widths[1:-1], amplitudes, order) == pytest.approx(expected, abs=1e-7)
        for i, j in combinations(range(len(features)), 2):
            if labels[features[i]] == labels[features[j]]:
                equal = amplitudes[i] == amplitudes[j]
                kinds["pair in a cluster, equal" if equal else "pair in a cluster, unequal"] += 1
        kinds["clustered and unlearned"] += any(c in order[: len(features)] for c in order[len(features) :])
    assert min(kinds.values()) >= 10, kinds


@pytest.mark.parametrize("depth", [3, 4, 6])
def test_the_stabiliser_of_equal_amplitudes_has_the_period_of_all_frames(depth: int) -> None:
    """Its generator, found as the Gram matrix's null vector, closes after 2π√D: that is its length, not 2π."""
    layers = weights_of([2] * (depth + 1), [0, 1], [0.7, 0.7])
    tangents = []
    for which in [*range(depth - 1), "data"]:
        forth, back = (turned(layers, which, expm(s * generator(2, 0, 1))) for s in (1e-5, -1e-5))
        tangents.append((forth - back) / 2e-5)
    values, vectors = np.linalg.eigh(np.array(tangents) @ np.array(tangents).T)
    assert values[0] < 1e-9 < values[1]
    angles = vectors[:, 0]  # a unit vector in the frames' metric
    np.testing.assert_allclose(np.abs(angles), 1 / math.sqrt(depth), rtol=1e-6)
    assert math.log(np.prod(values[1:])) == pytest.approx(log_pair_gram(depth, 0.7, 0.7, clustered=True), abs=1e-8)


@pytest.mark.parametrize("clustered", [False, True])
def test_pairs_in_the_limit_of_equal_amplitudes(clustered: bool) -> None:
    """Without a cluster nothing happens at a = b; within one the extra mode's length goes to 0."""
    at = log_pair_gram(4, 0.8, 0.8, clustered)
    near = log_pair_gram(4, 0.8, 0.8 * (1 - 1e-9), clustered)
    if clustered:
        # one more mode, whose length goes to 0 with b^D − a^D
        assert near == pytest.approx(4 * math.log(2) + 8 * math.log(0.8) + 2 * math.log(4e-9), rel=1e-6)
    else:
        assert near == pytest.approx(at, abs=1e-7)


def test_spheres_and_frames() -> None:
    assert [math.exp(log_sphere_area(n)) for n in (1, 2, 3, 4)] == pytest.approx(
        [2, 2 * math.pi, 4 * math.pi, 2 * math.pi**2]
    )
    for n in (1, 2, 3, 5):
        assert log_stiefel_volume(n, n) == pytest.approx(log_orthogonal_group(n))
    assert log_stiefel_volume(0, 3) == 0.0


# ---------------------------------------------------------------- exact partition functions

LogIntegrand = Callable[[Array], tuple[Array, Array]]  # points → (energy, logarithm of the measure)


def log_integral(integrand: LogIntegrand, centre: Array, temperature: float, order: int = 4) -> float:
    """ln ∫ e^{−E/T} dμ about a nondegenerate minimum by Gauss–Hermite quadrature in the principal axes."""
    n, step = len(centre), 1e-4
    axes = step * np.eye(n)
    corners = [
        centre + s * axes[i] + t * axes[j] for i, j in product(range(n), repeat=2) for s in (1, -1) for t in (1, -1)
    ]
    e = integrand(np.array(corners))[0].reshape(n, n, 2, 2)
    hessian = (e[..., 0, 0] - e[..., 0, 1] - e[..., 1, 0] + e[..., 1, 1]) / (4 * step**2)
    values, vectors = np.linalg.eigh(0.5 * (hessian + hessian.T))
    assert values[0] > 0
    nodes, weights = np.polynomial.hermite.hermgauss(order)
    xi = np.array(list(product(nodes, repeat=n)))
    log_weight = np.log(np.array(list(product(weights, repeat=n)))).sum(axis=1)
    energy, log_measure = integrand(centre + math.sqrt(2 * temperature) * (xi / np.sqrt(values)) @ vectors.T)
    floor = float(integrand(centre[None])[0][0])
    terms = log_weight + (xi**2).sum(axis=1) + log_measure - (energy - floor) / temperature
    scale = 0.5 * n * math.log(2 * temperature) - 0.5 * float(np.log(values).sum())
    return float(np.log(np.exp(terms - terms.max()).sum()) + terms.max()) + scale - floor / temperature


def log_gaussian(point: StationaryPoint, energy: float, temperature: float) -> float:
    """ln Z of an orbit of minima: volume × Gaussian integral over what is not a zero mode."""
    gauss = 0.5 * len(point.spectrum) * math.log(2 * math.pi * temperature) - 0.5 * float(np.log(point.spectrum).sum())
    return point.log_orbit_volume + gauss - energy / temperature


def energy_of(network: MatrixNetwork, point: StationaryPoint) -> float:
    sigma = np.array(network.singular_values)
    fit = 0.5 * network.input_variance * float(((sigma - point.order_parameters) ** 2).sum())
    return fit + 0.5 * network.weight_decay * network.depth * sum(a * a for a in point.amplitudes)


T = 1e-6  # corrections to the Gaussian integral are of order T: 1e-6 found


def log_z_of_scalars(network: MatrixNetwork, a: float) -> float:
    """Scalar input and output, D = 3: radii of W_1 and W_3, one component of W_2; the others are Gaussian."""
    (_, h, k, _), (sigma,), decay, q = (
        network.widths,
        network.singular_values,
        network.weight_decay,
        network.input_variance,
    )

    def integrand(x: Array) -> tuple[Array, Array]:
        rho, z, tau = x.T
        energy = 0.5 * q * (sigma - rho * z * tau) ** 2 + 0.5 * decay * (x**2).sum(axis=1)
        return energy, (h - 1) * np.log(rho) + (k - 1) * np.log(tau)

    spheres = sum(math.log(2) + 0.5 * n * math.log(math.pi) - math.lgamma(n / 2) for n in (h, k))
    inner = log_integral(integrand, np.full(3, a), T)
    return inner + spheres + 0.5 * (h * k - 1) * math.log(2 * math.pi * T / decay)


def log_z_of_a_turning_feature(network: MatrixNetwork, a: float) -> float:
    """(2, 1, 1, 2) with equal singular values: lengths of W_1 and W_3 and the angle between them, W_2 a number."""
    sigma, decay = network.singular_values[0], network.weight_decay

    def integrand(x: Array) -> tuple[Array, Array]:
        rho, z, tau, angle = x.T
        p = rho * z * tau
        norms = rho**2 + z**2 + tau**2
        return 0.5 * (2 * sigma**2 - 2 * sigma * p * np.cos(angle) + p**2) + 0.5 * decay * norms, np.log(rho * tau)

    # All directions of W_1; angle π with W_2 < 0 is the second copy.
    return log_integral(integrand, np.array([a, a, a, 0.0]), T) + math.log(2 * math.pi * 2)


def log_z_of_two_by_two(network: MatrixNetwork, amplitudes: Sequence[float]) -> float:
    """(2, 2, 2, 2): W_1 = R P, W_3 = P' R' in polar form (volume of O(2) each, Jacobian tr P/√2), W_2 Gaussian."""
    teacher, decay, q = np.diag(network.singular_values), network.weight_decay, network.input_variance

    def symmetric(x: Array) -> Array:
        off = x[:, 2] / math.sqrt(2)  # orthonormal coordinates of symmetric matrices
        return np.moveaxis(np.array([[x[:, 0], off], [off, x[:, 1]]]), -1, 0)

    def integrand(x: Array) -> tuple[Array, Array]:
        first, last = symmetric(x[:, :3]), symmetric(x[:, 3:])
        below, above = first @ first, last @ last
        precision = decay * np.eye(4) + q * np.einsum("nab,ncd->nacbd", above, below).reshape(-1, 4, 4)
        source = q * (last @ teacher @ first).reshape(-1, 4)
        best = np.linalg.solve(precision, source[..., None])[..., 0]
        energy = 0.5 * q * (teacher**2).sum() - 0.5 * (source * best).sum(axis=1) + 0.5 * decay * (x**2).sum(axis=1)
        traces = np.log((x[:, 0] + x[:, 1]) * (x[:, 3] + x[:, 4]) / 2)
        return energy, traces - 0.5 * np.linalg.slogdet(precision)[1]

    centre = np.array([*amplitudes, 0.0, *amplitudes, 0.0])
    return log_integral(integrand, centre, T) + 2 * math.log(4 * math.pi) + 2 * math.log(2 * math.pi * T)


CASES: list[tuple[MatrixNetwork, int, Callable[..., float]]] = [
    (MatrixNetwork((1, 2, 2, 1), (1.0,), 0.25), 1, log_z_of_scalars),
    (MatrixNetwork((1, 2, 3, 1), (1.3,), 0.2, 0.8), 1, log_z_of_scalars),
    (MatrixNetwork((2, 1, 1, 2), (1.0, 1.0), 0.25), 1, log_z_of_a_turning_feature),
    (MatrixNetwork((2, 2, 2, 2), (1.2, 0.9), 0.2, 1.1), 2, log_z_of_two_by_two),
    (MatrixNetwork((2, 2, 2, 2), (1.0, 1.0), 0.2), 2, log_z_of_two_by_two),
]


def excess(network: MatrixNetwork, rank: int, exact: Callable[..., float]) -> float:
    """Logarithm of the exact partition function over the one from orbit and spectrum."""
    point = network.state(rank)
    a = point.amplitudes if rank == 2 else point.amplitudes[0]
    return exact(network, a) - log_gaussian(point, energy_of(network, point), T)


@pytest.mark.parametrize(("network", "rank", "exact"), CASES)
def test_volumes_give_the_partition_function(network: MatrixNetwork, rank: int, exact: Callable[..., float]) -> None:
    """Exact low-temperature partition function of a learned state."""
    assert excess(network, rank, exact) == pytest.approx(0.0, abs=2e-5)


WRONG: dict[str, tuple[str, Callable[..., float]]] = {
    "spheres of one dimension less": ("log_sphere_area", lambda n: log_sphere_area(max(n - 1, 1))),
    "frames that count reflections once": ("log_stiefel_volume", lambda s, n: log_stiefel_volume(s, n) - 0.7 * s),
    "pairs without their factor 2": ("log_pair_gram", lambda *a: log_pair_gram(*a) - math.log(2)),
    "pairs without their cluster": ("log_pair_gram", lambda depth, a, b, clustered: log_pair_gram(depth, a, b, False)),
}


@pytest.mark.parametrize("wrong", WRONG)
def test_a_wrong_volume_is_noticed(wrong: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Negative control: both checks, by generators and by partition functions, fail for each of these."""
    name, mutant = WRONG[wrong]
    monkeypatch.setattr(f"kramers_grok.theory.orbits.{name}", mutant)
    assert max(abs(excess(*case)) for case in CASES) > 0.1
    rng, found = np.random.default_rng(1), 0.0
    for _ in range(60):
        widths, labels, features, amplitudes = random_orbit(rng)
        expected, _ = log_volume_by_generators(widths, labels, features, amplitudes, rng)
        shipped = log_orbit_volume(widths[1:-1], amplitudes, ordered_labels(labels, features))
        found = max(found, abs(shipped - expected))
    assert found > 0.1
