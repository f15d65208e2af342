"""How long the property tests run: a little with every test run, for long with `make fuzz`."""

from hypothesis import HealthCheck, settings

# Shared machines are slow now and then: what a test may take is pytest's to say.
settings.register_profile(
    "default", deadline=None, max_examples=50, suppress_health_check=[HealthCheck.too_slow]
)
settings.register_profile("fuzz", settings.get_profile("default"), max_examples=5_000)
settings.load_profile("default")
