"""Studies of escapes: theory, Langevin dynamics and SGD over a declared grid."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Self

import xarray as xr

from kramers_grok.core.exceptions import DamagedFileError, InvalidParameterError
from kramers_grok.studies.escape.estimates import seconds_of
from kramers_grok.studies.running.cells import Cell
from kramers_grok.studies.schema.declaration import Declaration, parse, read_toml
from kramers_grok.studies.schema.expansion import configurations
from kramers_grok.studies.schema.fields import FIELDS
from kramers_grok.studies.schema.rules import shown

if TYPE_CHECKING:
    from kramers_grok.studies.files.store import Store

__all__ = ["EscapeStudy"]


class EscapeStudy:
    """A grid of escapes, declared once.

    Any parameter may be a value, a list of values or a range: ``{"start": …, "stop": …, "num": …, "spacing": "linear"``
    or ``"geometric"}`` or ``{"start": …, "stop": …, "step": …}``. The study is the product of all of them, each cell
    once.

    Parameters
    ----------
    system : mapping
        ``kind`` ("mode", "chain" or "network"), ``depth``, ``singular_value``, ``weight_decay`` and, for networks,
        ``width``.
    noise : mapping
        Exactly one of ``barrier_over_temperature``, ``temperature`` and ``std``.
    sgd : mapping, optional
        ``lr``, ``batch_size`` and ``label_noise``.
    langevin : mapping, optional
        ``dt`` and ``integrator``.
    run : mapping, optional
        ``method``, ``replicas`` or ``precision`` with ``max_replicas``, ``horizon``, ``confidence``.
    engines : sequence of str
        Of "theory", "langevin" and "sgd".
    seed : int or list of int
        Each makes cells of its own.
    title, question : str
        What the study is called, and what it asks.

    Raises
    ------
    InvalidParameterError
        With every key that is wrong and what is allowed there.

    Examples
    --------
    >>> study = EscapeStudy(
    ...     system={"kind": "chain", "depth": 3, "weight_decay": [0.2, 0.25]},
    ...     noise={"barrier_over_temperature": 4},
    ...     sgd={"lr": 0.1, "batch_size": [8, 16]},
    ... )
    >>> [cell.name for cell in study.cells()]
    ['theory', 'theory', 'langevin', 'langevin', 'sgd', 'sgd', 'sgd', 'sgd']
    """

    kind = "escape"

    def __init__(
        self,
        *,
        system: Mapping[str, Any],
        noise: Mapping[str, Any],
        sgd: Mapping[str, Any] | None = None,
        langevin: Mapping[str, Any] | None = None,
        run: Mapping[str, Any] | None = None,
        engines: Sequence[str] = ("theory", "langevin", "sgd"),
        seed: Any = 0,
        title: str = "",
        question: str = "",
    ) -> None:
        given = {"system": system, "noise": noise, "sgd": sgd, "langevin": langevin, "run": run}
        sections = {name: section for name, section in given.items() if section is not None}
        self.parsed = parse({"title": title, "question": question, "engines": engines, "seed": seed, **sections})

    @classmethod
    def from_declaration(cls, declaration: Mapping[str, Any], *, source: str = "") -> Self:
        """Make the study of a declaration, as `declaration` returns it or as a TOML file holds it.

        Parameters
        ----------
        declaration : mapping
        source : str
            Where it comes from, for messages.
        """
        return cls._of(parse(declaration, source=source))

    @classmethod
    def from_toml(cls, path: str | os.PathLike[str]) -> Self:
        """Make the study that a TOML file declares.

        Parameters
        ----------
        path : path
        """
        return cls.from_declaration(read_toml(path), source=shown(os.fspath(path)))

    @classmethod
    def _of(cls, parsed: Declaration) -> Self:
        study = cls.__new__(cls)
        study.parsed = parsed
        return study

    def __repr__(self) -> str:
        return f"EscapeStudy({self.parsed.as_mapping()!r})"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, EscapeStudy) and self.declaration() == other.declaration()

    __hash__ = None  # type: ignore[assignment]  # mappings have none

    def declaration(self) -> dict[str, Any]:
        """The complete declaration: defaults filled in, ranges written out as lists."""
        return self.parsed.as_mapping()

    def conflicts(self, held: Mapping[str, Any]) -> list[str]:
        """Say why a directory that holds another declaration cannot take this study; empty if it can.

        Physical parameters, seeds and engines may change: finished cells stay. Of the settings in ``run``, those that
        the directory holds must remain, for cells made with different ones do not make one study.
        """
        try:
            other = parse(held)
        except InvalidParameterError as error:
            return [f"its declaration is not understood: {error}"]
        return [
            text
            for field in FIELDS.values()
            if field.section == "run"
            for text in _lost(field.key, other.get(field.key), self.parsed.get(field.key))
        ]

    def cells(self) -> list[Cell]:
        """Return what must be computed, each cell once, in an order that depends on the declaration only.

        Costs are expected seconds on one core.
        """
        configs = list(configurations(self.parsed))
        functions = {"theory": _theory, "langevin": _simulate, "sgd": _simulate}
        return [
            Cell(
                config["engine"], config, functions[config["engine"]], cost,
                resumable="run" in config, seed=config.get("seed", 0),
            )
            for config, cost in zip(configs, seconds_of(configs), strict=True)
        ]  # fmt: skip

    def gather(self, store: Store) -> xr.DataTree:
        """Put all finished cells into one labelled tree; unfinished ones are missing values."""
        from kramers_grok.studies.results.export import gather

        def finished(cell: Cell) -> xr.Dataset | None:
            try:
                data = store.read(cell.name, cell.config)
            except (FileNotFoundError, DamagedFileError):  # the store has said which and put it aside
                return None
            return data if isinstance(data, xr.Dataset) else None

        return gather(self.cells(), finished, declaration=self.declaration())


def _lost(key: str, held: tuple[Any, ...], asked: tuple[Any, ...]) -> list[str]:
    """Say if values that a directory holds are asked for no more."""
    if set(held) <= set(asked):
        return []
    there, here = (list(v) if len(v) != 1 else v[0] for v in (held, asked))
    if not asked:
        return [f"`{key}` is {there!r} there and not given here"]
    both = [*held, *(v for v in asked if v not in held)]
    return [f"`{key}` is {there!r} there, you asked for {here!r}; `{key} = {both!r}` would hold both"]


# The functions of cells import what they need when they run: expanding a study needs no torch.


def _theory(config: Mapping[str, Any], *, seed: int) -> xr.Dataset:
    from kramers_grok.studies.escape import cells as escape_cells

    result: xr.Dataset = escape_cells.theory(config, seed=seed)
    return result


def _simulate(config: Mapping[str, Any], *, seed: int, checkpoint: Any = None) -> xr.Dataset:
    from kramers_grok.studies.escape import cells as escape_cells

    result: xr.Dataset = escape_cells.simulate(config, seed=seed, checkpoint=checkpoint)
    return result
