"""Figure and summary of the arm `hysteresis`."""

from __future__ import annotations

from typing import Any

import numpy as np
import xarray as xr

from kramers_grok import plots
from kramers_grok.report.words import Answer, power

__all__ = ["answer", "figure", "summary"]


def figure(tree: xr.DataTree) -> Any:
    """Draw the teacher's loop, the digits' staircase, returns with noise, and area against complexity."""
    import matplotlib.pyplot as plt

    pixels = "return_digits" in tree.children  # the quick form has none
    figure = plt.figure(figsize=(14.0 if pixels else 12.5, 8.8), layout="constrained")
    rows: Any = figure.subfigures(2, 1)  # columns of their own: two panels above, two or three below
    above, below = rows
    panels = above.subplot_mosaic("AB") | below.subplot_mosaic("CDE" if pixels else "CE")
    plots.hysteresis_loop(tree["teacher"].to_dataset(), panels["A"])
    panels["A"].set_title("Teacher, D = 3: full batch, no noise", fontsize="medium")
    digits = tree["digits"].to_dataset()
    plots.staircase(digits, panels["B"])
    size = digits.attrs["n_parameters"]
    panels["B"].set_title(f"Digits, autoencoder of {size} weights, full batch", fontsize="medium")
    plots.returns(tree["return_stairs"].to_dataset(), panels["C"])
    panels["C"].set_title("Teacher, down with noise: strongest first", fontsize="medium")
    if pixels:
        returned = tree["return_digits"].to_dataset()
        plots.returns(returned, panels["D"])
        panels["D"].set_title(
            f"Digits, {returned.sizes['feature']} components, down with minibatches", fontsize="medium"
        )
    families = {name: tree[f"complexity_{name}"].to_dataset() for name in ("teacher", "digits")}
    plots.loop_area(families, panels["E"])
    panels["E"].set_title("Hysteresis grows with complexity", fontsize="medium")
    return figure


def _brackets(loop: xr.Dataset, name: str) -> list[str]:
    lines = [
        f"### {name}",
        "",
        "| feature | spinodal | last certified minimum | first drop | relative to the spinodal [%] | fall of m | "
        "m on the way down |",
        "|---|---|---|---|---|---|---|",
    ]
    for k in range(loop.sizes["feature"]):
        row = loop.isel(feature=k)
        low, high = (100 * (float(row[v] / row.spinodal) - 1) for v in ("before", "after"))
        lines.append(
            f"| {k + 1} | {float(row.spinodal):.6g} | {float(row.before):.6g} | {float(row.after):.6g} "
            f"| {low:+.3f} to {high:+.3f} | {float(row.jump):.4f} | {float(row.returned):.1e} |"
        )
    order = np.argsort(loop.after.values).tolist()
    weakest_first = order == list(range(loop.sizes["feature"]))[::-1]
    unsettled = int((~loop.settled & np.isfinite(loop.steps)).sum())
    steps = int(np.nansum(loop.steps.values))
    lines += [
        "",
        f"Weakest first: {'yes' if weakest_first else 'no'}. {int(np.isfinite(loop.steps).sum())} values of λ, {steps} "
        f"steps of descent upwards, {unsettled} values did not settle. Area of all loops {float(loop.area.sum()):.5g}, "
        f"predicted {float(loop.predicted_area.sum()):.5g}.",
        "",
    ]
    return lines


def _returns(stairs: xr.Dataset, name: str) -> list[str]:
    lines = []
    for k in range(stairs.sizes["feature"]):
        s = stairs.isel(feature=k)
        low, high = (float(v) for v in s.predicted_log)
        lines.append(
            f"- {name}, feature {k + 1} (σ = {float(s.singular_value):.3g}) returns at "
            f"λ = {np.exp(float(s.mean_log)):.4f} ± {np.exp(float(s.mean_log)) * float(s.log_error):.4f} (geometric "
            f"mean of {round(stairs.attrs['n_replicas'] * float(s.returned[-1]))}), predicted {np.exp(low):.4f} to "
            f"{np.exp(high):.4f}"
        )
    attrs = stairs.attrs
    lines.append(
        f"- {name}: strongest first in {attrs['n_ordered']} of {attrs['n_replicas']}; neighbours out of order "
        f"{', '.join(str(int(v)) for v in stairs.n_swapped)}, expected to leading exponential order "
        f"{', '.join(f'{float(v):.2g}' for v in stairs.expected_swapped)}; without noise "
        f"{attrs['n_returned_without_noise']} of {attrs['n_replicas']} get anything back"
    )
    if "n_returned_without_injected_noise" in attrs:
        lines[-1] += f", with minibatches alone {attrs['n_returned_without_injected_noise']}"
    return lines


