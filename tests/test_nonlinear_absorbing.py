"""The committed table of `make evidence NAME=nonlinear_absorbing` holds what the docs say of it; sets are found anew.

Growth rates and networks are read, not simulated: nothing here happens by chance.
"""

from __future__ import annotations

from collections.abc import Callable
from types import ModuleType

import numpy as np
import pytest
import xarray as xr

from kramers_grok.landscape.symmetries.invariant_sets import invariant_set

NAME = "nonlinear_absorbing"


@pytest.fixture(scope="module")
def script(evidence_script: Callable[[str], ModuleType]) -> ModuleType:
    return evidence_script(NAME)


@pytest.fixture(scope="module")
def tree(evidence_tree: Callable[[str], xr.DataTree]) -> xr.DataTree:
    return evidence_tree(NAME)


@pytest.fixture(scope="module")
def states(tree: xr.DataTree) -> xr.Dataset:
    return tree["states"].to_dataset()


@pytest.mark.parametrize("index", [0, 1, 4, 5, 6, 8, 11, 14])
def test_sets_are_found_again(index: int, script: ModuleType, states: xr.Dataset) -> None:
    """From the states' first guess: the set through it is that of the settled state."""
    row, known = script.ROWS[index], states.isel(row=index)
    model = script.network(row.key, script.WIDE)
    found = invariant_set(model, script.STATES[row.state](model), seed=1)
    assert (found.dimension, found.codimension) == (int(known.dimension), int(known.codimension))
    assert str(known.state.values) == row.state
    assert found.order == float(known.order) or found.codimension == 0


def test_two_factors_decay_as_weight_decay_says(script: ModuleType, states: xr.Dataset) -> None:
    kept = states.where(states.order >= 2, drop=True)
    lr, decay = script.LR, script.DECAY
    assert kept.sizes["row"] >= 5
    np.testing.assert_allclose(kept.growth_rate, np.log1p(-lr * decay) / lr, rtol=1e-4)
    assert (kept.n_left == 0).all()


def test_what_is_in_a_set_stays_there(states: xr.Dataset) -> None:
    """To rounding, which grows as everything does: e^(0.2 · 400) times 1e-16 is far away."""
    rows = states
    rate, inside = rows.growth_rate.isel(noise_level=slice(1, None)).values, rows.stays.values
    calm = rate < 0.01
    assert inside[calm].max() < 1e-9
    assert calm.sum() >= 20
    assert (inside[rate > 0.15] > 0.1).all()


def test_networks_leave_where_the_growth_rate_says(states: xr.Dataset) -> None:
    """e^(Λ·400) from 1e-6: all leave above 0.1, none below −0.01; in between bursts and time decide."""
    rows = states
    rate, error = (rows[name].isel(noise_level=slice(1, None)).values for name in ("growth_rate", "growth_rate_error"))
    clear = np.isfinite(rate)
    left, gone = rows.n_left.values, rows.n_gone.values
    assert (left[clear & (rate + 4 * error < -0.01)] == 0).all()
    assert ((left + gone)[clear & (rate - 4 * error > 0.1)] == 16).all()
    assert (clear & (rate - 4 * error > 0.1)).sum() >= 4


def test_noise_makes_an_unstable_set_absorbing(tree: xr.DataTree) -> None:
    """One unit's worth of directions: growth rates are mean logarithms, and networks do what these say."""
    pair = tree["pair"].to_dataset()
    rate, error = pair.growth_rate.values, pair.growth_rate_error.values
    assert (np.abs(rate - pair.mean_logarithm.values) < 4.5 * error + 1e-4).all()
    assert rate[0] > 0.05
    assert rate[-1] + 4 * error[-1] < 0
    assert pair.n_left[0] == 16
    assert pair.n_left[-1] == 0
    assert (np.diff(pair.lr_over_batch) > 0).all()


def test_noise_lowers_growth_beside_units_that_are_alike(tree: xr.DataTree) -> None:
    """GELU, while the state lasts; and no growth rate below 0 of a state that does, which the docs say."""
    grid = tree["map"].to_dataset()
    gelu = grid.sel(activation="GELU")
    assert (gelu.n_lasting[:4] >= 15).all()
    assert (np.diff(gelu.growth_rate[:4]) < -4 * gelu.growth_rate_error[1:4]).all()
    lasting = grid.n_lasting.values >= 15
    assert (grid.growth_rate.values[lasting] > 0).all()


def test_laws(tree: xr.DataTree) -> None:
    laws = {name: node.attrs["verdict"] for name, node in tree["laws"].children.items()}
    for name in ("linear", "tanh", "GELU", "ReLU", "quadratic", "tanh, biases"):
        assert laws[name] == "absorbing", name
    assert laws["softplus"] == laws["tanh, per-sample noise"] == "arrhenius"
    escaped = {name: node.to_dataset().escaped for name, node in tree["laws"].children.items()}
    assert not escaped["softplus"].isel(condition=0).any()  # the full batch
    assert escaped["softplus"].isel(condition=1).all()
    # Negative control: noise on every sample's gradient frees the network that minibatches alone do not.
    assert not escaped["tanh, per-sample noise"].isel(condition=0).any()
    assert escaped["tanh, per-sample noise"].isel(condition=1).all()
