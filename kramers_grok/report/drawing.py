"""What the arms' figures and tables share."""

from __future__ import annotations

from typing import Any

import xarray as xr

__all__ = ["new_figure", "run_table"]


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
