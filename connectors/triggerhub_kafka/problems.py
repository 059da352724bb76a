"""What went wrong, in words for the person who runs the hub."""

from __future__ import annotations

from collections.abc import Iterable

from aiokafka import TopicPartition, errors

from triggerhub.connector import Problem, SpecError
from triggerhub_kafka.naming import FencedInstanceIdError
from triggerhub_kafka.refusal import LoginFailed, TLSFailed, TokenUnavailable


class ListenError(Exception):
    """Listening failed; its text says what was found and what to do."""


class ExtraMissingError(ListenError):
    """What the manifest asks for needs packages that are not installed."""

    reason = "ExtraNotInstalled"

    def __init__(self, field: str, extra: str) -> None:
        super().__init__(f"{field} needs: pip install 'triggerhub[{extra}]'")


_REASONS: tuple[tuple[type[Exception] | tuple[type[Exception], ...], str, str], ...] = (
    (
        errors.UnsupportedCodecError,
        "CodecMissing",
        "a batch's codec is not installed: pip install 'triggerhub[kafka]' ({error})",
    ),
    (errors.CorruptRecordException, "CorruptRecord", "a record batch is damaged: {error}"),
    (errors.RecordTooLargeError, "RecordTooLarge", "{error}"),
    (
        errors.TopicAuthorizationFailedError,
        "TopicNotAuthorized",
        "the hub may not read {subject}: it needs Describe and Read on the topic",
    ),
    (
        errors.GroupAuthorizationFailedError,
        "GroupNotAuthorized",
        "the hub may not use consumer group {group}: it needs Read on the group",
    ),
    (
        FencedInstanceIdError,
        "InstanceFenced",
        (
            "another process is in consumer group {group} under this one's name, {name}, and took "
            "its partitions over: give each hub a data directory of its own (a copy of one holds "
            "its name, in the file replica); this one goes on when the other has left the group"
        ),
    ),
    (errors.ClusterAuthorizationFailedError, "ClusterNotAuthorized", "{error}"),
    (
        (
            errors.SaslAuthenticationFailed,
            errors.AuthenticationFailedError,
            errors.AuthenticationMethodNotSupported,
            errors.UnsupportedSaslMechanismError,
        ),
        "AuthenticationFailed",
        "{brokers}: {error}",
    ),
    (
        # A broker that refuses a token answers every other request so, until it closes.
        errors.IllegalSaslStateError,
        "AuthenticationFailed",
        "{brokers} refuse the login: check spec.source.security.sasl ({error})",
    ),
    (LoginFailed, "AuthenticationFailed", "{error}"),
    (TokenUnavailable, "TokenUnavailable", "{error}"),
    (TLSFailed, "TLSFailed", "{error}"),
    (
        errors.InconsistentGroupProtocolError,
        "GroupInUse",
        "consumer group {group} has members of another protocol: choose another group",
    ),
    (
        (errors.IncompatibleBrokerVersion, errors.UnsupportedVersionError),
        "BrokerNotSupported",
        "{brokers}: {error}",
    ),
)


def explain(error: Exception, *, brokers: Iterable[str], group: str) -> Problem:
    """Why the brokers did not do as they were asked. Raises SpecError for what the manifest must
    cure."""
    detail = str(error) or type(error).__name__
    if isinstance(error, errors.InvalidTopicError):
        raise SpecError(f"the broker refuses topic {_subject(error)} as a topic name") from error
    if isinstance(error, errors.InvalidGroupIdError):
        raise SpecError(f"the broker refuses {group!r} as a consumer group") from error
    for kinds, reason, text in _REASONS:
        if isinstance(error, kinds):
            said = text.format(
                error=detail,
                brokers=", ".join(brokers),
                group=group,
                subject=f"topic {_subject(error)}",
                name=_subject(error),
            )
            return Problem(reason, said)
    if isinstance(error, errors.KafkaTimeoutError | OSError) or getattr(error, "retriable", False):
        # aiokafka has tried again by itself until then.
        where = f"no Kafka broker answers at {', '.join(brokers)}"
        return Problem("BrokerUnreachable", f"{where}: {detail}")
    return Problem("KafkaError", f"{type(error).__name__}: {detail}")


def _subject(error: Exception) -> str:
    found = error.args[0] if error.args else "?"
    if isinstance(found, str):
        return found
    if isinstance(found, TopicPartition):
        return str(found.topic)
    if isinstance(found, Iterable):
        return ", ".join(sorted(map(str, found)))
    return str(found)
