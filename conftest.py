"""For every test of the project."""

import asyncio

import pytest
from hypothesis import HealthCheck, settings

# How fast an example runs says something about the machine only.
settings.register_profile("calm", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("calm")

# Without this, pytest-asyncio asks the policy of Python 3.11 for a current loop, which makes one
# that nobody closes: a ResourceWarning, and warnings are errors here.
asyncio.set_event_loop(None)


@pytest.hookimpl(trylast=True)
def pytest_configure(config: pytest.Config) -> None:
    """Say what failed when it does, not only at the end of a quarter of an hour."""
    reporter = config.pluginmanager.get_plugin("terminalreporter")
    if reporter is not None:
        config.pluginmanager.register(Failures(reporter), "failures at once")


class Failures:
    """Their names, as they come."""

    def __init__(self, reporter: pytest.TerminalReporter) -> None:
        self._reporter = reporter

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.failed:
            self._reporter.write(f"\nfailed: {report.nodeid}\n", red=True)
