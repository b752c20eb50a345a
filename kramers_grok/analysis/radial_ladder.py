"""Predictions for networks whose width counts: rungs of the radial free energy."""

from __future__ import annotations

import math
from dataclasses import replace

from kramers_grok.analysis.ladder import Ladder, Setting, ladder
from kramers_grok.core.exceptions import NoBarrierError
from kramers_grok.core.region import Region
from kramers_grok.models.deep_linear import DeepLinearNetwork
from kramers_grok.theory.radial import RadialFreeEnergy, radial_rate
from kramers_grok.theory.radial_minibatch import radial_minibatch_log_factor
from kramers_grok.theory.rates import eyring_kramers_rate

__all__ = ["radial_ladder"]


def radial_ladder(network: DeepLinearNetwork, setting: Setting, target: Region) -> Ladder:
    r"""Return the predicted mean times in which a network learns its first feature, effect by effect.

    The Eyring–Kramers formula takes the saddle's and the trap's surroundings for Gaussian, which wide layers are not at
    temperatures of interest: their unused units open the way. `radial_rate` keeps that. The rungs are those of `ladder`
    times the ratio of the two continuous times, :math:`\tau_{\rm radial}/\tau_{\rm EK}`; what minibatches add is taken
    along the radial path. ``asymptotic`` stays Eyring and Kramers'.

    Parameters
    ----------
    network : DeepLinearNetwork
    setting : Setting
        With a temperature.
    target : Region
        Where it counted as escaped.

    Returns
    -------
    Ladder
        All NaN, with the reason in ``notes``, where the trap has melted: the entropy of wide layers leaves no barrier,
        and no formula for an activated escape means anything.

    Examples
    --------
    >>> from kramers_grok.core.region import beyond
    >>> network = DeepLinearNetwork((1, 3, 3, 1), [1.0], weight_decay=0.25)
    >>> barrier = network.theory.barrier()
    >>> rungs = radial_ladder(network, Setting(barrier.height / 12, step=0.1, bridged=True), beyond(barrier))
    >>> rungs.best > 1.2 * rungs.asymptotic
    True
    """
    rungs = ladder(network, setting, target)
    if not setting.temperature:
        return rungs
    try:
        radial = radial_rate(network.theory, setting.temperature, warn=False)
        data = 0.0
        if setting.closed_noise is not None:
            energy = RadialFreeEnergy(network.theory, setting.temperature)
            data = radial_minibatch_log_factor(energy, setting.closed_noise)
    except NoBarrierError as error:
        nan = math.nan
        return Ladder(nan, nan, nan, nan, nan, nan, "none", (str(error).splitlines()[0],))
    gaussian = eyring_kramers_rate(network.theory.barrier(), setting.temperature, warn=False)
    factor = radial.mean_time / gaussian.mean_time
    watched = factor * rungs.watched
    return replace(
        rungs,
        stepped=factor * rungs.stepped,
        watched=watched,
        made=math.nan if setting.unknown_noise else watched * math.exp(-data),
        time_step_method=rungs.time_step_method.replace("leading order in T/ΔF", "radial free energy"),
        notes=tuple(note for note in (radial.note,) if note),
    )
