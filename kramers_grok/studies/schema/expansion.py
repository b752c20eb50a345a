"""From a declaration to the configurations of its cells, the same whatever the order it was written in."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import Any

from kramers_grok.core.noise import effective_temperature
from kramers_grok.studies.schema.declaration import Declaration
from kramers_grok.studies.schema.fields import FIELDS

__all__ = ["configurations"]

_RUN = tuple(field.name for field in FIELDS.values() if field.section == "run")
_DIGITS = 12


def configurations(declaration: Declaration) -> Iterator[dict[str, Any]]:
    """Yield the configuration of every cell, each once, engine by engine.

    Sections are shared between configurations: read them only.

    Parameters
    ----------
    declaration : Declaration

    Yields
    ------
    dict
        ``engine``, ``system``, ``noise`` and, for simulations, the engine's own section, ``run`` and ``seed``.

    Examples
    --------
    >>> from kramers_grok.studies.schema.declaration import parse
    >>> declaration = parse({
    ...     "system": {"weight_decay": 0.25}, "noise": {"std": 0.5}, "engines": ["theory", "sgd"],
    ...     "sgd": {"lr": [0.1, 0.05], "batch_size": [8, 4]},
    ... })
    >>> cells = list(configurations(declaration))
    >>> [cell["noise"] for cell in cells if cell["engine"] == "theory"]
    [{'temperature': 0.0015625}, {'temperature': 0.003125}, {'temperature': 0.00078125}]
    """
    systems, noises, runs = _systems(declaration), _noises(declaration), _sections(declaration, "run", _RUN)
    chains, batches = _sections(declaration, "langevin", ("dt", "integrator")), _batches(declaration)
    seeds = declaration.get("seed")
    for engine in declaration.engines:
        if engine == "sgd":
            for system, noise, sgd, run, seed in itertools.product(systems, noises, batches, runs, seeds):
                yield {"engine": engine, "system": system, "noise": noise, "sgd": sgd, "run": run, "seed": seed}
            continue
        heats = _temperatures(noises, batches)
        if engine == "theory":
            for system, noise in itertools.product(systems, heats):
                yield {"engine": engine, "system": system, "noise": noise}
        else:
            for system, noise, own, run, seed in itertools.product(systems, heats, chains, runs, seeds):
                yield {"engine": engine, "system": system, "noise": noise, "langevin": own, "run": run, "seed": seed}


def _unique(sections: Iterator[dict[str, Any]]) -> list[dict[str, Any]]:
    """Each section once, in the order of the first."""
    return list({tuple(section.items()): section for section in sections}.values())


def _sections(declaration: Declaration, section: str, names: tuple[str, ...]) -> list[dict[str, Any]]:
    """Every combination of a section's values; None where a key does not hold."""
    columns = [declaration.get(f"{section}.{name}") or (None,) for name in names]
    return [dict(zip(names, row, strict=True)) for row in itertools.product(*columns)]


def _systems(declaration: Declaration) -> list[dict[str, Any]]:
    """Systems; those without hidden layers drop the width."""
    names = ("kind", "depth", "singular_value", "weight_decay", "width")
    rows = _sections(declaration, "system", names)
    return _unique({k: v for k, v in row.items() if k != "width" or row["kind"] == "network"} for row in rows)


def _noises(declaration: Declaration) -> list[dict[str, Any]]:
    return _sections(declaration, "noise", (declaration.noise,))


def _batches(declaration: Declaration) -> list[dict[str, Any]]:
    """SGD's settings; none where the declaration gives none."""
    if not declaration.get("sgd.lr") or not declaration.get("sgd.batch_size"):
        return []
    return _sections(declaration, "sgd", ("lr", "batch_size", "label_noise"))


def _temperatures(noises: list[dict[str, Any]], batches: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Noise of what has no batches: SGD's temperatures where SGD's noise is given, the distinct ones above 0.

    They are rounded to 12 digits: 0.1/8 and 0.05/4 are one temperature.
    """
    if "std" not in noises[0]:
        return noises
    heats = (
        effective_temperature(sgd["lr"], sgd["batch_size"], noise["std"] ** 2)
        for noise, sgd in itertools.product(noises, batches)
    )
    return _unique({"temperature": float(f"{heat:.{_DIGITS}g}")} for heat in heats if heat > 0)
