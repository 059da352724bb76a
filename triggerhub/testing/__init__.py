"""For tests, a plugin author's included: the connector conformance kit and fakes."""

from triggerhub.testing.conformance import (
    Conformance,
    Feature,
    Harness,
    Result,
    Sample,
    check_connector,
)

__all__ = ["Conformance", "Feature", "Harness", "Result", "Sample", "check_connector"]
