"""What went wrong, in words for the person who runs the hub."""

from __future__ import annotations

from collections.abc import Iterable

from botocore import exceptions as aws

from triggerhub.connector import Problem

_AWAY = (
    aws.HTTPClientError,
    aws.ConnectionError,
    OSError,  # TimeoutError among them
)

# What Kinesis and STS answer, by their error codes ("Common Error Types" and each operation's own
# in their API references). Texts that AWS may fill with a request's signed headers are not
# repeated: a session token is one of them.
_ANSWERS: tuple[tuple[Problem, str], ...] = (
    (
        Problem(
            "NotAuthorized",
            "AWS refuses {operation} on {subject}: grant it to the hub's identity in IAM ({said})",
        ),
        """AccessDenied AccessDeniedException UnauthorizedOperation NotAuthorized OptInRequired
        SubscriptionRequiredException""",
    ),
    (
        Problem(
            "AuthenticationFailed",
            "AWS does not know the access key in {region}: check its id, and, if it is a temporary "
            "one, its session token",
        ),
        """UnrecognizedClientException InvalidClientTokenId InvalidAccessKeyId AuthFailure
        MissingAuthenticationToken MissingAuthenticationTokenException""",
    ),
    (
        Problem(
            "AuthenticationFailed",
            "AWS refuses the signature: the secret access key does not belong to the access key "
            "id, or this machine's clock is wrong",
        ),
        """SignatureDoesNotMatch InvalidSignatureException IncompleteSignature
        IncompleteSignatureException""",
    ),
    (
        Problem("AuthenticationFailed", "AWS STS refuses {operation}: {said}"),
        """InvalidIdentityToken InvalidIdentityTokenException IDPRejectedClaim
        IDPCommunicationError RegionDisabledException""",
    ),
    (
        Problem("ClockWrong", "AWS refuses the time of the request: set this machine's clock"),
        "RequestExpired RequestTimeTooSkewed RequestInTheFuture",
    ),
    (
        Problem("CredentialsExpired", "the credentials are temporary and have expired: renew them"),
        "ExpiredToken ExpiredTokenException TokenRefreshRequired",
    ),
    (
        Problem(
            "StreamNotFound",
            "{subject} does not exist in {region}, or belongs to another account ({said})",
        ),
        "ResourceNotFoundException",
    ),
    (
        Problem(
            "StreamNotActive",
            "{subject} is being created, deleted or changed: it is tried again ({said})",
        ),
        "ResourceInUseException",
    ),
    (
        Problem(
            "Throttled",
            "{subject} is read by more than it allows, 5 reads and 2 MB a second for each shard: "
            "have fewer consumers, or more shards ({said})",
        ),
        "ProvisionedThroughputExceededException",
    ),
    (
        Problem(
            "Throttled",
            "AWS limits how often {operation} is called for {subject}: it is called less often "
            "({said})",
        ),
        """LimitExceededException KMSThrottlingException Throttling ThrottlingException
        ThrottledException RequestThrottled RequestThrottledException RequestLimitExceeded
        TooManyRequestsException SlowDown BandwidthLimitExceeded PriorRequestNotComplete""",
    ),
    (
        Problem(
            "NotAuthorized",
            "AWS KMS refuses to decrypt {subject}: grant kms:Decrypt on its key to the hub's "
            "identity ({said})",
        ),
        "KMSAccessDeniedException",
    ),
    (
        Problem(
            "EncryptionKeyUnavailable",
            "{subject} cannot be decrypted: enable its KMS key, or restore it ({said})",
        ),
        "KMSDisabledException KMSInvalidStateException KMSNotFoundException KMSOptInRequired",
    ),
    (
        Problem(
            "IteratorExpired",
            "{subject} was not read for five minutes: it is read from its checkpoint on",
        ),
        "ExpiredIteratorException ExpiredNextTokenException",
    ),
)
_BY_CODE = {code: problem for problem, codes in _ANSWERS for code in codes.split()}
_THROTTLES = frozenset(code for code, problem in _BY_CODE.items() if problem.reason == "Throttled")

_NO_CREDENTIALS = (
    aws.NoCredentialsError,
    aws.PartialCredentialsError,
    aws.CredentialRetrievalError,
    aws.MetadataRetrievalError,
    aws.NoAuthTokenError,
    aws.TokenRetrievalError,
    aws.SSOError,
    aws.LoginError,
    aws.RefreshWithMFAUnsupportedError,
)
_BAD_PROFILE = (
    aws.ProfileNotFound,
    aws.ConfigParseError,
    aws.ConfigNotFound,
    aws.InvalidConfigError,
    aws.UnknownCredentialError,
)
_BAD_REGION = (
    aws.InvalidRegionError,
    aws.UnknownRegionError,
    aws.UnknownEndpointError,
    aws.ServiceNotInRegionError,
    aws.EndpointProviderError,
)
_LONGEST = 300


