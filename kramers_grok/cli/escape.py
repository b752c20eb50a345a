"""``kramers-grok escape``: one trapped chain, predicted and simulated."""

from __future__ import annotations

import math
import os
import warnings
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from kramers_grok.cli.common import fail
from kramers_grok.core.exceptions import KramersGrokError

if TYPE_CHECKING:
    from kramers_grok.dynamics.sgd import SGD
    from kramers_grok.theory.deep_linear import DeepLinearChain

__all__ = ["escape_time"]

BUDGET = 4e7  # replica-steps that two or three seconds allow


def escape_time(
    depth: Annotated[int, typer.Option(help="Number of weight layers D (3 or more).")] = 3,
    weight_decay: Annotated[float, typer.Option(help="Weight decay λ.")] = 0.25,
    lr: Annotated[float, typer.Option(help="Learning rate η.")] = 0.05,
    batch: Annotated[int, typer.Option(help="Batch size B.")] = 4,
    noise_std: Annotated[float, typer.Option(help="Per-sample gradient noise g; T = η g²/(2B).")] = 0.5,
    singular_value: Annotated[float, typer.Option(help="Singular value σ of the feature.")] = 1.0,
    label_noise: Annotated[float, typer.Option(help="Label noise s of the online teacher.")] = 0.1,
    replicas: Annotated[int, typer.Option(help="Replicas simulated.")] = 512,
    seed: Annotated[int, typer.Option(help="Seed of everything random.")] = 0,
) -> None:
    """Barrier, predicted and simulated escape time of one trapped chain, in seconds."""
    from kramers_grok import SGD, DeepLinearChain, per_sample, teacher

    try:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            chain = DeepLinearChain(depth, singular_value, weight_decay)
            chain.barrier()  # raises where nothing is trapped
            process = SGD(
                chain,
                teacher(label_noise=label_noise),
                lr=lr,
                batch_size=batch,
                noise=per_sample(std=noise_std),
                n_threads=os.cpu_count() or 1,
            )
            table = _escape_table(chain, process, replicas, label_noise, seed)
    except KramersGrokError as error:
        raise fail(error) from None
    console = Console()
    console.print(table)
    for message in dict.fromkeys(str(w.message) for w in caught):
        console.print(f"[yellow]note[/]: {escape(message)}", highlight=False)


def _escape_table(chain: DeepLinearChain, process: SGD, replicas: int, label_noise: float, seed: int) -> Table:
    from kramers_grok import beyond, eyring_kramers_rate, first_passage, mean_exit_time
    from kramers_grok.core.exceptions import TooFewEscapesError

    barrier, target, T = chain.barrier(), beyond(chain.barrier()), process.temperature
    table = Table(
        title=f"Escape of a trapped chain, D = {chain.depth}, λ = {chain.weight_decay:g}", title_justify="left"
    )
    table.add_column("quantity")
    table.add_column("value")
    table.add_row("λ_spinodal, λ_binodal", f"{chain.spinodal():.6f}, {chain.binodal():.6f}")
    table.add_row("barrier ΔF", f"{barrier.height:.6g}")
    table.add_row("temperature T = ηg²/(2B)", f"{T:.6g}")
    if T == 0:
        table.add_row("predicted", "never: the noise of minibatches vanishes at the trap")
        predicted = None
    else:
        rate = eyring_kramers_rate(barrier, T)
        table.add_row("ΔF/T", f"{barrier.height / T:.2f}")
        table.add_row("Eyring–Kramers time", f"{1 / rate.value:.4g}  ({'valid' if rate.valid else rate.note})")
        predicted = _predicted(chain, process, target, label_noise)
        if predicted is not None:
            table.add_row("predicted time (exact, with step and minibatch noise)", f"{predicted:.4g}")
    expected = predicted or (1 / rate.value if T else math.inf)
    horizon = min(10 * expected, BUDGET * process.lr / replicas)
    run = first_passage(process, target=target, n_replicas=replicas, max_time=horizon, seed=seed)
    try:
        e = mean_exit_time(run)
        table.add_row("simulated time [95 %]", f"{e.value:.4g} [{e.lower:.4g}, {e.upper:.4g}]")
        table.add_row("simulated steps", f"{e.value / process.lr:.4g}")
    except TooFewEscapesError as error:
        table.add_row("simulated time", str(error).splitlines()[0])
    table.add_row("escaped", f"{int(run.escaped.sum())} of {replicas} by t = {float(run.horizon):.4g}")
    return table


def _predicted(chain: DeepLinearChain, process: SGD, target: Any, label_noise: float) -> float | None:
    """Exact mean time of the chain where there is a solver for it (D = 3, barriers that are not too high)."""
    from kramers_grok.theory.exit_times import exit_time
    from kramers_grok.theory.gradient_noise import GaussianResidualVariance
    from kramers_grok.theory.minibatch import MinibatchNoise

    if chain.depth != 3 or chain.barrier().height > 20 * process.temperature:
        return None
    residual = GaussianResidualVariance(chain.singular_value, chain.input_variance, label_noise)
    noise = MinibatchNoise(lr_over_batch=process.lr / process.batch_size, residual_variance=residual)
    return exit_time(
        chain, temperature=process.temperature, target=target, step=process.lr, monitored=True, minibatch=noise
    ).mean
