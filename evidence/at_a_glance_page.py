"""The README's first screen out of committed results: its figure, what is said of it, and its table of laws.

Used by `evidence/at_a_glance.py`; draws and words only what its tables hold.
"""

from __future__ import annotations

import re
import textwrap
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import xarray as xr

from kramers_grok.analysis.hypotheses import chi_square_joint
from kramers_grok.analysis.law_table import median_times
from kramers_grok.analysis.laws import ArrheniusLaw, ExitTimes, GrowthLaw, LawFit, fit_laws
from kramers_grok.analysis.least_squares import linear_fit
from kramers_grok.plots.style import CYCLE, look, styled

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["exponents", "figure", "insert", "law_rows", "text"]

BEGIN, END = "<!-- begin: made by `make evidence NAME=at_a_glance` -->", "<!-- end -->"
ALONE, ADDED = "minibatches", "isotropic, exact gradient"
SERIES = {0: "diffusion", 2: "SGD, B = 2", 8: "SGD, B = 8"}
X_LABEL = "batch size over learning rate  B/η  [1/time]"


# ---------------------------------------------------------------- figure


def figure(tree: xr.DataTree, laws: xr.DataTree, path: str | Path) -> None:
    """Draw the three panels."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    with styled():
        drawn, panels = plt.subplots(1, 3, figsize=(13.6, 4.2))
        for ax, panel, source in zip(panels, (_additive, _alone, _forgetting), (tree, laws, tree), strict=True):
            panel(ax, source)
            ax.set(yscale="log", xlabel=X_LABEL)
        drawn.savefig(path, dpi=110, metadata={"Software": None})
        plt.close(drawn)


def _points(ax: Axes, rows: xr.Dataset, number: int, text: str) -> None:
    """Measured means with their 95 % intervals."""
    errors = [rows.mean_exit_time - rows.lower, rows.upper - rows.mean_exit_time]
    ax.errorbar(rows.batch_over_lr, rows.mean_exit_time, errors, **look(number).points(label=text, zorder=3))


def _additive(ax: Axes, tree: xr.DataTree) -> None:
    rows, line = tree["additive"].to_dataset(), tree["continuous"].to_dataset()
    ax.plot(line.batch_over_lr, line.predicted_time, color="k", lw=1.0, label="exact theory, no fit")
    for number, batch in enumerate(np.unique(rows.batch_size)):
        _points(ax, rows.isel(run=rows.batch_size.values == batch), number, f"SGD, B = {batch}")
    ax.set(ylabel="mean time to learn  [time]", title="noise on every sample's gradient: a temperature")
    ax.legend(loc="upper left")


def _exits(laws: xr.DataTree, name: str) -> ExitTimes:
    """Escape times of one row of the law table, without the run that has no noise."""
    return ExitTimes.of(*(laws[name][v] for v in ("lr_over_batch", "exit_time", "escaped"))).without_control()


def _threshold(laws: xr.DataTree) -> LawFit:
    return fit_laws(_exits(laws, ALONE), laws=(GrowthLaw(),))["growth"]


def _alone(ax: Axes, laws: xr.DataTree) -> None:
    fits = {ALONE: _threshold(laws), ADDED: fit_laws(_exits(laws, ADDED), laws=(ArrheniusLaw(),))["arrhenius"]}
    for name, number, text in ((ALONE, 1, "minibatches alone"), (ADDED, 6, "added noise, exact gradient")):
        exits, own = _exits(laws, name), look(number)
        (times, limit), x = median_times(exits), 1 / exits.conditions
        ax.plot(x[~limit], times[~limit], **own.points(label=text, zorder=3))
        if limit.any():
            style = own.points(alpha=0.7, zorder=3)
            ax.errorbar(x[limit], times[limit], 0.5 * times[limit], lolims=True, **style)
        fine = np.linspace(x.min(), x[~limit].max() * 1.2, 800)
        curve = fits[name].median(1 / fine)
        shown = np.isfinite(curve) & (curve < 1.2 * exits.exit_time.max())
        ax.plot(fine[shown], curve[shown], color=own.colour, ls=own.dash, lw=1.0)
    edge = 1 / fits[ALONE].parameters["threshold"]
    ax.set(xlim=(100.0, 540.0), ylim=(150.0, 6e4))
    ax.axvspan(edge, ax.get_xlim()[1], color=CYCLE[1], alpha=0.08, lw=0)
    ax.set(ylabel="median time to learn  [time]", title="minibatch noise alone: unstable, or absorbing")
    ax.text(1.04 * edge, 180.0, "absorbing: nothing leaves", va="bottom", color=look(1).colour, fontsize="small")
    ax.legend(loc="upper left")


def _forgetting(ax: Axes, tree: xr.DataTree) -> None:
    rows = tree["forgetting"].to_dataset().sortby("batch_over_lr")
    one = rows.isel(run=rows.batch_size.values == max(SERIES))
    ax.plot(
        one.batch_over_lr, one.predicted_time, "k-", lw=1.0, label=f"SGD, exact: S = {rows.attrs['sgd_action']:.4f}"
    )
    limit = f"diffusion limit, exact: S = {rows.attrs['diffusion_action']:.4f}"
    ax.plot(one.batch_over_lr, one.diffusion_time, "k--", lw=1.0, label=limit)
    for number, (batch, text) in enumerate(SERIES.items()):
        _points(ax, rows.isel(run=rows.batch_size.values == batch), number, text)
    ax.set(ylabel="mean time to forget  [time]", title="minibatches alone, learned → forgotten: two exponents")
    ax.legend(loc="upper left")


# ---------------------------------------------------------------- words


def exponents(rows: xr.Dataset, times: str = "mean_exit_time") -> Mapping[str, tuple[float, float]]:
    """Slope of ln τ against B/η and its standard error, for SGD and for its diffusion limit, weighted as simulated."""
    found = {}
    for name, here in (("sgd", rows.batch_size > 0), ("diffusion", rows.batch_size == 0)):
        r = rows.isel(run=here.values)
        design = np.stack([r.batch_over_lr.values, np.ones(r.sizes["run"])], axis=1)
        fit = linear_fit(design, np.log(r[times].values), (r.standard_error / r.mean_exit_time).values)
        found[name] = float(fit.coefficients[0]), float(fit.standard_errors[0])
    return found


def text(tree: xr.DataTree, laws: xr.DataTree) -> str:
    """Word what the figure shows, with its numbers, and the table of laws below it."""
    return "\n".join([_collapse(tree), _gate(laws), _two_exponents(tree), "", *law_rows(laws)])


def _item(*parts: str) -> str:
    """One item of a list, in lines of the README's length."""
    return textwrap.fill(" ".join(parts), 118, initial_indent="- ", subsequent_indent="  ", break_on_hyphens=False)


