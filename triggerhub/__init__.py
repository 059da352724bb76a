"""An event-driven trigger hub: every event of every source reaches its function, or is kept."""

__version__ = "0.1.0"
