"""Figures of forgetting say what is on their axes, and draw what they are given."""

import numpy as np
import xarray as xr

from kramers_grok.core.schema import describe
from kramers_grok.plots.forgetting import diffusion_departure, extra_dimensions


def test_diffusion_departure() -> None:
    grid = {
        name: (name, values, describe(name))
        for name, values in (
            ("weight_decay", [0.40, 0.43, 0.46]),
            ("label_noise", [0.5, 1.0]),
            ("lr_over_batch", [0.02, 0.01, 0.005]),
        )
    }
    shape = (3, 2, 3)
    action = np.broadcast_to([1.0, 6.0, 20.0], shape)
    dims = tuple(grid)
    table = xr.Dataset({"log_departure": (dims, 0.1 * action), "action_over_ratio": (dims, action)}, coords=grid)
    ax = diffusion_departure(table, label_noise=1.0)
    assert ax.get_xlabel() == "weight decay λ [loss/weight²]"
    assert ax.get_ylabel() == "learning rate over batch size η/B [time/sample]"
    assert ax.get_yscale() == "log"
    assert "s = 1" in ax.get_title()


def test_extra_dimensions() -> None:
    columns = {
        "mean_exit_time": [100.0, 50.0, 80.0, 40.0],
        "standard_error": [5.0, 3.0, 4.0, 2.0],
        "predicted_time": [100.0] * 4,
        "predicted_factor": [1.0, 0.5, 0.8, 0.4],
        "n_inputs": [1, 16, 1, 16],
        "n_outputs": [1, 1, 8, 8],
        "width": [1] * 4,
        "batch_size": [8] * 4,
    }
    ax = extra_dimensions(xr.Dataset({name: ("run", values) for name, values in columns.items()}))
    drawn = {c.get_label(): c.lines[0].get_ydata() for c in ax.containers}
    np.testing.assert_allclose(drawn["more inputs"], [1.0, 0.5])
    np.testing.assert_allclose(drawn["more outputs"], [0.8])
    np.testing.assert_allclose(drawn["both"], [0.4])
