"""What the main job computes, in its full and its quick version."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
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

    def as_mapping(self) -> dict[str, Any]:
        """Everything that identifies the study, for the manifest."""
        return asdict(self)