def summary(tree: xr.DataTree) -> str:
    """Return what was found, as Markdown."""
    lines = ["## Hysteresis", ""]
    lines += _brackets(tree["teacher"].to_dataset(), "Teacher, D = 3")
    lines += _brackets(tree["digits"].to_dataset(), "Digits as an autoencoder, D = 3")
    control = tree["control"].to_dataset()
    lines += [
        f"Control, D = 2: {int(np.isfinite(control.jump).sum())} jumps, area {float(control.area.sum()):.2e} of "
        f"{float(np.trapezoid(control.up.sum('feature'), control.weight_decay)):.2g} below the branch: a continuous "
        "onset leaves no hysteresis.",
        "",
        "### Returns with noise",
        "",
    ]
    race, stairs = tree["return_race"].to_dataset(), tree["return_stairs"].to_dataset()
    for k in range(race.sizes["feature"]):
        r = race.isel(feature=k)
        lines.append(
            f"- independent feature σ = {float(r.singular_value):g}: first in {int(r.n_first)} of "
            f"{race.attrs['n_replicas']} (predicted share {float(r.predicted_first):.3f}), mean time "
            f"{float(r.mean_exit_time):.0f} (predicted {float(r.predicted_time):.0f}), KS p = {float(r.ks_p_value):.3f}"
        )
    lines.append(
        f"- order: χ² p = {race.attrs['first_p_value']:.3f} for who comes first; strongest to weakest in "
        f"{race.attrs['n_ordered']} of {race.attrs['n_clean']}, predicted share {race.attrs['predicted_ordered']:.3f} "
        f"(p = {race.attrs['ordered_p_value']:.3f})"
    )
    lines += _returns(stairs, "matrix network, white teacher")
    if "return_digits" in tree.children:
        lines += _returns(tree["return_digits"].to_dataset(), "digits, true minibatches")
    lines += [
        "",
        "### Complexity",
        "",
        "| data | K | area | predicted | jumps | predicted | worst bracket [%] |",
        "|---|---|---|---|---|---|---|",
    ]
    for name in ("teacher", "digits"):
        rows = tree[f"complexity_{name}"].to_dataset()
        for i in range(rows.sizes["n_features"]):
            c = rows.isel(n_features=i)
            lines.append(
                f"| {name} | {int(c.n_features)} | {float(c.area):.5g} | {float(c.predicted_area):.5g} "
                f"| {int(c.n_jumps)} | {int(c.predicted_jumps)} | {100 * float(c.worst_bracket):.2f} |"
            )
    return "\n".join(lines)


def answer(tree: xr.DataTree) -> Answer:
    """Say whether features are lost at their spinodals, weakest first, and come back only with noise."""
    loops = {"teacher": tree["teacher"].to_dataset(), "digits": tree["digits"].to_dataset()}
    weakest_first = [bool((np.diff(loop["after"].values) < 0).all()) for loop in loops.values()]
    away = max(
        float(np.abs(loop[v] / loop["spinodal"] - 1).max()) for loop in loops.values() for v in ("before", "after")
    )
    back = max(float(np.abs(loop["returned"]).max()) for loop in loops.values())
    area = [float(loop["area"].sum() / loop["predicted_area"].sum()) for loop in loops.values()]
    control, stairs = tree["control"].to_dataset(), tree["return_stairs"].to_dataset()
    jumps = int(np.isfinite(control["jump"].values).sum())
    alone = int(stairs.attrs["n_returned_without_noise"])
    found = all(weakest_first) and away < CLOSE and back < CLOSE and not jumps
    verdict = "Hysteresis is as predicted" if found else "Hysteresis is not as predicted in everything"
    text = (
        f"{verdict}: features are lost {'weakest first' if all(weakest_first) else 'not weakest first'}, within "
        f"{100 * away:.2g} % of their spinodals (teacher and digits), order parameters come back to {power(back)} at "
        f"most without noise, and the loops' areas are {area[0]:.3f} and {area[1]:.3f} of the predicted; two layers "
        f"have {jumps} jumps. With noise features return strongest first in {stairs.attrs['n_ordered']} of "
        f"{stairs.attrs['n_replicas']}, without it {alone} get anything back."
    )
    return Answer(text, found and not alone)


CLOSE = 0.02  # of the spinodal, or of an order parameter
