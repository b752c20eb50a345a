r"""Brute force or splitting: what either costs, as far as it can be said before a run.

For a relative error ε brute force takes :math:`\tau/(h\varepsilon^2)` steps of all replicas, τ the predicted mean and h
the step. Splitting takes about :math:`10\,x^2/(\lambda h\varepsilon^2)` with x = ΔF/T and the well's relaxation time
1/λ: measured for mode, chain and matrix network from x = 8 to 40, where the number that stands before lies between 4
and 12. So h and ε cancel, and the ratio is :math:`\lambda\tau/10x^2`. Brute force sees every exit time, survival curve
and tests included; it is left only where splitting takes ten times fewer steps.
"""

from __future__ import annotations

__all__ = ["AUTO", "BRUTE_FORCE", "MOST_STEPS", "SPLITTING", "SPLITTING_COST", "UNPREDICTED", "WORTH_IT", "cost_ratio"]

BRUTE_FORCE, SPLITTING, AUTO = "brute force", "splitting", "auto"
SPLITTING_COST = 10.0
WORTH_IT = 10.0
UNPREDICTED = 100.0  # relaxation times that stand for the mean where nothing is predicted
MOST_STEPS = 10**8


def cost_ratio(barrier_over_temperature: float, mean: float, weight_decay: float) -> float:
    """Steps of brute force over those of splitting, for the same relative error.

    Parameters
    ----------
    barrier_over_temperature : float
        x = ΔF/T; below 1, where nothing is trapped that splitting could climb out of, as for 1.
    mean : float
        Predicted mean exit time τ [time].
    weight_decay : float
        λ, the inverse of the well's relaxation time [1/time].

    Examples
    --------
    >>> cost_ratio(10.0, 8e5, 0.25) > WORTH_IT
    True
    """
    return weight_decay * mean / (SPLITTING_COST * max(barrier_over_temperature, 1.0) ** 2)
