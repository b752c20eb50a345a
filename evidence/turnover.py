"""Evidence: Kramers' turnover against friction, and SGD with momentum beside it.

Run with ``make evidence NAME=turnover``; finished cells are kept, so the same command resumes, and the small
``evidence/turnover/table.nc`` is committed.

1. Mean first-passage times past the barrier of the double well (x² − 1)² and of a mode, frictions from 0.01 to 10 at
   ΔU/T = 3: simulated with inertia, from the Kramers–Fokker–Planck equation, by the formulas.
2. SGD with momentum, in the mode (population) and in the chain (true minibatches besides the injected noise), against
   Langevin dynamics with inertia at the friction and temperature of `HeavyBall`.
"""

from __future__ import annotations

import argparse
import warnings
from collections.abc import Mapping
from typing import Any

import numpy as np
import sympy
import xarray as xr
from rich.progress import Progress

import kramers_grok as kg
from kramers_grok.core.exceptions import ValidityWarning
from kramers_grok.core.schema import describe
from kramers_grok.dynamics.optimizers import Momentum
from kramers_grok.dynamics.underdamped import UnderdampedLangevin
from kramers_grok.studies.files.store import Store, write_netcdf
from kramers_grok.studies.running.cells import Cell, execute, one_thread
from kramers_grok.theory.kramers_fokker_planck import Inertial, inertial_mean_exit
from kramers_grok.theory.momentum import HeavyBall
from kramers_grok.theory.quadrature import Interval
from kramers_grok.theory.turnover import energy_diffusion_time, turnover_rate

RATIO = 3.0
FRICTIONS = (0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0)
N_REPLICAS = 384
HORIZON = 1.5  # mean exit times
X = sympy.Symbol("x", real=True)
WELL = kg.Landscape((X**2 - 1) ** 2, (X,), (X,))
CHAIN = kg.DeepLinearChain(depth=3, singular_value=1.0, weight_decay=0.25)
# Barrier, border of the target (past the top, several T below it), time step
SYSTEMS: dict[str, tuple[kg.Barrier, float, float]] = {
    "double well": (kg.Barrier(WELL, *(np.array([p]) for p in (-1.0, 0.0, 1.0)), height=1.0), 0.7, 0.1),
    "mode": (CHAIN.mode.barrier(), 0.8, 0.5),
}
BATCH = 8
# η and β: friction 0.8, 0.2 and 0.05 at steps that are small beside the oscillation, γ/ω₀ = 1.6, 0.4, 0.1
BALLS = ((0.0625, 0.8), (0.0625, 0.95), (0.0625, 0.9875))


def measured(process: Any, target: kg.Region, start: Any, guess: float, seed: int, late: float) -> dict[str, Any]:
    """Mean exit time of a simulation, without what watching at steps only adds."""
    run = kg.first_passage(
        process, target=target, n_replicas=N_REPLICAS, max_time=HORIZON * guess, seed=seed, start=start
    )
    mean = kg.mean_exit_time(run)
    return {"mean_exit_time": mean.value - late, "standard_error": mean.standard_error}


def friction_cell(config: Mapping[str, Any], *, seed: int) -> xr.Dataset:
    """All times at one friction."""
    barrier, border, step = SYSTEMS[config["system"]]
    friction, heat = config["friction"], barrier.height / RATIO
    landscape, start = barrier.landscape, float(barrier.minimum[0])
    exact = inertial_mean_exit(
        Inertial(landscape, heat, friction), Interval(start, upper=border), tolerance=2e-2 if friction < 0.05 else 2e-3
    )
    process = UnderdampedLangevin(landscape, temperature=heat, friction=friction, dt=step)
    target = kg.Region(float(landscape.order_parameters_at([border])[0]))
    values = measured(process, target, barrier.minimum, exact.mean, seed, step / 2)
    values |= {
        "exact_time": exact.mean,
        "numerical_error": exact.mean * exact.relative_error,
        "turnover_time": turnover_rate(barrier, heat, friction=friction, warn=False).mean_time,
        "kramers_time": kg.kramers_rate(barrier, heat, friction=friction, warn=False).mean_time,
        "energy_diffusion_time": energy_diffusion_time(barrier, heat, friction=friction),
    }
    return xr.Dataset({name: ((), value, _label(name)) for name, value in values.items()})


