"""NATS as an event source, JetStream and core: the connector behind ``NATSTrigger``."""

from triggerhub_nats.connector import NATSConnector
from triggerhub_nats.source import NATSSource

__all__ = ["NATSConnector", "NATSSource"]
