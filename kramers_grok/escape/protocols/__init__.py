"""Protocols: what is done to a network in the course of an experiment."""

from kramers_grok.escape.protocols.certificate import Certificate, certify, full_gradient, stable_lr
from kramers_grok.escape.protocols.control import control
from kramers_grok.escape.protocols.hysteresis import hysteresis_area, hysteresis_loop
from kramers_grok.escape.protocols.ramp import ramp
from kramers_grok.escape.protocols.settling import Settling, settle
from kramers_grok.escape.protocols.states import find_states, predicted_index, random_starts
from kramers_grok.escape.protocols.sweep import sweep
from kramers_grok.escape.protocols.trap import Trap, prepare_trap, release_seed, trap_and_release, without_noise

__all__ = [
    "Certificate",
    "Settling",
    "Trap",
    "certify",
    "control",
    "find_states",
    "full_gradient",
    "hysteresis_area",
    "hysteresis_loop",
    "predicted_index",
    "prepare_trap",
    "ramp",
    "random_starts",
    "release_seed",
    "settle",
    "stable_lr",
    "sweep",
    "trap_and_release",
    "without_noise",
]
