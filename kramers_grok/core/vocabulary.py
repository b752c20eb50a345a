"""The vocabulary of results: name, units and long name of every variable and coordinate."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from kramers_grok.core.exceptions import InvalidParameterError

__all__ = ["VARIABLES", "Variable", "describe"]


@dataclass(frozen=True)
class Variable:
    """Name, units ("1" where there are none) and long name of a quantity in a result."""

    name: str
    units: str
    long_name: str


VARIABLES: Mapping[str, Variable] = {
    v.name: v
    for v in (
        Variable("replica", "1", "replica number"),
        Variable("exit_time", "time", "exit time"),
        Variable("exit_step", "steps", "step at which the replica left"),
        Variable("escaped", "1", "escaped before the horizon"),
        Variable("engine", "1", "engine"),
        Variable("temperature", "loss", "temperature T"),
        Variable("lr", "time/step", "learning rate η"),
        Variable("batch_size", "samples", "batch size B"),
        Variable("lr_over_batch", "time/sample", "learning rate over batch size η/B"),
        Variable("weight_decay", "loss/weight²", "weight decay λ"),
        Variable("depth", "layers", "depth D"),
        Variable("singular_value", "1", "teacher singular value σ"),
        Variable("input_variance", "1", "input variance q"),
        Variable("label_noise", "1", "label noise s"),
        Variable("activation_noise", "activation", "activation noise s_h"),
        Variable("noise_std", "loss/weight", "per-sample gradient noise g"),
        Variable("dt", "time", "time step"),
        Variable("horizon", "time", "censoring horizon"),
        Variable("max_time", "time", "longest time allowed"),
        Variable("target_threshold", "1", "order parameter at the target's edge"),
        Variable("order_parameter", "1", "order parameter m"),
        Variable("max_score", "1", "highest order parameter reached"),
        Variable("friction", "1/time", "friction γ"),
        Variable("width", "units", "hidden width h"),
        Variable("n_samples", "samples", "size of the data set N"),
        Variable("amplitude", "weight", "amplitude a"),
        Variable("free_energy", "loss", "free energy F"),
        Variable("barrier", "loss", "barrier height ΔF"),
        Variable("barrier_over_temperature", "1", "barrier over temperature ΔF/T"),
        Variable("loss", "loss", "loss"),
        Variable("population_loss", "loss", "population error"),
        Variable("product_singular_value", "1", "singular value of the end-to-end map"),
        Variable("effective_rank", "1", "rank of the end-to-end map"),
        Variable("layer_amplitude", "weight", "amplitude of a feature in a layer"),
        Variable("layer_norm", "weight", "norm of a layer"),
        Variable("imbalance", "weight²", "imbalance of neighbouring layers"),
        Variable("hidden_layer", "1", "hidden layer"),
        Variable("growth_rate", "1/time", "growth rate of unused directions Λ"),
        Variable("growth_rate_error", "1/time", "standard error of the growth rate"),
        Variable("growth_rate_lower", "1/time", "lower end of the growth rate's confidence interval"),
        Variable("growth_rate_upper", "1/time", "upper end of the growth rate's confidence interval"),
        Variable("growth_spread", "1/time", "half the variance of the logarithm of the amplitude per time"),
        Variable("tail_exponent", "1", "exponent −Λ/spread of the amplitude's tail"),
        Variable("block_growth_rate", "1/time", "growth rate in a block of time"),
        Variable("block", "1", "block of time"),
        Variable("verdict", "1", "what becomes of unused directions"),
        Variable("gain", "weight⁴", "largest eigenvalue of the squared layers above the first"),
        Variable("mean_square_factor", "1", "factor of a mean square deviation in one step"),
        Variable("measured_mean_square_factor", "1", "factor of a mean square deviation in one step, measured"),
        Variable("component", "1", "singular value number"),
        Variable("direction", "1", "direction"),
        Variable("noise_temperature", "loss", "temperature of the gradient noise"),
        Variable("noise_temperature_lower", "loss", "lower end of the confidence interval"),
        Variable("noise_temperature_upper", "loss", "upper end of the confidence interval"),
        Variable("predicted_noise_temperature", "loss", "temperature η c/(2B) of the gradient noise, predicted"),
        Variable("noise_temperature_ratio", "1", "measured over predicted temperature"),
        Variable("stationary_temperature", "loss", "curvature times variance around a minimum"),
        Variable("stationary_temperature_lower", "loss", "lower end of the confidence interval"),
        Variable("stationary_temperature_upper", "loss", "upper end of the confidence interval"),
        Variable("predicted_stationary_temperature", "loss", "stationary temperature predicted for the sampler"),
        Variable("stationary_temperature_ratio", "1", "measured over predicted temperature"),
        Variable("curvature", "loss/weight²", "curvature along the direction"),
        Variable("sampler_factor", "1", "temperature over that of draws with replacement"),
        Variable("seen", "1", "steps at which the run is seen"),
        Variable("step", "steps", "step"),
        Variable("time", "time", "time"),
        Variable("feature", "1", "feature"),
        Variable("spinodal", "loss/weight²", "spinodal weight decay"),
        Variable("binodal", "loss/weight²", "binodal weight decay"),
        Variable("n_states", "1", "number of metastable states"),
        Variable("survival", "1", "survival probability"),
        Variable("mean_exit_time", "time", "mean exit time"),
        Variable("relative_error", "1", "relative numerical error"),
        Variable("escape_rate", "1/time", "escape rate"),
        Variable("lower", "time", "lower end of the confidence interval"),
        Variable("upper", "time", "upper end of the confidence interval"),
        Variable("standard_error", "time", "standard error"),
        Variable("n_escaped", "1", "replicas that escaped"),
        Variable("n_replicas", "1", "replicas"),
        Variable("n_at_risk", "1", "replicas at risk"),
        Variable("difference_se", "1", "difference to the theory in standard errors"),
        Variable("pairwise_difference_se", "1", "difference between two engines in standard errors"),
        Variable("ks_p_value", "1", "p-value against the predicted survival (count and KS)"),
        Variable("logrank_p_value", "1", "p-value against the predicted hazard (one-sample log-rank)"),
        Variable("exponentiality_p_value", "1", "p-value of exponentiality"),
        Variable("repeat", "1", "independent repeat"),
        Variable("level", "1", "level of the score"),
        Variable("asymptotic_time", "time", "asymptotic mean exit time"),
        Variable("predicted_time", "time", "mean exit time predicted for the run as it was made"),
        Variable("numerical_error", "time", "numerical error of the predicted time"),
        Variable("total_error", "time", "measured minus asymptotic"),
        Variable("asymptotic_error", "time", "error of the asymptotic formula"),
        Variable("time_step_error", "time", "effect of the time step"),
        Variable("monitoring_error", "time", "effect of watching at the steps only"),
        Variable("minibatch_error", "time", "effect of the minibatches' own noise"),
        Variable("statistical_error", "time", "measured minus predicted"),
        Variable("unexplained_error", "time", "measured minus the best prediction, not separated further"),
        Variable("probability", "1", "probability to escape before returning to the well"),
        Variable("level_probability", "1", "share that reaches the level from the one below"),
        Variable("loop_time", "time", "mean duration of a loop out of the well and back"),
        Variable("direct_time", "time", "mean time spent in the directly simulated loops"),
        Variable("direct_survival", "1", "share that did not escape in the directly simulated loops"),
        Variable("n_entries", "1", "entries that the climb starts from"),
        Variable("repeat_exit_time", "time", "mean exit time from one repeat alone"),
        Variable("reactive_time", "time", "mean duration of the last passage to the target"),
        Variable("replica_steps", "steps", "steps of all replicas together"),
        Variable("pilot_steps", "steps", "steps of all replicas in the pilot run"),
        Variable("well_score", "1", "score at or below which a replica is back in the well"),
        Variable("cost", "steps", "steps of all replicas for the relative error wanted"),
        Variable("brute_force_cost", "steps", "steps of brute force for the same error"),
        Variable("entry_score", "1", "score at which a replica begins to climb"),
        Variable("layer", "1", "layer"),
        Variable("trap_weight_decay", "loss/weight²", "weight decay λ in the trap"),
        Variable("trap_time", "time", "time spent in the trap"),
        Variable("trap_order_parameter", "1", "order parameter at the trap's end"),
        Variable("trap_amplitude", "weight", "amplitude of the unused directions at the trap's end"),
        Variable("trap_learned", "1", "feature learned in the trap"),
        Variable("train_loss", "loss", "train error"),
        Variable("test_loss", "loss", "test error"),
        Variable("train_accuracy", "1", "share of the train samples named rightly"),
        Variable("test_accuracy", "1", "share of the test samples named rightly"),
        Variable("samples_per_input", "1", "samples per input N/d"),
        Variable("weight_decay_at_exit", "loss/weight²", "weight decay λ at the escape"),
        Variable("ramp_start", "loss/weight²", "weight decay at the ramp's start"),
        Variable("ramp_stop", "loss/weight²", "weight decay at the ramp's end"),
        Variable("ramp_rate", "loss/weight²/time", "rate of the ramp"),
        Variable("schedule", "1", "schedule"),
        Variable("learn_step", "steps", "step at which the replica had learned"),
        Variable("mean_steps", "steps", "mean number of steps to learn, cut at the end"),
        Variable("learned_at_end", "1", "share in the learned state at the end"),
        Variable("final_loss", "loss", "mean population loss at the end"),
        Variable("learned_loss", "loss", "mean population loss of the learned at the end"),
        Variable("samples", "samples", "samples processed"),
        Variable("exact_time", "time", "exact mean exit time in continuous time"),
        Variable("valid", "1", "asymptotic formula within its range"),
        Variable("predicted_mean", "time", "mean exit time predicted for the run as it was made"),
        Variable("predicted_relative_error", "1", "relative numerical error of the predicted time"),
        Variable("ratio", "1", "measured over predicted mean exit time"),
        Variable("ratio_error", "1", "standard error of measured over predicted"),
        Variable("precision", "1", "half width of the confidence interval over the mean"),
        Variable("precision_goal", "1", "half width over the mean that was asked for"),
        Variable("precision_reached", "1", "interval at most as wide as asked for"),
        Variable("confidence", "1", "confidence level of the interval"),
        Variable("burn_in", "time", "time before which escape need not be exponential"),
        Variable("pilot_replicas", "1", "replicas of the pilot stage"),
    )
}
"""Every variable and coordinate a result may carry, by name."""


def describe(name: str) -> dict[str, str]:
    """Return the attributes ``units`` and ``long_name`` of a known variable.

    Raises
    ------
    InvalidParameterError
        If the name is unknown.

    Examples
    --------
    >>> describe("temperature")
    {'units': 'loss', 'long_name': 'temperature T'}
    """
    if name not in VARIABLES:
        raise InvalidParameterError(
            f"`{name}` is not a known variable: results share one vocabulary so that runs can be compared.\n"
            "Pass an xarray.DataArray that has its own attrs `units` and `long_name`, or use one of "
            f"{', '.join(sorted(VARIABLES))}."
        )
    variable = VARIABLES[name]
    return {"units": variable.units, "long_name": variable.long_name}
