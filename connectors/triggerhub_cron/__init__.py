"""The cron connector: ticks at the times that a schedule names."""

from triggerhub_cron.connector import CronConnector
from triggerhub_cron.source import CronSource

__all__ = ["CronConnector", "CronSource"]
