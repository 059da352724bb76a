"""Kinesis as an event source: the connector behind ``KinesisTrigger``."""

from triggerhub_kinesis.connector import KinesisConnector
from triggerhub_kinesis.source import KinesisSource

__all__ = ["KinesisConnector", "KinesisSource"]
