"""The optimizers' arm, small: who escapes the collapsed state, and what the table makes of it.

Without the effects (adaptive optimizers rescale tiny gradients; minibatch noise is gated; what is 0 stays 0) the counts
below would differ. Seeds and starts are fixed; the outcomes are all or nothing, so eight replicas tell them apart.
"""

from collections.abc import Callable

import numpy as np
import pytest
import torch
import xarray as xr

from kramers_grok.dynamics.optimizers import Adam, AdamW, GradientDescent
from kramers_grok.escape.first_passage import first_passage
from kramers_grok.report.arms import optimizers as report
from kramers_grok.studies.attribution import BATCHES, attribute
from kramers_grok.studies.reproduction import optimizers as arm
from kramers_grok.studies.reproduction.optimizers import HALF_WAY, Setup, start, training
from kramers_grok.studies.reproduction.settings import Settings

REPLICAS, STEPS = 8, 400


def escapes(setup: Setup, batch: str) -> int:
    run = first_passage(
        training(setup, batch), target=HALF_WAY, n_replicas=REPLICAS, max_time=STEPS * setup.lr, seed=0,
        start=start(setup, REPLICAS),
    )  # fmt: skip
    return int(run.escaped.sum())


CASES = {
    "AdamW leaves by itself": (Setup("", AdamW(), 1e-3, 0.1), 8, 8, "deterministic"),
    "from exactly 0 nothing leaves": (Setup("", AdamW(), 1e-3, 0.1, amplitude=0.0), 0, 0, "absorbing"),
    "gradient descent stays": (Setup("", GradientDescent(), 0.02, 0.02), 0, 0, "absorbing"),
    "under Adam noise does it": (Setup("", Adam(), 3e-3, 0.02), 0, 8, "noise-driven"),
    "with a large ε too": (Setup("", AdamW(eps=1e-3), 3e-3, 0.1), 0, 8, "noise-driven"),
}


@pytest.mark.parametrize(("setup", "full", "minibatch", "cause"), CASES.values(), ids=CASES)
def test_who_leaves_the_collapsed_state(setup: Setup, full: int, minibatch: int, cause: str) -> None:
    counts = [escapes(setup, batch) for batch in BATCHES]
    assert counts == [full, minibatch]
    assert attribute(*counts, REPLICAS).cause == cause


def test_the_full_batch_is_the_population() -> None:
    """Otherwise the two columns of the table would descend different landscapes."""
    data, setup = arm._data(), arm.SETUPS[0]
    np.testing.assert_allclose(data.input_covariance, np.eye(8), atol=1e-12)
    np.testing.assert_allclose(data.cross_covariance, arm._teacher(), atol=1e-12)
    theta = start(setup, 3)
    assert (theta != 0).all()
    assert np.sort(np.abs(theta), axis=1)[:, :-3].max() < 1e-5
    gradient = training(setup, "full batch").model.gradient(torch.from_numpy(theta))
    assert float(gradient.abs().max()) < 1e-5


@pytest.mark.parametrize(
    ("full", "minibatch", "cause"),
    [(32, 32, "deterministic"), (0, 32, "noise-driven"), (0, 0, "absorbing"), (0, 4, "undecided"),
     (20, 32, "noise-driven"), (32, 0, "deterministic"), (10, 14, "undecided"), (0, 9, "undecided"),
     (0, 11, "noise-driven")],
)  # fmt: skip
def test_only_the_difference_is_attributed_to_noise(full: int, minibatch: int, cause: str) -> None:
    assert attribute(full, minibatch, 32).cause == cause


def test_the_table_tells_who_was_censored(check_labels: Callable[[xr.DataTree], None]) -> None:
    settings = Settings.make(seed=0, quick=True)
    cells = arm.cells(settings, "cpu")
    horizon = int(cells[0].config["n_steps"])
    steps = np.full(16, float(horizon))
    stay = xr.Dataset({"exit_step": ("replica", steps), "escaped": ("replica", steps < 0)})
    leave = xr.Dataset({"exit_step": ("replica", np.arange(16.0) + 100), "escaped": ("replica", steps > 0)})
    tree = arm.gather(settings, [stay, leave] * (len(cells) // 2))
    check_labels(tree)
    text = report.summary(tree)
    assert f"0/16 [0.00, 0.21] | > {horizon} (censored) | 16/16 [0.79, 1.00] | 108 | noise-driven |" in text
    assert set(tree["trap"]["attribution"].values) == {"noise-driven"}
    figure = report.figure(tree)
    assert figure.axes[0].get_xlabel() == "step at which the second feature is learned"
