"""The one table of what a study of escapes declares: validation, messages, template and docs are made from it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from kramers_grok.studies.schema.rules import Choice, Integer, Number, Rule, Text, Value

__all__ = [
    "DEFAULT_MAX_REPLICAS",
    "DEFAULT_REPLICAS",
    "DEVICES",
    "ENGINES",
    "FIELDS",
    "KINDS",
    "METHODS",
    "NOISES",
    "SECTIONS",
    "Field",
]

ENGINES = ("theory", "langevin", "sgd")
KINDS = ("mode", "chain", "network")
DEFAULT_REPLICAS = 1024
DEFAULT_MAX_REPLICAS = 65_536
METHODS = ("auto", "brute force", "splitting")
DEVICES = ("cpu", "cuda")


@dataclass(frozen=True)
class Field:
    """One key of a declaration.

    Attributes
    ----------
    key : str
        Dotted name, e.g. "sgd.lr".
    rule : Rule
        What one value must be.
    meaning : str
        What it says, in a few words.
    unit : str
        Its unit; "" where it has none.
    default : bool, int, float, str, tuple or None
        What holds if it is left out; None where nothing does.
    example : object
        A value that the template shows where there is no default.
    variable : str
        Its name in results, by the vocabulary; "" for what is no coordinate.
    grid : bool
        Whether a list or a range is allowed, each value making cells of its own.
    """

    key: str
    rule: Rule
    meaning: str
    unit: str = ""
    default: Value | tuple[str, ...] | None = None
    example: Any = None
    variable: str = ""
    grid: bool = True

    @property
    def section(self) -> str:
        """The table that the key stands in; "" at the top."""
        return self.key.rpartition(".")[0]

    @property
    def name(self) -> str:
        """The key without its section."""
        return self.key.rpartition(".")[2]

    @property
    def expected(self) -> str:
        """The rule for whatever the key may hold."""
        if self.key == "engines":
            return f"a list of {self.rule.one.removeprefix('one of ')}"
        if not self.grid:
            return self.rule.one
        if self.rule.numeric:
            return f"{self.rule.one}, a list of them or a range {{start, stop, num}}"
        return f"{self.rule.one}, or a list of them"


_POSITIVE = Number(lower=0, strict=True)
_SHARE = Number(lower=0, upper=1, strict=True)

_TABLE = (
    Field("kind", Choice(("escape",)), "kind of study", default="escape", grid=False),
    Field("title", Text(), "title of the page", default="", example="Escape of a trapped chain", grid=False),
    Field(
        "question", Text(), "what the study asks; its page answers it first", default="", grid=False,
        example="Does a trapped chain escape at the predicted rate?",
    ),
    Field("engines", Choice(ENGINES), "what is compared", default=ENGINES, grid=False),
    Field("seed", Integer(0, 2**64 - 1), "seed of everything random; each makes cells of its own", default=0,
          example=[0, 1], variable="seed"),
    Field("system.kind", Choice(KINDS), "one coordinate, a chain of weights, or a matrix network with one feature",
          default="chain", variable="system"),
    Field("system.depth", Integer(2, 64), "number D of weight layers; a barrier needs 3 or more", "layers", 3,
          variable="depth"),
    Field("system.singular_value", _POSITIVE, "singular value σ of the teacher's feature", "1", 1.0,
          variable="singular_value"),
    Field("system.weight_decay", _POSITIVE, "weight decay λ; a barrier needs λ below the spinodal", "loss/weight²",
          example=0.25, variable="weight_decay"),
    Field("system.width", Integer(1, 4096), "hidden width h; for networks only", "units", example=4, variable="width"),
    Field("noise.barrier_over_temperature", _POSITIVE, "barrier over temperature ΔF/T", "1", example=5.0,
          variable="barrier_over_temperature"),
    Field("noise.temperature", _POSITIVE, "temperature T", "loss", example=0.0016, variable="temperature"),
    Field("noise.std", Number(lower=0), "per-sample gradient noise g, so that T = lr g²/(2 batch_size); "
          "0 leaves the noise of the data alone, for SGD only", "loss/weight", example=0.5, variable="noise_std"),
    Field("langevin.dt", _POSITIVE, "time step of Langevin dynamics", "time", 0.1, variable="dt"),
    Field("langevin.integrator", Choice(("fused", "torchsde")), "compiled Euler–Maruyama, or torchsde's",
          default="fused", variable="integrator"),
    Field("sgd.lr", _POSITIVE, "learning rate η", "time/step", example=0.1, variable="lr"),
    Field("sgd.batch_size", Integer(1, 2**31 - 1), "batch size B", "samples", example=8, variable="batch_size"),
    Field("sgd.label_noise", Number(lower=0), "label noise s of the online teacher", "1", 0.1, variable="label_noise"),
    Field("run.method", Choice(METHODS), "wait for escapes, climb to them by splitting, or whatever ΔF/T asks for",
          default="auto", variable="method"),
    Field("run.replicas", Integer(2, 2**31 - 1), "replicas of each cell; 1024 unless there is `precision`, which "
          "excludes it", "replicas", example=DEFAULT_REPLICAS, variable="n_replicas"),
    Field("run.precision", _SHARE, "half width of the interval over the mean that a cell has to reach, whatever number "
          "of replicas that takes", "1", example=0.05, variable="precision"),
    Field("run.max_replicas", Integer(2, 2**31 - 1), "most replicas of a cell; with `precision`, 65536", "replicas",
          example=DEFAULT_MAX_REPLICAS, variable="max_replicas"),
    Field("run.horizon", _POSITIVE, "replicas are given up after so many predicted mean times", "1", 10.0,
          variable="horizon"),
    Field("run.confidence", _SHARE, "confidence of the intervals", "1", 0.95, variable="confidence"),
    Field("run.device", Choice(DEVICES), "where replicas move; results differ between the two by rounding",
          default="cpu", variable="device"),
)  # fmt: skip

FIELDS: Mapping[str, Field] = {field.key: field for field in _TABLE}
"""Every key, by its dotted name, in the order of the template."""

SECTIONS = tuple(dict.fromkeys(field.section for field in _TABLE if field.section))
NOISES = tuple(field.name for field in _TABLE if field.section == "noise")
