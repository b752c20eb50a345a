"""kramers_grok: when does noise free a trapped network, and how long does it take?

The names below are imported when first used, so that theory alone needs no torch.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from kramers_grok import plots as plots
    from kramers_grok.analysis.arrhenius import arrhenius_fit as arrhenius_fit
    from kramers_grok.analysis.arrhenius import compare_laws as compare_laws
    from kramers_grok.analysis.budget import error_budget as error_budget
    from kramers_grok.analysis.compare import compare as compare
    from kramers_grok.analysis.exponents import exponent_fit as exponent_fit
    from kramers_grok.analysis.extrapolation import extrapolated_ratio as extrapolated_ratio
    from kramers_grok.analysis.law_choice import choose_law as choose_law
    from kramers_grok.analysis.laws import ExitTimes as ExitTimes
    from kramers_grok.analysis.laws import fit_laws as fit_laws
    from kramers_grok.analysis.loop_width import hysteresis_width as hysteresis_width
    from kramers_grok.analysis.prefactors import prefactor_power as prefactor_power
    from kramers_grok.analysis.prefactors import straight_line_misreading as straight_line_misreading
    from kramers_grok.analysis.survival import escape_rate as escape_rate
    from kramers_grok.analysis.survival import mean_exit_time as mean_exit_time
    from kramers_grok.analysis.survival import survival_curve as survival_curve
    from kramers_grok.core.barrier import Barrier as Barrier
    from kramers_grok.core.landscape import Landscape as Landscape
    from kramers_grok.core.noise import activation_noise as activation_noise
    from kramers_grok.core.noise import per_sample as per_sample
    from kramers_grok.core.region import Region as Region
    from kramers_grok.core.region import beyond as beyond
    from kramers_grok.core.schedules import Cosine as Cosine
    from kramers_grok.core.schedules import Geometric as Geometric
    from kramers_grok.core.schedules import Linear as Linear
    from kramers_grok.core.schedules import Piecewise as Piecewise
    from kramers_grok.core.schedules import WarmRestarts as WarmRestarts
    from kramers_grok.dynamics.growth import growth_rate as growth_rate
    from kramers_grok.dynamics.langevin import Fused as Fused
    from kramers_grok.dynamics.langevin import Langevin as Langevin
    from kramers_grok.dynamics.langevin import TorchSDE as TorchSDE
    from kramers_grok.dynamics.minibatch_sde import Minibatches as Minibatches
    from kramers_grok.dynamics.noise_temperature import gradient_noise_temperature as gradient_noise_temperature
    from kramers_grok.dynamics.optimizers import Adam as Adam
    from kramers_grok.dynamics.optimizers import AdamW as AdamW
    from kramers_grok.dynamics.optimizers import GradientDescent as GradientDescent
    from kramers_grok.dynamics.optimizers import Momentum as Momentum
    from kramers_grok.dynamics.sampling import ByMoments as ByMoments
    from kramers_grok.dynamics.sampling import BySamples as BySamples
    from kramers_grok.dynamics.sampling import FullBatch as FullBatch
    from kramers_grok.dynamics.sampling import ShuffledEpochs as ShuffledEpochs
    from kramers_grok.dynamics.sampling import WithoutReplacement as WithoutReplacement
    from kramers_grok.dynamics.sampling import WithReplacement as WithReplacement
    from kramers_grok.dynamics.sgd import SGD as SGD
    from kramers_grok.dynamics.stationary import stationary_temperature as stationary_temperature
    from kramers_grok.dynamics.tracing import trace as trace
    from kramers_grok.dynamics.transverse import transverse_growth as transverse_growth
    from kramers_grok.dynamics.underdamped import UnderdampedLangevin as UnderdampedLangevin
    from kramers_grok.escape.first_passage import first_passage as first_passage
    from kramers_grok.escape.protocols import Settling as Settling
    from kramers_grok.escape.protocols import control as control
    from kramers_grok.escape.protocols import find_states as find_states
    from kramers_grok.escape.protocols import hysteresis_area as hysteresis_area
    from kramers_grok.escape.protocols import hysteresis_loop as hysteresis_loop
    from kramers_grok.escape.protocols import ramp as ramp
    from kramers_grok.escape.protocols import sweep as sweep
    from kramers_grok.escape.protocols import trap_and_release as trap_and_release
    from kramers_grok.escape.scores import LayerAmplitudes as LayerAmplitudes
    from kramers_grok.escape.scores import ResidualFeature as ResidualFeature
    from kramers_grok.escape.splitting import splitting as splitting
    from kramers_grok.landscape.barriers import escape_barrier as escape_barrier
    from kramers_grok.landscape.barriers import find_barrier as find_barrier
    from kramers_grok.landscape.explore import explore as explore
    from kramers_grok.landscape.points import find_minima as find_minima
    from kramers_grok.landscape.points import find_minimum as find_minimum
    from kramers_grok.landscape.potential_theory.capacity import capacity_rate as capacity_rate
    from kramers_grok.landscape.symmetries.invariant_sets import invariant_set as invariant_set
    from kramers_grok.landscape.symmetries.symmetry import symmetry_of as symmetry_of
    from kramers_grok.models.activations import GELU as GELU
    from kramers_grok.models.activations import Identity as Identity
    from kramers_grok.models.activations import Quadratic as Quadratic
    from kramers_grok.models.activations import ReLU as ReLU
    from kramers_grok.models.activations import Softplus as Softplus
    from kramers_grok.models.activations import Tanh as Tanh
    from kramers_grok.models.data import autoencoding as autoencoding
    from kramers_grok.models.data import digits as digits
    from kramers_grok.models.data import finite as finite
    from kramers_grok.models.data import linear_teacher_data as linear_teacher_data
    from kramers_grok.models.data import modular_addition as modular_addition
    from kramers_grok.models.data import population as population
    from kramers_grok.models.data import subsample as subsample
    from kramers_grok.models.data import teacher as teacher
    from kramers_grok.models.data import whitened as whitened
    from kramers_grok.models.deep_linear import DeepLinearNetwork as DeepLinearNetwork
    from kramers_grok.models.diagonal import DiagonalNetwork as DiagonalNetwork
    from kramers_grok.models.mlp import MLP as MLP
    from kramers_grok.models.module import ModuleModel as ModuleModel
    from kramers_grok.studies.attribution import attribution as attribution
    from kramers_grok.studies.diagnosis import diagnose as diagnose
    from kramers_grok.studies.escape.study import EscapeStudy as EscapeStudy
    from kramers_grok.studies.results.verdicts import judge as judge
    from kramers_grok.studies.running.executors import Workers as Workers
    from kramers_grok.studies.running.runner import run_study as run_study
    from kramers_grok.studies.running.study import read_study as read_study
    from kramers_grok.theory.action_cumulants import EmpiricalCumulants as EmpiricalCumulants
    from kramers_grok.theory.action_cumulants import GaussianCumulants as GaussianCumulants
    from kramers_grok.theory.control import design_schedule as design_schedule
    from kramers_grok.theory.deep_linear import DeepLinearChain as DeepLinearChain
    from kramers_grok.theory.deep_linear import Mode as Mode
    from kramers_grok.theory.diffusion_limit import diffusion_limit_departure as diffusion_limit_departure
    from kramers_grok.theory.diffusion_limit import trusted_lr_over_batch as trusted_lr_over_batch
    from kramers_grok.theory.discrete_chain import discrete_exit_time as discrete_exit_time
    from kramers_grok.theory.discrete_chain import sgd_exit_time as sgd_exit_time
    from kramers_grok.theory.exit_grids import landscape_exit_times as landscape_exit_times
    from kramers_grok.theory.exit_grids import mode_exit_times as mode_exit_times
    from kramers_grok.theory.exit_times import exit_time as exit_time
    from kramers_grok.theory.exit_times import lr_over_batch_for as lr_over_batch_for
    from kramers_grok.theory.exit_times import temperature_for as temperature_for
    from kramers_grok.theory.hysteresis import predicted_loop as predicted_loop
    from kramers_grok.theory.large_deviations import ModeHamiltonian as ModeHamiltonian
    from kramers_grok.theory.large_deviations import forgetting_laws as forgetting_laws
    from kramers_grok.theory.large_deviations import learning_laws as learning_laws
    from kramers_grok.theory.large_deviations import quasi_potential as quasi_potential
    from kramers_grok.theory.minibatch import MinibatchNoise as MinibatchNoise
    from kramers_grok.theory.minibatch import minibatch_log_factor as minibatch_log_factor
    from kramers_grok.theory.minimum_action import ChainHamiltonian as ChainHamiltonian
    from kramers_grok.theory.minimum_action import DiffusionHamiltonian as DiffusionHamiltonian
    from kramers_grok.theory.minimum_action import minimum_action_path as minimum_action_path
    from kramers_grok.theory.momentum import HeavyBall as HeavyBall
    from kramers_grok.theory.phases import FeatureSpectrum as FeatureSpectrum
    from kramers_grok.theory.plans import BatchSizeKnob as BatchSizeKnob
    from kramers_grok.theory.plans import LearningRateKnob as LearningRateKnob
    from kramers_grok.theory.plans import Plan as Plan
    from kramers_grok.theory.plans import Setting as Setting
    from kramers_grok.theory.plans import WeightDecayKnob as WeightDecayKnob
    from kramers_grok.theory.radial import RadialFreeEnergy as RadialFreeEnergy
    from kramers_grok.theory.radial import critical_width as critical_width
    from kramers_grok.theory.radial import entropic_spinodal as entropic_spinodal
    from kramers_grok.theory.radial import radial_rate as radial_rate
    from kramers_grok.theory.radial_minibatch import radial_minibatch_log_factor as radial_minibatch_log_factor
    from kramers_grok.theory.ramps import Ramp as Ramp
    from kramers_grok.theory.ramps import adiabatic_ramp as adiabatic_ramp
    from kramers_grok.theory.ramps import driven_ramp as driven_ramp
    from kramers_grok.theory.ramps import ramp_loop as ramp_loop
    from kramers_grok.theory.rates import eyring_kramers_rate as eyring_kramers_rate
    from kramers_grok.theory.rates import kramers_rate as kramers_rate
    from kramers_grok.theory.saddles import MatrixNetwork as MatrixNetwork
    from kramers_grok.theory.samplers import sampler_factor as sampler_factor
    from kramers_grok.theory.subsampling import Subsample as Subsample
    from kramers_grok.theory.turnover import turnover_rate as turnover_rate
    from kramers_grok.theory.two_state import two_state_rates as two_state_rates

_ROOMS = {
    "analysis.arrhenius": ("arrhenius_fit", "compare_laws"),
    "analysis.budget": ("error_budget",),
    "analysis.compare": ("compare",),
    "analysis.exponents": ("exponent_fit",),
    "analysis.extrapolation": ("extrapolated_ratio",),
    "analysis.law_choice": ("choose_law",),
    "analysis.laws": ("ExitTimes", "fit_laws"),
    "analysis.loop_width": ("hysteresis_width",),
    "analysis.prefactors": ("prefactor_power", "straight_line_misreading"),
    "analysis.survival": ("escape_rate", "mean_exit_time", "survival_curve"),
    "core.barrier": ("Barrier",),
    "core.landscape": ("Landscape",),
    "core.noise": ("activation_noise", "per_sample"),
    "core.region": ("Region", "beyond"),
    "core.schedules": ("Cosine", "Geometric", "Linear", "Piecewise", "WarmRestarts"),
    "dynamics.growth": ("growth_rate",),
    "dynamics.langevin": ("Fused", "Langevin", "TorchSDE"),
    "dynamics.minibatch_sde": ("Minibatches",),
    "dynamics.noise_temperature": ("gradient_noise_temperature",),
    "dynamics.optimizers": ("Adam", "AdamW", "GradientDescent", "Momentum"),
    "dynamics.sampling": (
        "ByMoments",
        "BySamples",
        "FullBatch",
        "ShuffledEpochs",
        "WithReplacement",
        "WithoutReplacement",
    ),
    "dynamics.sgd": ("SGD",),
    "dynamics.stationary": ("stationary_temperature",),
    "dynamics.tracing": ("trace",),
    "dynamics.transverse": ("transverse_growth",),
    "dynamics.underdamped": ("UnderdampedLangevin",),
    "escape.first_passage": ("first_passage",),
    "escape.protocols": (
        "Settling",
        "control",
        "find_states",
        "hysteresis_area",
        "hysteresis_loop",
        "ramp",
        "sweep",
        "trap_and_release",
    ),
    "escape.scores": ("LayerAmplitudes", "ResidualFeature"),
    "escape.splitting": ("splitting",),
    "landscape.barriers": ("escape_barrier", "find_barrier"),
    "landscape.potential_theory.capacity": ("capacity_rate",),
    "landscape.explore": ("explore",),
    "landscape.symmetries.invariant_sets": ("invariant_set",),
    "landscape.points": ("find_minima", "find_minimum"),
    "landscape.symmetries.symmetry": ("symmetry_of",),
    "models.activations": ("GELU", "Identity", "Quadratic", "ReLU", "Softplus", "Tanh"),
    "models.data": (
        "autoencoding",
        "digits",
        "finite",
        "linear_teacher_data",
        "modular_addition",
        "population",
        "subsample",
        "teacher",
        "whitened",
    ),
    "models.deep_linear": ("DeepLinearNetwork",),
    "models.diagonal": ("DiagonalNetwork",),
    "models.mlp": ("MLP",),
    "models.module": ("ModuleModel",),
    "studies.attribution": ("attribution",),
    "studies.diagnosis": ("diagnose",),
    "studies.escape.study": ("EscapeStudy",),
    "studies.running.executors": ("Workers",),
    "studies.running.runner": ("run_study",),
    "studies.running.study": ("read_study",),
    "studies.results.verdicts": ("judge",),
    "theory.action_cumulants": ("EmpiricalCumulants", "GaussianCumulants"),
    "theory.control": ("design_schedule",),
    "theory.deep_linear": ("DeepLinearChain", "Mode"),
    "theory.diffusion_limit": ("diffusion_limit_departure", "trusted_lr_over_batch"),
    "theory.discrete_chain": ("discrete_exit_time", "sgd_exit_time"),
    "theory.exit_grids": ("landscape_exit_times", "mode_exit_times"),
    "theory.exit_times": ("exit_time", "lr_over_batch_for", "temperature_for"),
    "theory.hysteresis": ("predicted_loop",),
    "theory.large_deviations": ("ModeHamiltonian", "forgetting_laws", "learning_laws", "quasi_potential"),
    "theory.minibatch": ("MinibatchNoise", "minibatch_log_factor"),
    "theory.minimum_action": ("ChainHamiltonian", "DiffusionHamiltonian", "minimum_action_path"),
    "theory.momentum": ("HeavyBall",),
    "theory.phases": ("FeatureSpectrum",),
    "theory.plans": ("BatchSizeKnob", "LearningRateKnob", "Plan", "Setting", "WeightDecayKnob"),
    "theory.radial": ("RadialFreeEnergy", "critical_width", "entropic_spinodal", "radial_rate"),
    "theory.radial_minibatch": ("radial_minibatch_log_factor",),
    "theory.ramps": ("Ramp", "adiabatic_ramp", "driven_ramp", "ramp_loop"),
    "theory.rates": ("eyring_kramers_rate", "kramers_rate"),
    "theory.saddles": ("MatrixNetwork",),
    "theory.samplers": ("sampler_factor",),
    "theory.subsampling": ("Subsample",),
    "theory.turnover": ("turnover_rate",),
    "theory.two_state": ("two_state_rates",),
}
_HOME = {name: module for module, names in _ROOMS.items() for name in names}

__version__ = "0.1.0"
__all__ = [*sorted(_HOME), "plots"]


def __getattr__(name: str) -> Any:
    if name == "plots":
        return import_module("kramers_grok.plots")
    if name in _HOME:
        return getattr(import_module(f"kramers_grok.{_HOME[name]}"), name)
    raise AttributeError(f"module 'kramers_grok' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*__all__, "__version__"])
