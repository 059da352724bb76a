"""What went wrong with a stream, in words."""

from __future__ import annotations

import pytest
from botocore import exceptions as aws

from triggerhub.connector import Problem
from triggerhub_kinesis import problems

ENDPOINT = "https://kinesis.eu-central-1.amazonaws.com"


def answer(
    code: str, message: str = "as AWS says", operation: str = "GetRecords", status: int = 400
) -> aws.ClientError:
    return aws.ClientError(
        {
            "Error": {"Code": code, "Message": message},
            "ResponseMetadata": {"HTTPStatusCode": status},
        },
        operation,
    )


def explained(error: Exception) -> Problem:
    return problems.explain(error, stream="orders", region="eu-central-1", endpoint=ENDPOINT)


@pytest.mark.parametrize(
    ("code", "reason"),
    [
        ("AccessDeniedException", "NotAuthorized"),
        ("UnrecognizedClientException", "AuthenticationFailed"),
        ("InvalidClientTokenId", "AuthenticationFailed"),
        ("InvalidSignatureException", "AuthenticationFailed"),
        ("InvalidIdentityToken", "AuthenticationFailed"),
        ("RequestExpired", "ClockWrong"),
        ("ExpiredTokenException", "CredentialsExpired"),
        ("ResourceNotFoundException", "StreamNotFound"),
        ("ResourceInUseException", "StreamNotActive"),
        ("ProvisionedThroughputExceededException", "Throttled"),
        ("LimitExceededException", "Throttled"),
        ("KMSThrottlingException", "Throttled"),
        ("KMSAccessDeniedException", "NotAuthorized"),
        ("KMSDisabledException", "EncryptionKeyUnavailable"),
        ("KMSNotFoundException", "EncryptionKeyUnavailable"),
        ("ExpiredIteratorException", "IteratorExpired"),
        ("InvalidArgumentException", "RequestRefused"),
        ("WhatNobodyKnowsException", "RequestRefused"),
    ],
)
def test_each_answer_has_its_reason_and_names_the_stream_or_the_credentials(
    code: str, reason: str
) -> None:
    problem = explained(answer(code))
    assert problem.reason == reason
    assert any(word in problem.text for word in ("orders", "credentials", "key", "clock", "STS"))
    assert "{" not in problem.text


@pytest.mark.parametrize(
    ("said", "reason"),
    [
        ("Stream orders under account 1 not ACTIVE, instead in state CREATING", "StreamCreating"),
        ("Stream orders under account 1 not ACTIVE, instead in state DELETING.", "StreamDeleting"),
        ("Stream orders is not currently ACTIVE or UPDATING.", "StreamNotActive"),
    ],
)
def test_a_stream_that_is_not_there_yet_or_no_more_has_reasons_of_its_own(
    said: str, reason: str
) -> None:
    assert explained(answer("ResourceInUseException", said)).reason == reason


@pytest.mark.parametrize(
    ("status", "reason"),
    [
        ("CREATING", "StreamCreating"),
        ("DELETING", "StreamDeleting"),
        ("UPDATING", "StreamNotActive"),
    ],
)
def test_a_streams_status_is_told(status: str, reason: str) -> None:
    assert problems.not_active("orders", status).reason == reason


def test_a_refusal_says_which_right_is_missing() -> None:
    said = "User: arn:aws:iam::1:user/hub is not authorized to perform: kinesis:GetRecords"
    text = explained(answer("AccessDeniedException", said)).text
    assert "GetRecords on stream orders" in text
    assert said in text


def test_a_role_that_is_refused_is_not_called_a_stream() -> None:
    text = explained(answer("AccessDenied", operation="AssumeRole")).text
    assert text.startswith("AWS refuses AssumeRole on the role: ")


def test_what_was_signed_is_not_repeated() -> None:
    said = "The Canonical String should have been 'x-amz-security-token:SECRET'"
    for code in ("SignatureDoesNotMatch", "InvalidSignatureException", "IncompleteSignature"):
        assert "SECRET" not in explained(answer(code, said)).text


def test_a_broken_service_is_away_and_says_its_status() -> None:
    for code in ("InternalFailureException", "500", "ServiceUnavailable", ""):
        error = answer(code, "oh\nno", status=503)
        assert explained(error) == (
            "EndpointUnavailable", f"{ENDPOINT} answers GetRecords with 503 oh no",
        )  # fmt: skip
        assert problems.is_away(error)
        assert not problems.is_throttled(error)


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (aws.EndpointConnectionError(endpoint_url=ENDPOINT), "EndpointUnreachable"),
        (aws.ConnectTimeoutError(endpoint_url=ENDPOINT), "EndpointUnreachable"),
        (aws.ReadTimeoutError(endpoint_url=ENDPOINT), "EndpointUnreachable"),
        (aws.ConnectionClosedError(endpoint_url=ENDPOINT), "EndpointUnreachable"),
        (aws.HTTPClientError(error="x"), "EndpointUnreachable"),
        (aws.ProxyConnectionError(proxy_url="http://p"), "EndpointUnreachable"),
        (TimeoutError(), "EndpointUnreachable"),
        (ConnectionResetError(104, "reset"), "EndpointUnreachable"),
        (aws.SSLError(endpoint_url=ENDPOINT, error="certificate"), "TLSFailed"),
        (aws.NoCredentialsError(), "NoCredentials"),
        (aws.PartialCredentialsError(provider="env", cred_var="X"), "NoCredentials"),
        (aws.CredentialRetrievalError(provider="x", error_msg="y"), "NoCredentials"),
        (aws.ProfileNotFound(profile="p"), "NoCredentials"),
        (aws.NoRegionError(), "NoRegion"),
        (aws.InvalidRegionError(region_name="a b"), "NoRegion"),
        (aws.ParamValidationError(report="r"), "KinesisError"),
        (ValueError("no"), "KinesisError"),
    ],
)
def test_what_is_no_answer_has_its_reason_too(error: Exception, reason: str) -> None:
    problem = explained(error)
    assert problem.reason == reason
    assert problem.text
    assert problems.is_away(error) is (reason in ("EndpointUnreachable", "TLSFailed"))
    assert problems.code(error) == ""


def test_the_systems_own_words_are_told() -> None:
    error = aws.EndpointConnectionError(endpoint_url=ENDPOINT, error=OSError(111, "refused"))
    assert explained(error).text == f"no answer from {ENDPOINT}: [Errno 111] refused"
    said = problems.explain(TimeoutError(), stream="orders").text
    assert said == "no answer from AWS: no answer in time"


def test_throttling_is_told_from_what_waiting_does_not_cure() -> None:
    assert problems.is_throttled(answer("ProvisionedThroughputExceededException"))
    assert problems.is_throttled(answer("ThrottlingException"))
    assert not problems.is_throttled(answer("AccessDeniedException"))
    assert not problems.is_away(answer("ThrottlingException", status=503))
    assert problems.code(answer("ExpiredIteratorException")) == "ExpiredIteratorException"


def test_an_answer_that_is_hardly_one_is_explained_too() -> None:
    bare = aws.ClientError({}, "GetRecords")
    assert explained(bare).reason == "RequestRefused"
    assert not problems.is_away(bare)
    long = explained(answer("AccessDeniedException", "x" * 5000)).text
    assert len(long) < 500
