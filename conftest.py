"""For every test of the project."""

import asyncio

# Without this, pytest-asyncio asks the policy of Python 3.11 for a current loop, which makes one
# that nobody closes: a ResourceWarning, and warnings are errors here.
asyncio.set_event_loop(None)
