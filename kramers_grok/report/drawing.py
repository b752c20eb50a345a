"""What the arms' figures and tables share."""

from __future__ import annotations

from typing import Any

import numpy as np
import xarray as xr

__all__ = ["control_run", "new_figure", "run_table"]


def new_figure(size: tuple[float, float], rows: int = 1, *, height_ratios: Any = None, sharex: bool = False) -> Any:
    """Return a figure and its axes, one below the other."""
    import matplotlib.pyplot as plt

    return plt.subplots(rows, 1, figsize=size, layout="constrained", height_ratios=height_ratios, sharex=sharex)


def run_table(rows: xr.Dataset) -> str:
    """Return runs as a Markdown table: measured, predicted, difference."""
    step = "lr" if "lr" in rows else "dt"
    lines = [
        f"| T | {step} | B | mean time [95 %] | predicted | difference [s.e.] | KS p | escaped |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for run in range(rows.sizes["run"]):
        r = rows.isel(run=run)
        batch = f"{float(r.batch_size):g}" if "batch_size" in r else "–"
        lines.append(
            f"| {float(r.temperature):.6f} | {float(r[step]):g} | {batch} "
            f"| {float(r.mean_exit_time):.1f} [{float(r.lower):.1f}, {float(r.upper):.1f}] "
            f"| {float(r.predicted_mean):.1f} | {float(r.difference_se):+.2f} | {float(r.ks_p_value):.3f} "
            f"| {int(r.n_escaped)}/{int(r.n_replicas)} |"
        )
    return "\n".join(lines)


def control_run(control: xr.Dataset) -> xr.Dataset:
    """Return descent without noise as a run at T = 0, censored at its horizon, for `plots.arrhenius`."""
    horizon = float(control["horizon"])
    columns = {
        "mean_exit_time": np.nan,
        "lower": horizon,
        "upper": np.inf,
        "n_escaped": int(control["escaped"].sum()),
        "n_replicas": control.sizes["replica"],
        "horizon": horizon,
    }
    return xr.Dataset({k: ("run", [v]) for k, v in columns.items()}, coords={"temperature": ("run", [0.0])})
