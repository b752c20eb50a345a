"""Figures of paths say what is on their axes, and draw what they are given."""

import numpy as np
import pytest
import xarray as xr

from kramers_grok.core.exceptions import InvalidParameterError
from kramers_grok.landscape.barriers import NumericalBarrier, find_barrier
from kramers_grok.models.deep_linear import DeepLinearNetwork
from kramers_grok.plots.paths import energy_path


@pytest.fixture(scope="module")
def barrier() -> NumericalBarrier:
    network = DeepLinearNetwork((1, 1, 1, 1), [1.0], weight_decay=0.25)
    exact = network.theory.barrier()
    return find_barrier(network, exact.minimum, exact.destination, saddle=exact.saddle)


def test_energy_along_a_path(barrier: NumericalBarrier) -> None:
    ax = energy_path(barrier)
    assert ax.get_xlabel() == "arc length from the saddle s [weight]"
    assert ax.get_ylabel() == "free energy F [loss]"
    curve, *states = ax.lines
    # The arc length is √3 times one layer's amplitude, along which the energy is that of the mode
    s, energy = curve.get_data()
    a = barrier.saddle[0] + np.asarray(s) / np.sqrt(3)
    np.testing.assert_allclose(energy, 0.5 * (1 - np.abs(a) ** 3) ** 2 + 0.375 * a**2, atol=1e-6)
    tops = [float(line.get_ydata()[0]) for line in states]
    assert tops[1] - tops[0] == pytest.approx(barrier.height)


def test_several_paths_against_the_order_parameter(barrier: NumericalBarrier) -> None:
    table = barrier.table()
    ax = energy_path({"one": barrier, "another": table}, against="order_parameter")
    assert ax.get_xlabel() == "order parameter m"
    assert [text.get_text() for text in ax.get_legend().get_texts()] == ["one", "another"]
    assert set(table.attrs) == {"height", "negative_eigenvalue"}


def test_a_table_without_energies_is_refused() -> None:
    with pytest.raises(InvalidParameterError, match="find_barrier"):
        energy_path(xr.Dataset({"order_parameter": ("image", [0.0, 1.0])}))
