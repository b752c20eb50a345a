"""Settings of the test suite proper."""

from hypothesis import HealthCheck, settings

# Derandomised: a red build is red again when it is looked at. No deadline: the first example may compile a kernel.
settings.register_profile(
    "kramers_grok",
    derandomize=True,
    deadline=None,
    max_examples=50,
    suppress_health_check=[HealthCheck.too_slow],
)
settings.load_profile("kramers_grok")
