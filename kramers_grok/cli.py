"""Command line: ``kramers-grok reproduce``, ``escape``, ``warm-up`` and ``selftest``."""

from __future__ import annotations

import math
import os
import time
import warnings
from concurrent.futures import Executor, ProcessPoolExecutor
from contextlib import nullcontext
from multiprocessing import get_context
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.markdown import Markdown
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeElapsedColumn
from rich.table import Table

from kramers_grok.core import checks
from kramers_grok.core.exceptions import KramersGrokError
from kramers_grok.studies.cells import one_thread

if TYPE_CHECKING:
    from kramers_grok.dynamics.sgd import SGD
    from kramers_grok.theory.deep_linear import DeepLinearChain

__all__ = ["app"]

app = typer.Typer(
    help="When does noise free a trapped network, and how long does it take?",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)


def _fail(error: Exception) -> typer.Exit:
    Console(stderr=True).print(f"[bold red]{type(error).__name__}[/]: {escape(str(error))}", highlight=False)
    return typer.Exit(2)


class _Bars:
    """One progress bar for each arm."""

    def __init__(self, progress: Progress) -> None:
        self.progress = progress
        self.tasks: dict[str, TaskID] = {}

    def arm(self, name: str, n_cells: int) -> None:
        self.tasks[name] = self.progress.add_task(name.replace("_", " "), total=n_cells)

    def cell(self, arm: str) -> None:
        self.progress.advance(self.tasks[arm])


def _executor(workers: int) -> Executor | nullcontext[None]:
    """Worker processes, or this process alone for one worker."""
    if workers == 1:
        return nullcontext()
    # One worker is one core. Numerical libraries count their threads when they are loaded, in the new processes.
    for variable in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
        os.environ.setdefault(variable, "1")
    # Spawned, not forked: torch and numba have threads by now.
    return ProcessPoolExecutor(workers, mp_context=get_context("spawn"), initializer=one_thread)


@app.command()
def reproduce(
    out: Annotated[Path, typer.Option(help="Results directory; the same command resumes it.")] = Path("results"),
    quick: Annotated[bool, typer.Option("--quick", help="A minute instead of several: fewer replicas.")] = False,
    seed: Annotated[int, typer.Option(help="Seed of everything random.")] = 0,
    device: Annotated[str, typer.Option(help="auto, cpu or cuda.")] = "auto",
    workers: Annotated[int, typer.Option(help="Processes; results do not depend on it. 0: all cores.")] = 0,
    arm: Annotated[list[str] | None, typer.Option(help="Only this arm (may be given several times).")] = None,
) -> None:
    """Run the main job: the figures of the paper for linear networks, predicted and measured, and what goes beyond."""
    from kramers_grok import report
    from kramers_grok.studies import reproduction

    console = Console()
    began = time.perf_counter()
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    try:
        settings = reproduction.Settings.make(seed=seed, quick=quick)
        processes = checks.positive_int("workers", workers, minimum=0) or os.cpu_count() or 1
        with Progress(*columns, console=console) as progress, _executor(processes) as executor:
            reproduction.reproduce(
                out, settings=settings, arms=arm, device=device, executor=executor, reporter=_Bars(progress)
            )
            figures = progress.add_task("figures", total=1)
            text = report.write(out, executor)
            progress.update(figures, completed=1)
    except KramersGrokError as error:
        raise _fail(error) from None
    console.print(Markdown(text))
    done = f"{time.perf_counter() - began:.0f} s; data, figures and summary.md are in {out}/"
    console.print(done, highlight=False, markup=False)


@app.command("escape")
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
        raise _fail(error) from None
    console = Console()
    console.print(table)
    for message in dict.fromkeys(str(w.message) for w in caught):
        console.print(f"[yellow]note[/]: {escape(message)}", highlight=False)


@app.command()
def warm_up() -> None:
    """Compile the usual kernels now (half a minute), so that the first run does not wait; they stay on disk."""
    from kramers_grok.dynamics import warm_up as kernels

    console = Console()
    with console.status("compiling") as status:
        kernels.warm_up(lambda name: status.update(f"compiling: {name}"))


@app.command()
def selftest(
    device: Annotated[str, typer.Option(help="auto, cpu or cuda.")] = "auto",
    compile: Annotated[bool, typer.Option("--compile", help="Check torch.compile too (half a minute).")] = False,
) -> None:
    """Check that a device gives what the CPU's compiled code gives; exit code 1 if it does not, or is not there."""
    from kramers_grok.studies.selftest import find_device
    from kramers_grok.studies.selftest import selftest as checked

    console = Console()
    try:
        name = str(find_device(device))
        with console.status("testing") as status:
            outcomes = checked(name, compile=compile, progress=lambda check: status.update(escape(check)))
    except KramersGrokError as error:
        _fail(error)
        raise typer.Exit(1) from None
    table = Table(title=f"Self-test of {name}", title_justify="left")
    for column in ("check", "", "found", "s"):
        table.add_column(column)
    for outcome in outcomes:
        mark = "[green]passed[/]" if outcome.passed else "[bold red]FAILED[/]"
        table.add_row(escape(outcome.name), mark, escape(outcome.detail), f"{outcome.seconds:.1f}")
    console.print(table)
    failed = [outcome.name for outcome in outcomes if not outcome.passed]
    console.print(
        f"{len(failed)} of {len(outcomes)} checks failed" if failed else f"all {len(outcomes)} checks passed",
        highlight=False,
    )
    if failed:
        raise typer.Exit(1)


BUDGET = 4e7  # replica-steps that two or three seconds allow


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