def momentum_cell(config: Mapping[str, Any], *, seed: int) -> xr.Dataset:
    """SGD with momentum, Langevin dynamics with inertia, and for the mode the exact time; in the latter's clock."""
    ball = HeavyBall(*config["ball"])
    mode = config["system"] == "mode"
    system: Any = CHAIN.mode if mode else CHAIN
    heat, border = SYSTEMS["mode"][0].height / RATIO, SYSTEMS["mode"][1]
    exact = inertial_mean_exit(Inertial(CHAIN.mode.landscape, heat, ball.friction), Interval(0.0, upper=border))
    target = kg.Region(float(CHAIN.mode.landscape.order_parameters_at([border])[0]))
    start = np.zeros(1 if mode else CHAIN.depth)
    data = kg.population() if mode else kg.teacher(label_noise=0.1)
    sgd = kg.SGD(
        system, data, lr=ball.lr, batch_size=BATCH, optimizer=Momentum(ball.momentum),
        noise=kg.per_sample(variance=ball.noise_variance_for(heat, BATCH)),
    )  # fmt: skip
    inertia = UnderdampedLangevin(system, temperature=heat, friction=ball.friction, dt=SYSTEMS["mode"][2])
    clock = ball.lr / ball.step  # of SGD's time, in the particle's
    trained = measured(sgd, target, start, exact.mean * clock, seed, ball.lr / 2)
    moved = measured(inertia, target, start, exact.mean, seed + 1, inertia.dt / 2)
    values = {
        "mean_exit_time": trained["mean_exit_time"] / clock,
        "standard_error": trained["standard_error"] / clock,
        "inertial_time": moved["mean_exit_time"],
        "inertial_error": moved["standard_error"],
        "exact_time": exact.mean if mode else np.nan,
        "friction": ball.friction,
        "eyring_kramers_time": kg.eyring_kramers_rate(
            system.barrier(), heat, friction=ball.friction, warn=False
        ).mean_time,
    }
    return xr.Dataset({name: ((), value, _label(name)) for name, value in values.items()})


def _label(name: str) -> dict[str, str]:
    if name in ("mean_exit_time", "standard_error", "numerical_error", "friction"):
        return describe(name)
    return {"units": "time", "long_name": name.replace("_", " ")}


def main() -> None:
    """Compute what is missing and write the tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", default="evidence/turnover")
    args = parser.parse_args()
    one_thread()
    warnings.simplefilter("ignore", ValidityWarning)
    study = {"ratio": RATIO, "n_replicas": N_REPLICAS, "horizon": HORIZON}
    store = Store(args.out, study, name="turnover")
    frictions = {s: [Cell("friction", {"system": s, "friction": g}, friction_cell) for g in FRICTIONS] for s in SYSTEMS}
    balls = {s: [Cell("momentum", {"system": s, "ball": b}, momentum_cell) for b in BALLS] for s in ("mode", "chain")}
    cells = [cell for group in (*frictions.values(), *balls.values()) for cell in group]
    with Progress() as bar:
        task = bar.add_task("cells", total=len(cells))
        runs = execute(store, cells, seed=0, finished=lambda _: bar.advance(task))
    found = dict(zip(map(id, cells), runs, strict=True))
    tables = {}
    for system, group in frictions.items():
        table = xr.concat([found[id(c)] for c in group], dim="friction")
        table = table.assign_coords(friction=("friction", list(FRICTIONS), describe("friction")))
        z = (table.mean_exit_time - table.exact_time) / table.standard_error
        print(
            system,
            "z against the exact times:",
            z.values.round(1),
            "formula:",
            (table.turnover_time / table.exact_time).values.round(3),
        )
        tables[f"/friction/{system.replace(' ', '_')}"] = table
    for system, group in balls.items():
        table = xr.concat([found[id(c)] for c in group], dim="ball").assign(
            lr=("ball", [b[0] for b in BALLS], describe("lr")),
            momentum=("ball", [b[1] for b in BALLS], {"units": "1", "long_name": "momentum β"}),
        )
        z = (table.mean_exit_time - table.inertial_time) / np.hypot(table.standard_error, table.inertial_error)
        print(system, "SGD with momentum against inertia, z:", z.values.round(1))
        tables[f"/momentum/{system}"] = table
    write_netcdf(xr.DataTree.from_dict(tables), f"{args.out}/table.nc")


if __name__ == "__main__":
    main()
