"""Kafka topics as event sources: the connector behind ``KafkaTrigger``."""

from triggerhub_kafka.connector import KafkaConnector
from triggerhub_kafka.source import KafkaSource, TopicForLetters

__all__ = ["KafkaConnector", "KafkaSource", "TopicForLetters"]
