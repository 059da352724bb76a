"""NATS as an event source, JetStream and core: the connector behind ``NATSTrigger``."""

from triggerhub_nats.connector import NATSConnector
from triggerhub_nats.source import NATSSource, SubjectForLetters

__all__ = ["NATSConnector", "NATSSource", "SubjectForLetters"]
