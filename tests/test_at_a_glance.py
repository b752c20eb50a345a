"""The README's first figure: its committed results agree with today's theory, and its words say what they hold.

Simulated times are read, not simulated, so nothing here happens by chance. p-values are compared with 1e-5.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import xarray as xr

from kramers_grok.analysis.hypotheses import chi_square_joint

ROOT = Path(__file__).parents[1]
ONCE = 1e-5


@pytest.fixture(scope="module")
def tree(evidence_tree: Callable[[str], xr.DataTree]) -> xr.DataTree:
    return evidence_tree("at_a_glance")


@pytest.fixture(scope="module")
def laws(evidence_tree: Callable[[str], xr.DataTree]) -> xr.DataTree:
    return evidence_tree("which_law")


@pytest.fixture(scope="module")
def page(evidence_script: Callable[[str], ModuleType]) -> ModuleType:
    return evidence_script("at_a_glance_page")


@pytest.fixture
def script(evidence_script: Callable[[str], ModuleType], monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(ROOT / "evidence")
    return evidence_script("at_a_glance")


def joint(rows: xr.Dataset, predicted: xr.DataArray | np.ndarray) -> float:
    return chi_square_joint(rows.mean_exit_time, predicted, rows.standard_error).p_value


def of(rows: xr.Dataset, *, diffusion: bool) -> xr.Dataset:
    """Rows of the diffusion limit, or those of SGD."""
    return rows.isel(run=(rows.batch_size.values == 0) == diffusion)


def test_every_number_says_what_it_is(tree: xr.DataTree, check_labels: Callable[[xr.DataTree], None]) -> None:
    check_labels(tree)


def test_added_noise_is_a_temperature(tree: xr.DataTree) -> None:
    """15 runs at five B/η and three batch sizes, each against the exact mean for its own step."""
    rows = tree["additive"].to_dataset()
    assert set(rows.batch_size.values) == {4, 16, 64}
    assert all(n == 3 for n in np.unique(rows.batch_over_lr.round(6), return_counts=True)[1])
    assert joint(rows, rows.predicted_time) > ONCE
    # Negative control: a temperature off by 5 % is refused
    line = tree["continuous"].to_dataset()
    colder = np.interp(1.05 * rows.batch_over_lr, line.batch_over_lr, np.log(line.predicted_time))
    here = np.interp(rows.batch_over_lr, line.batch_over_lr, np.log(line.predicted_time))
    assert joint(rows, rows.predicted_time * np.exp(colder - here)) < ONCE


def test_forgetting_has_sgds_exponent(tree: xr.DataTree, page: ModuleType) -> None:
    rows = tree["forgetting"].to_dataset()
    sgd, diffusion = of(rows, diffusion=False), of(rows, diffusion=True)
    assert joint(sgd, sgd.predicted_time) > ONCE
    assert joint(diffusion, diffusion.predicted_time) > ONCE
    slopes, exact = page.exponents(rows), page.exponents(rows, "predicted_time")
    for name, (slope, error) in slopes.items():
        assert abs(slope - exact[name][0]) < 4.4 * error
    # The two exponents are told apart, and SGD by the times of its diffusion limit is refused
    difference = slopes["sgd"][0] - slopes["diffusion"][0]
    assert difference > 4.4 * np.hypot(slopes["sgd"][1], slopes["diffusion"][1])
    assert joint(sgd, sgd.diffusion_time) < ONCE
    assert rows.attrs["sgd_action"] > rows.attrs["diffusion_action"]


def test_minibatches_alone_do_not_free(laws: xr.DataTree, page: ModuleType) -> None:
    exits = page._exits(laws, page.ALONE)
    quiet = exits.x < page._threshold(laws).lower["threshold"]
    assert quiet.sum() >= 500
    assert not exits.escaped[quiet].any()
    assert exits.escaped[~quiet].mean() > 0.5
    added = page._exits(laws, page.ADDED)
    assert added.escaped[added.x < exits.x[~quiet].min()].any()  # the same trap is left where noise is added


@pytest.mark.parametrize("batch", [16, 64])
def test_predictions_are_todays(batch: int, tree: xr.DataTree, script: ModuleType) -> None:
    rows, line = tree["additive"].to_dataset(), tree["continuous"].to_dataset()
    ratio = 3.0
    run = rows.isel(run=(rows.batch_size.values == batch) & (abs(rows.batch_over_lr.values - 80 * ratio) < 1e-6))
    assert run.sizes["run"] == 1
    same = script.step_by_step(ratio, batch)
    np.testing.assert_allclose(run.predicted_time.values[0], same, rtol=1e-6)
    if batch == 16:
        x = float(line.batch_over_lr[2])
        again = script.continuous({"ratio": x / script.PER_RATIO}, seed=0)
        np.testing.assert_allclose(line.predicted_time.values[2], float(again.predicted_time), rtol=1e-6)


def test_actions_are_todays(tree: xr.DataTree, script: ModuleType) -> None:
    rows = tree["forgetting"]
    actions = script.forgetting_actions(script.MODE, label_noise=script.FORGETTING_LABELS)
    np.testing.assert_allclose(rows.attrs["sgd_action"], actions.sgd, rtol=1e-9)
    np.testing.assert_allclose(rows.attrs["diffusion_action"], actions.diffusion, rtol=1e-9)


def test_the_readme_says_what_the_results_hold(tree: xr.DataTree, laws: xr.DataTree, page: ModuleType) -> None:
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    assert readme == page.insert(readme, page.text(tree, laws)), "run `python evidence/at_a_glance.py --redraw`"
    shown = [line for line in readme.splitlines() if line.startswith("| ")]
    assert len(shown) >= 1 + sum("exit_time" in node for node in laws.children.values())


def test_a_readme_without_its_marks_is_refused(page: ModuleType) -> None:
    with pytest.raises(ValueError, match="one pair of the lines"):
        page.insert("nothing", "words")


def test_the_figure_can_be_drawn_anew(tree: xr.DataTree, laws: xr.DataTree, page: ModuleType, tmp_path: Path) -> None:
    page.figure(tree, laws, tmp_path / "figure.png")
    assert (tmp_path / "figure.png").stat().st_size > 30_000
