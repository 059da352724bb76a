"""What an error says to a user, in one sentence."""

from __future__ import annotations


def leaf(error: BaseException) -> BaseException:
    """The first exception inside a group, at any depth; of one that is no group itself."""
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error


def sentence(errors: BaseException) -> str:
    """Of the first one inside."""
    error = leaf(errors)
    if isinstance(error, OSError) and error.strerror:
        place = f"{error.filename}: " if error.filename else ""
        return f"{place}{error.strerror}"
    return str(error) or type(error).__name__
