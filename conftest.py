"""For every test of the project."""

import asyncio

from hypothesis import HealthCheck, settings

# How fast an example runs says something about the machine only.
settings.register_profile("calm", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("calm")

# Without this, pytest-asyncio asks the policy of Python 3.11 for a current loop, which makes one
# that nobody closes: a ResourceWarning, and warnings are errors here.
asyncio.set_event_loop(None)
