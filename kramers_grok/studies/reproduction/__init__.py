"""The main job: the paper's Arrhenius law from theory, Langevin and SGD, on top of the phases of real data."""

from kramers_grok.studies.reproduction.job import ARMS, reproduce
from kramers_grok.studies.reproduction.settings import Settings

__all__ = ["ARMS", "Settings", "reproduce"]
