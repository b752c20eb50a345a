"""What a splitting run has reached, kept between loops and levels: it goes on bit for bit where it was killed."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from kramers_grok.escape import checkpoint as checkpoints
from kramers_grok.escape.checkpoint import Checkpoint
from kramers_grok.escape.splitting_engine import Crowd, Engine

__all__ = ["Keeper", "Reached"]

Array = NDArray[np.float64]

_NAME = "splitting"
_PARTS = ("theta", "phase", "repeat", "age")
_BUFFER = "buffer "


class Reached:
    """A stage that an earlier run was in.

    Parameters
    ----------
    arrays, facts : mapping
        As they were kept.
    device : torch.device
        Where crowds belong.
    """

    def __init__(self, arrays: Mapping[str, Tensor], facts: Mapping[str, Any], device: torch.device) -> None:
        self.arrays, self.facts, self.device = arrays, facts, device

    def crowd(self, name: str) -> Crowd:
        """Return a crowd by its name."""
        own = {
            k.removeprefix(f"{name}."): v.to(self.device) for k, v in self.arrays.items() if k.startswith(f"{name}.")
        }
        buffers = {k.removeprefix(_BUFFER): v for k, v in own.items() if k.startswith(_BUFFER)}
        return Crowd(own["theta"], buffers, own["phase"], own["repeat"], own["age"])

    def array(self, name: str) -> NDArray[Any]:
        """Return an array by its name."""
        return self.arrays[name].numpy()


class Keeper:
    """Keeps a run in a checkpoint: its stage, and with it all that earlier stages found.

    Parameters
    ----------
    checkpoint : Checkpoint or None
        None keeps nothing.
    engine : Engine
        Set back to where the kept run's was.
    run : str
        Which run it is.
    """

    def __init__(self, checkpoint: Checkpoint | None, engine: Engine, run: str) -> None:
        self._checkpoint, self._engine, self._run = checkpoint, engine, run
        self._arrays: dict[str, Any] = {}
        self._facts: dict[str, Any] = {}
        found = checkpoints.load(checkpoint, _NAME, run)
        self._stage: str | None = None
        if found is not None:
            self._held, self._stage = found, found[1]["stage"]
            engine.replica_steps, engine.next_stream = found[1]["replica_steps"], found[1]["next_stream"]

    def reached(self, *stages: str) -> Reached | None:
        """Return what was kept, if the kept run was in one of these stages."""
        if self._stage not in stages:
            return None
        return Reached(*self._held, self._engine.device)

    def remember(self, **values: Any) -> None:
        """Let every later save hold these results of a stage that is over: arrays, and facts that JSON knows."""
        self._arrays |= {k: v for k, v in values.items() if isinstance(v, np.ndarray)}
        self._facts |= {k: v for k, v in values.items() if not isinstance(v, np.ndarray)}

    def due(self) -> bool:
        """Whether to `keep` now."""
        return self._checkpoint is not None and self._checkpoint.due()

    def keep(self, stage: str, *, crowds: Mapping[str, Crowd], **values: Any) -> None:
        """Save where the run stands: crowds, arrays, and facts that JSON knows."""
        assert self._checkpoint is not None
        arrays: dict[str, Any] = self._arrays | {k: v for k, v in values.items() if isinstance(v, np.ndarray)}
        facts = self._facts | {k: v for k, v in values.items() if not isinstance(v, np.ndarray)}
        for name, crowd in crowds.items():
            arrays |= {f"{name}.{part}": getattr(crowd, part) for part in _PARTS}
            arrays |= {f"{name}.{_BUFFER}{b}": tensor for b, tensor in crowd.buffers.items()}
        engine = self._engine
        facts |= {"replica_steps": engine.replica_steps, "next_stream": engine.next_stream}
        self._checkpoint.save(_NAME, checkpoints.pack(arrays, facts | {"run": self._run, "stage": stage}))
