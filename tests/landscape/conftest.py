"""Landscapes whose stationary points are known."""

import numpy as np
import pytest
import sympy

from kramers_grok.core.landscape import Landscape
from kramers_grok.models.activations import Tanh
from kramers_grok.models.base import SymbolicModel
from kramers_grok.models.data import finite
from kramers_grok.models.mlp import MLP

X, Y = sympy.symbols("x y", real=True)


@pytest.fixture(scope="session")
def two_channels() -> SymbolicModel:
    """Minima (∓1, 0) with F = 0, a maximum (0, 0) with F = 1 between them, and saddles (0, ±1/√2) with F = 3/4."""
    return SymbolicModel(Landscape((X**2 - 1) ** 2 + Y**4 + Y**2 * (2 * X**2 - 1), (X, Y), (X,)))


@pytest.fixture(scope="session")
def unequal_channels() -> SymbolicModel:
    """As `two_channels`, the upper channel higher than the lower one."""
    energy = (X**2 - 1) ** 2 + Y**4 + Y**2 * (2 * X**2 - 1) + Y * (X**2 - 1) ** 2 / 10
    return SymbolicModel(Landscape(energy, (X, Y), (X,)))


@pytest.fixture(scope="session")
def three_wells() -> SymbolicModel:
    """Minima −2, 0, 2 (and y = 0), the middle one deeper by about 1/2."""
    return SymbolicModel(Landscape(X**2 * (X**2 - 4) ** 2 / 8 + Y**2 - sympy.exp(-4 * X**2) / 2, (X, Y), (X,)))


@pytest.fixture(scope="session")
def mexican_hat() -> SymbolicModel:
    """A circle of minima, radius 1, around a maximum."""
    return SymbolicModel(Landscape((X**2 + Y**2 - 1) ** 2, (X, Y), (X,)))


@pytest.fixture(scope="session")
def small_tanh() -> MLP:
    """A network that tanh units fit; at this weight decay the zero state is a trap."""
    x = np.random.default_rng(0).normal(size=(24, 2))
    return MLP.from_data(finite(x, np.tanh(1.5 * x @ [[1.0], [0.5]])), (2, 2), Tanh(), weight_decay=0.12)