def _collapse(tree: xr.DataTree) -> str:
    rows, line = tree["additive"].to_dataset(), tree["continuous"].to_dataset()
    on_line = np.exp(np.interp(rows.batch_over_lr, line.batch_over_lr, np.log(line.predicted_time)))
    off = float(np.abs(rows.mean_exit_time / on_line - 1).max())
    joint = chi_square_joint(rows.mean_exit_time, rows.predicted_time, rows.standard_error)
    smallest, largest = (int(f(rows.batch_size)) for f in (np.min, np.max))
    return _item(
        "**Noise added to every sample's gradient is a temperature.**",
        f"Batch sizes {smallest} to {largest} fall on one function of B/η, which theory gives with nothing fitted:",
        f"within {off:.0%} of the line, which is for continuous time. Against the exact means for their own steps",
        f"the {rows.sizes['run']} runs have χ² with p = {joint.p_value:.2g}.",
    )


def _gate(laws: xr.DataTree) -> str:
    fit, exits = _threshold(laws), _exits(laws, ALONE)
    middle, low, high = (1 / v["threshold"] for v in (fit.parameters, fit.upper, fit.lower))
    quiet = exits.x < fit.lower["threshold"]
    left, watched = int(exits.escaped[quiet].sum()), int(quiet.sum())
    return _item(
        "**Minibatch noise alone is not.**",
        f"Above B/η = {middle:.0f} [{low:.0f}, {high:.0f}] a trapped network is *absorbed*:",
        f"{left} of {watched} replicas left (arrows are lower limits). Below, unused weights *grow*, and no barrier is",
        "climbed. The same trap under added noise, grey, for comparison.",
    )


def _two_exponents(tree: xr.DataTree) -> str:
    rows = tree["forgetting"].to_dataset()
    exact = {"sgd": rows.attrs["sgd_action"], "diffusion": rows.attrs["diffusion_action"]}
    seen = {name: f"{slope:.3f} ± {1.96 * error:.3f}" for name, (slope, error) in exponents(rows).items()}
    return _item(
        "**What it does by itself is forget.** The way back from a learned feature is activated, ln τ ≈ S·B/η,",
        f"but with SGD's own S = {exact['sgd']:.4f}, not the {exact['diffusion']:.4f} of its diffusion limit;",
        "slopes as simulated:",
        f"{seen['sgd']} and {seen['diffusion']} (95 %).",
    )


OPTIMIZERS = {"GradientDescent": "SGD", "Momentum": "SGD with momentum"}
NOISES = {"every gradient": "Gaussian on every gradient", "activations": "Gaussian on activations"}
LAWS = {"growth": "instability", "arrhenius": "Arrhenius"}


def law_rows(laws: xr.DataTree) -> list[str]:
    """Lines of the table optimizer × noise × law, from the committed one."""
    lines = [[cell.strip() for cell in line.strip("|").split("|")] for line in laws.attrs["law_table"].splitlines()]
    head, body = lines[0], lines[2:]
    shown = ["| optimizer | noise | sampler | escaped | law | its number [95 %] |", "|---|---|---|---|---|---|"]
    for cells in body:
        row = dict(zip(head, cells, strict=True))
        noise = row["noise"]
        for short, long in NOISES.items():
            noise = noise.replace(short, long)
        noise = re.sub(r"labels (\S+?)(,|$)", r"label noise \1\2", noise)
        sampler = "exact gradient" if row["sampler"] == "–" else row["sampler"]
        optimizer = OPTIMIZERS.get(row["optimizer"], row["optimizer"])
        verdict = LAWS.get(row["verdict"], row["verdict"])
        shown.append("| " + " | ".join([optimizer, noise, sampler, row["escaped"], verdict, row["number"]]) + " |")
    return shown


def insert(readme: str, made: str) -> str:
    """Put the words between the README's marks.

    Raises
    ------
    ValueError
        If it does not have them exactly once.
    """
    before, began, rest = readme.partition(BEGIN)
    _, ended, after = rest.partition(END)
    if not (began and ended) or BEGIN in after:
        raise ValueError(f"the README needs one pair of the lines {BEGIN!r} and {END!r}")
    return f"{before}{BEGIN}\n{made}\n{END}{after}"
