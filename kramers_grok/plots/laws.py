"""Which law escape times follow: times against the noise with their laws, what R² cannot tell, and the law table."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from kramers_grok.analysis.law_choice import LawChoice
from kramers_grok.analysis.laws import ExitTimes
from kramers_grok.core.exceptions import InvalidParameterError
from kramers_grok.plots.style import CYCLE, DASHES, MARKERS, axes

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["arrhenius_trap", "escape_laws", "law_table", "median_times"]

Array = NDArray[np.float64]
MISFIT = 0.3  # of ln τ: a law that misses by more is not drawn


def median_times(exits: ExitTimes) -> tuple[Array, NDArray[np.bool_]]:
    """Median exit time of each condition [time], and where it is only a lower limit: fewer than half had left.

    Examples
    --------
    >>> exits = ExitTimes.of([1.0, 2.0], [[9.0, 9.0, 9.0], [1.0, 2.0, 9.0]], [[0, 0, 0], [1, 1, 0]])
    >>> median_times(exits)
    (array([9., 2.]), array([ True, False]))
    """
    times, limit = [], []
    for number in range(exits.conditions.size):
        mine = exits.index == number
        left = np.sort(np.where(exits.escaped[mine], exits.exit_time[mine], np.inf))
        median = float(left[(left.size - 1) // 2])
        limit.append(math.isinf(median))
        times.append(float(exits.exit_time[mine].max()) if limit[-1] else median)
    return np.array(times), np.array(limit)


def escape_laws(choices: Mapping[str, LawChoice], ax: Axes | None = None, *, relative: bool = False) -> Axes:
    """Draw median exit times against the noise with the best law of each row; arrows where fewer than half escaped.

    Parameters
    ----------
    choices : mapping of LawChoice
        By the row's name.
    ax : Axes, optional
    relative : bool
        Give the noise over the largest of the row: rows of different optimizers have different scales.

    Raises
    ------
    InvalidParameterError
        If there is nothing to draw.
    """
    if not choices:
        raise InvalidParameterError("`choices` is empty.\nUse `{name: choose_law(exits, seed=0)}`.")
    ax = axes(ax)
    for number, (name, choice) in enumerate(choices.items()):
        colour, marker = CYCLE[number % len(CYCLE)], MARKERS[number % len(MARKERS)]
        noisy = choice.exits.conditions > 0
        every, limits = median_times(choice.exits)
        times, limit = every[noisy], limits[noisy]
        x = choice.exits.conditions[noisy]
        scale = x.max() if relative else 1.0
        style: dict[str, Any] = {"ls": "none", "marker": marker, "ms": 5, "color": colour}
        ax.plot(x[~limit] / scale, times[~limit], **style, label=f"{name}: {choice.verdict}", zorder=3)
        if limit.any():
            ax.errorbar(
                x[limit] / scale, times[limit], 0.35 * times[limit], lolims=True, alpha=0.6, mfc="white", capsize=2,
                **style,
            )  # fmt: skip
        if choice.best and not choice.misfit > MISFIT:
            _curve(ax, choice, x, scale, colour, DASHES[number // len(CYCLE) % len(DASHES)])
    ax.set_xscale("log")
    ax.set_yscale("log")
    ax.set_xlabel("η/B over the row's largest" if relative else "noise η/B [time]")
    ax.set_ylabel("median escape time [time]")
    ax.legend(frameon=False, fontsize="small")
    return ax


def _curve(ax: Axes, choice: LawChoice, x: Array, scale: float, colour: str, dash: str) -> None:
    """The best law as far as the data and their horizons go."""
    fine = np.geomspace(x.min(), x.max(), 400)
    with np.errstate(over="ignore", invalid="ignore"):
        times = choice.fit.median(fine)
    seen = np.isfinite(times) & (times < 1.5 * choice.exits.exit_time.max())
    ax.plot(fine[seen] / scale, times[seen], dash, color=colour, lw=1.3, zorder=2)


def arrhenius_trap(choice: LawChoice, ax: Axes | None = None) -> Axes:
    """Draw what R² cannot tell: escape times against 1/x, with the straight line and the law that made them.

    Parameters
    ----------
    choice : LawChoice
        With fits of Arrhenius' law and of the best law.
    ax : Axes, optional

    Raises
    ------
    InvalidParameterError
        If fewer than three conditions have a median.
    """
    times, limit = median_times(choice.exits)
    seen = ~limit & (choice.exits.conditions > 0)
    if seen.sum() < 3 or not choice.best:
        raise InvalidParameterError(
            f"{int(seen.sum())} conditions have a median exit time, expected at least 3: a line through two is no test."
            "\nRun more replicas or longer."
        )
    ax = axes(ax)
    x, tau = choice.exits.conditions[seen], times[seen]
    slope, intercept = np.polyfit(1 / x, np.log(tau), 1)
    r_squared = float(np.corrcoef(1 / x, np.log(tau))[0, 1] ** 2)
    fine = np.geomspace(0.97 * x.min(), 1.03 * x.max(), 400)
    ax.plot(1 / fine, np.exp(intercept + slope / fine), "--", color="0.4", lw=1.3,
            label=f"Arrhenius line: R² = {r_squared:.3f}")  # fmt: skip
    with np.errstate(over="ignore", invalid="ignore"):
        law = choice.fit.median(fine)
    kept = np.isfinite(law) & (law < 3 * tau.max())
    odds = choice.fit.log_likelihood - choice.fits["arrhenius"].log_likelihood
    text = f"{choice.best} law: likelier by e^{odds:.0f}"
    ax.plot(1 / fine[kept], law[kept], color=CYCLE[1], lw=1.4, label=text)
    ax.plot(1 / x, tau, "o", ms=5, color=CYCLE[0], zorder=3, label="median of the replicas")
    ax.set_yscale("log")
    ax.set_xlabel("inverse noise B/η [1/time]")
    ax.set_ylabel("median escape time [time]")
    ax.legend(frameon=False, fontsize="small")
    return ax


def law_table(choices: Mapping[str, LawChoice], columns: Mapping[str, Mapping[str, str]] | None = None) -> str:
    """Return a Markdown table: escapes, verdict, the best law's number with its interval, and its nearest rival.

    Parameters
    ----------
    choices : mapping of str to LawChoice
    columns : mapping of str to mapping of str to str, optional
        Further columns after the name: what each row says in them, by the names of `choices`.

    Examples
    --------
    >>> from kramers_grok.analysis.law_choice import choose_law
    >>> exits = ExitTimes.of([1.0, 2.0], [[9.0] * 5] * 2, [[False] * 5] * 2)
    >>> print(law_table({"minibatches": choose_law(exits, seed=0)}).splitlines()[-1])
    | minibatches | 0 of 10 | absorbing | rate < 0.067 | – |
    """
    extra = list(dict.fromkeys(title for row in (columns or {}).values() for title in row))
    head = [*extra, "escaped", "verdict", "number", "nearest rival"]
    lines = ["| | " + " | ".join(head) + " |", "|---" * (len(head) + 1) + "|"]
    for name, choice in choices.items():
        noisy = choice.exits.x > 0
        counts = f"{int(choice.exits.escaped[noisy].sum())} of {int(noisy.sum())}"
        own = (columns or {}).get(name, {})
        cells = [
            name,
            *(own.get(title, "–") for title in extra),
            counts,
            choice.verdict,
            _number(choice),
            _rival(choice),
        ]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


# Law, its parameter, how it is called
NUMBERS = {
    "arrhenius": ("barrier", "slope"),
    "power": ("exponent", "exponent"),
    "growth": ("threshold", "threshold"),
}


def _number(choice: LawChoice) -> str:
    if choice.verdict == "absorbing":
        return f"rate < {choice.escape_limit:.2g}"
    if choice.verdict == "deterministic" and math.isfinite(choice.noise_free):
        return f"{choice.noise_free:.0%} escape without noise"
    if choice.best not in NUMBERS:
        return "–"
    name, text = NUMBERS[choice.best]
    fit = choice.fit
    return f"{text} {fit.parameters[name]:.3g} [{fit.lower[name]:.3g}, {fit.upper[name]:.3g}]"


def _rival(choice: LawChoice) -> str:
    if choice.verdict == "none":
        return f"misfit {choice.misfit:.2f} in ln τ ({choice.best} is best)"
    if not choice.rivalries:
        return "–"
    nearest = min(choice.rivalries, key=lambda r: r.log_likelihood_difference)
    return f"{nearest.rival}, {nearest.log_likelihood_difference:.3g} nats behind"