def code(error: BaseException) -> str:
    """Of an answer of AWS, such as ``ExpiredIteratorException``; empty: it is no answer."""
    if isinstance(error, aws.ClientError):
        return str(error.response.get("Error", {}).get("Code", ""))
    return ""


def is_throttled(error: BaseException) -> bool:
    """Whether it cures itself, if one asks less often."""
    return code(error) in _THROTTLES


def is_away(error: BaseException) -> bool:
    """Whether nothing answers, or something that cannot do its work now: says nothing about the
    request."""
    if isinstance(error, aws.ClientError):
        return code(error) not in _BY_CODE and _status(error) >= 500
    return isinstance(error, _AWAY)


def explain(error: Exception, *, stream: str, region: str = "", endpoint: str = "") -> Problem:
    """Why something of a stream could not be done. ``region`` and ``endpoint`` as far as known."""
    if isinstance(error, aws.ClientError):
        return _of_answer(error, stream, region, endpoint)
    said = _said(str(error))
    if isinstance(error, aws.NoRegionError):
        return Problem(
            "NoRegion", "no AWS region is known: set spec.source.region, or AWS_REGION of the hub"
        )
    if isinstance(error, _BAD_REGION):
        return Problem("NoRegion", f"there is no Kinesis in region {region or '?'}: {said}")
    if isinstance(error, _BAD_PROFILE):
        return Problem("NoCredentials", f"the AWS configuration of the hub is at fault: {said}")
    if isinstance(error, _NO_CREDENTIALS):
        return Problem(
            "NoCredentials",
            "no AWS credentials: set spec.source.credentials, or give the hub an identity through "
            f"the AWS chain ({said})",
        )
    if isinstance(error, aws.SSLError):
        return Problem("TLSFailed", f"{endpoint or 'AWS'}: TLS failed: {_cause(error)}")
    if isinstance(error, aws.ConnectTimeoutError | aws.ReadTimeoutError | TimeoutError):
        return _unreachable(endpoint, "no answer in time")
    if isinstance(error, _AWAY):
        return _unreachable(endpoint, _cause(error))
    return Problem("KinesisError", f"{stream}: {type(error).__name__}: {said}")


def not_active(stream: str, status: str) -> Problem:
    """What ``StreamStatus`` says of a stream that cannot be read now: CREATING or DELETING."""
    if status == "CREATING":
        return Problem(
            "StreamCreating", f"stream {stream} is being created: it is read when it is there"
        )
    if status == "DELETING":
        return Problem(
            "StreamDeleting",
            f"stream {stream} is being deleted: make it anew, or delete the trigger",
        )
    return Problem("StreamNotActive", f"stream {stream} is {status}: it is tried again")


def _of_answer(error: aws.ClientError, stream: str, region: str, endpoint: str) -> Problem:
    found = code(error)
    said = _said(str(error.response.get("Error", {}).get("Message") or ""))
    if found == "ResourceInUseException":
        for status in ("CREATING", "DELETING"):
            # "… not ACTIVE, instead in state CREATING"
            if said.rstrip(".").endswith(status):
                return not_active(stream, status)
    status_code = _status(error)
    operation = error.operation_name
    known = _BY_CODE.get(found)
    if known is not None:
        text = known.text.format(
            said=said or found,
            # STS, too, is asked: for a role.
            subject="the role" if operation.startswith("AssumeRole") else f"stream {stream}",
            region=region or "its region",
            operation=operation,
        )
        return Problem(known.reason, text)
    if status_code >= 500:
        text = f"{endpoint or 'AWS'} answers {operation} with {status_code} {said}".rstrip()
        return Problem("EndpointUnavailable", text)
    text = f"{operation} on stream {stream} is refused with {found or status_code}: {said}"
    return Problem("RequestRefused", text)


def _status(error: aws.ClientError) -> int:
    found = error.response.get("ResponseMetadata", {}).get("HTTPStatusCode")
    return found if isinstance(found, int) else 0


def _unreachable(endpoint: str, why: str) -> Problem:
    return Problem("EndpointUnreachable", f"no answer from {endpoint or 'AWS'}: {why}")


def _cause(error: BaseException) -> str:
    """The system's own words, where there are any: botocore repeats the URL instead."""
    inner = error.kwargs.get("error") if isinstance(error, aws.BotoCoreError) else None
    return _said(_first((inner, error.__cause__, error)))


def _first(errors: Iterable[object]) -> str:
    for error in errors:
        if error is not None and str(error):
            return str(error)
    return type(error).__name__


def _said(text: str) -> str:
    """On one line, and not longer than a condition bears."""
    line = " ".join(text.split())
    return line if len(line) <= _LONGEST else line[: _LONGEST - 1] + "…"
