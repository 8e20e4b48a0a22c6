"""No claim of a test here is about speed, so Hypothesis does not judge by it: a busy machine is no failure."""

from hypothesis import HealthCheck, settings

settings.register_profile("whatever_the_machine_does", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("whatever_the_machine_does")
