"""Names and seeds that depend on what is asked for, and on nothing else."""

from __future__ import annotations

import hashlib
from typing import Any

import numpy as np

from kramers_grok.core import checks
from kramers_grok.core.schema import canonical_json

__all__ = ["cell_seed", "content_hash"]


def content_hash(configuration: Any) -> str:
    """Return 16 hexadecimal digits that depend on the configuration's content only.

    Examples
    --------
    >>> content_hash({"a": 1, "b": (2.0,)}) == content_hash({"b": [np.float64(2.0)], "a": 1})
    True
    """
    return hashlib.sha256(canonical_json(configuration).encode()).hexdigest()[:16]


def cell_seed(seed: int, config: Any) -> int:
    """Derive the 64-bit seed of a cell from the study's seed and the cell's content.

    It does not depend on which other cells there are, nor on their order: `numpy.random.SeedSequence`
    with the hash of the content as its spawn key.

    Examples
    --------
    >>> cell_seed(0, {"lr": 0.1}) == cell_seed(0, {"lr": 0.1}) != cell_seed(1, {"lr": 0.1})
    True
    """
    digest = hashlib.sha256(canonical_json(config).encode()).digest()
    key = tuple(int(word) for word in np.frombuffer(digest, dtype="<u4"))
    sequence = np.random.SeedSequence(entropy=checks.seed(seed), spawn_key=key)
    return int(sequence.generate_state(1, np.uint64)[0])
