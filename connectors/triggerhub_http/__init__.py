"""The HTTP connector: requests to functions, and their answers back."""

from triggerhub_http.connector import HTTPConnector
from triggerhub_http.source import HTTPSource

__all__ = ["HTTPConnector", "HTTPSource"]
