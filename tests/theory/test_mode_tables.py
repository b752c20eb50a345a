"""The table of free energies holds what the mode says of itself."""

import numpy as np
import pytest

from kramers_grok.core.exceptions import InvalidParameterError
from kramers_grok.theory.deep_linear import Mode
from kramers_grok.theory.mode_tables import free_energy_table


@pytest.mark.parametrize("depth", [3, 4, 6])
def test_stationary_points_are_stationary_and_as_high_as_the_barrier(depth: int) -> None:
    mode = Mode(depth, 1.3, 0.3, 0.7)
    table = free_energy_table(mode, [0.1, 0.3]).sel(weight_decay=0.3)
    a = table.stationary_amplitude.values
    slopes = (mode.free_energy(a + 1e-6) - mode.free_energy(a - 1e-6)) / 2e-6
    np.testing.assert_allclose(slopes, 0.0, atol=1e-8)
    unlearned, saddle, _ = table.stationary_energy.values
    assert saddle - unlearned == pytest.approx(mode.barrier().height, rel=1e-12)
    np.testing.assert_array_equal(table.free_energy, mode.free_energy(table.amplitude.values))


def test_without_a_learned_state_or_a_saddle() -> None:
    mode = Mode(3, 1.0, 0.9)
    table = free_energy_table(mode, n_points=7)
    assert np.isnan(table.stationary_amplitude.values[0]).tolist() == [False, True, True]
    assert float(table.amplitude[-1]) == pytest.approx(1.2)
    onset = free_energy_table(Mode(2, 1.0, 0.25), highest=3.0)
    assert np.isnan(onset.stationary_amplitude.values[0]).tolist() == [False, True, False]
    assert float(onset.amplitude[-1]) == 3.0


@pytest.mark.parametrize("wrong", [[0.1, 0.0], [-1.0], [np.nan], []])
def test_decays_that_are_none(wrong: list[float]) -> None:
    with pytest.raises(InvalidParameterError, match="`weight_decay`"):
        free_energy_table(Mode(3, 1.0, 0.25), wrong)
