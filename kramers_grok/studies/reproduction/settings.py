"""What the main job computes, in its full and its quick version."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from typing import Any

from kramers_grok.core import checks

__all__ = ["Settings"]


@dataclass(frozen=True)
class Settings:
    """Parameters of the main job; together they are the study that a results directory holds.

    Attributes
    ----------
    n_replicas : int
        Replicas of each point of the Arrhenius figure.
    ratios : tuple of float
        Barrier heights over temperature ΔF/T; B = 8 ΔF/T at the middle learning rate.
    pairs : tuple of (float, int)
        Further (lr, batch_size), each with an η/B that another pair has too.
    """

    seed: int = 0
    quick: bool = False
    depth: int = 3
    singular_value: float = 1.0
    weight_decay: float = 0.25
    label_noise: float = 0.1
    lr: float = 0.1
    n_replicas: int = 2048
    n_control: int = 256
    ratios: tuple[float, ...] = (2.5, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0)
    pairs: tuple[tuple[float, int], ...] = field(default=((0.05, 12), (0.05, 16), (0.2, 64), (0.05, 24), (0.2, 96)))
    control_time: float = 50_000.0

    def __post_init__(self) -> None:
        object.__setattr__(self, "seed", checks.seed(self.seed))

    @classmethod
    def make(cls, *, seed: int, quick: bool) -> Settings:
        """Return the full settings, or the quick ones: the same figures with fewer replicas and milder barriers."""
        if not quick:
            return cls(seed=seed)
        return cls(
            seed=seed,
            quick=True,
            n_replicas=256,
            n_control=64,
            ratios=(2.0, 2.5, 3.0, 4.0, 5.0),
            pairs=((0.05, 12), (0.2, 64)),
            control_time=5_000.0,
        )

    def changed(self, given: Mapping[str, Any]) -> Settings:
        """Return the settings with some of them replaced by values from a file.

        Raises
        ------
        InvalidParameterError
            For a key that does not exist or a value that breaks its rule.
        """
        known = [field.name for field in fields(self)]
        for key in given:
            if key not in known:
                raise checks.invalid(
                    "declaration",
                    checks.Described(key),
                    f"one of {', '.join(known)}",
                    "these are the main job's settings",
                )
        return replace(self, **{key: _CHECKS[key](key, value) for key, value in given.items()})

    def as_mapping(self) -> dict[str, Any]:
        """Everything that identifies the study, for the manifest."""
        return asdict(self)


def _ratios(name: str, value: Any) -> tuple[float, ...]:
    if not isinstance(value, list | tuple) or not value:
        raise checks.invalid(name, value, "a list of numbers > 0")
    return tuple(checks.positive(name, one) for one in value)


def _pairs(name: str, value: Any) -> tuple[tuple[float, int], ...]:
    if not isinstance(value, list | tuple) or any(not isinstance(one, list | tuple) or len(one) != 2 for one in value):
        raise checks.invalid(name, value, "a list of pairs [lr, batch size]")
    return tuple((checks.positive(name, lr), checks.positive_int(name, batch)) for lr, batch in value)


_CHECKS: dict[str, Callable[[str, Any], Any]] = {
    "seed": lambda name, value: checks.seed(value),
    "depth": lambda name, value: checks.positive_int(name, value, minimum=3),
    "n_replicas": checks.positive_int,
    "n_control": checks.positive_int,
    "singular_value": checks.positive,
    "weight_decay": checks.positive,
    "label_noise": checks.non_negative,
    "lr": checks.positive,
    "control_time": checks.positive,
    "ratios": _ratios,
    "pairs": _pairs,
}
