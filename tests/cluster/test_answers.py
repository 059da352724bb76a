"""What the API server's answers mean, and the sentences that say so."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from triggerhub.cluster.answers import ApiError, Asked, Lines, Resource, change, read, refused

TRIGGERS = Resource("triggerhub.dev", "v1alpha1", "kafkatriggers")
LIST = Asked("list", TRIGGERS, "shop")


def status(code: int, reason: str, message: str) -> bytes:
    return json.dumps(
        {"kind": "Status", "code": code, "reason": reason, "message": message}
    ).encode()


@pytest.mark.parametrize(
    ("resource", "namespace", "name", "subresource", "path"),
    [
        (TRIGGERS, None, "", "", "/apis/triggerhub.dev/v1alpha1/kafkatriggers"),
        (TRIGGERS, "shop", "o", "status",
         "/apis/triggerhub.dev/v1alpha1/namespaces/shop/kafkatriggers/o/status"),
        (Resource("", "v1", "secrets"), "shop", "s", "", "/api/v1/namespaces/shop/secrets/s"),
        (Resource("triggerhub.dev", "v1alpha1", ""), None, "", "",
         "/apis/triggerhub.dev/v1alpha1"),
    ],
)  # fmt: skip
def test_a_resource_has_its_path(
    resource: Resource, namespace: str | None, name: str, subresource: str, path: str
) -> None:
    assert resource.path(namespace, name, subresource) == path


@pytest.mark.parametrize(
    ("asked", "code", "body", "sentence"),
    [
        (LIST, 403, status(403, "Forbidden", 'kafkatriggers is forbidden: User "x" cannot list '
                           'resource "kafkatriggers"'),
         ("cannot list kafkatriggers.triggerhub.dev in namespace shop: forbidden; the hub's "
         "service account needs the verb list on kafkatriggers.triggerhub.dev "
         "(docs/kubernetes.md, RBAC)")),
        (Asked("watch", Resource("", "v1", "services"), None), 403,
         status(403, "Forbidden", 'services is forbidden: User "x" cannot watch resource'),
         ("cannot watch services in all namespaces: forbidden; the hub's service account needs the "
         "verb watch on services (docs/kubernetes.md, RBAC)")),
        (Asked("patch", TRIGGERS, "shop", "status"), 403,
         status(403, "Forbidden", 'User "x" cannot patch resource "kafkatriggers/status"'),
         ("cannot patch kafkatriggers.triggerhub.dev/status in namespace shop: forbidden; the "
         "hub's service account needs the verb patch on kafkatriggers.triggerhub.dev/status "
         "(docs/kubernetes.md, RBAC)")),
        (Asked("create", Resource("", "v1", "events"), "shop"), 403,
         status(403, "Forbidden", "namespace shop is being terminated"),
         ("cannot create events in namespace shop: 403 Forbidden: namespace shop is being "
         "terminated")),
        (LIST, 401, status(401, "Unauthorized", "Unauthorized"),
         ("cannot list kafkatriggers.triggerhub.dev in namespace shop: unauthorized; the API "
         "server does not know the hub's token or certificate: has it expired, or is it of another "
         "cluster?")),
        (LIST, 503, b"<html>nobody home</html>",
         ("cannot list kafkatriggers.triggerhub.dev in namespace shop: 503 Head: <html>nobody "
         "home</html>")),
        (LIST, 502, b"",
         "cannot list kafkatriggers.triggerhub.dev in namespace shop: 502 Head"),
        (LIST, 500, b"[1, 2]",
         "cannot list kafkatriggers.triggerhub.dev in namespace shop: 500 Head: [1, 2]"),
    ],
    ids=lambda value: value if isinstance(value, int) else None,
)  # fmt: skip
def test_a_refusal_says_what_was_asked_and_what_to_do(
    asked: Asked, code: int, body: bytes, sentence: str
) -> None:
    error = refused(asked, code, "Head", "", body)
    assert str(error) == sentence
    assert (error.status, error.verb, error.namespace) == (code, asked.verb, asked.namespace)


@pytest.mark.parametrize(
    ("field", "seconds"),
    [("", 0.0), ("7", 7.0), ("Wed, 21 Oct 2026 07:28:00 GMT", 0.0), ("-1", 0.0), ("²", 0.0)],
)
def test_how_long_a_server_asks_to_be_left_alone(field: str, seconds: float) -> None:
    assert refused(LIST, 429, "", field, b"").retry_after == seconds


@pytest.mark.parametrize("body", [b"", b"{", b"<html>", b"[]", b'"text"', b"\xff\xfe"])
def test_an_answer_that_is_no_object_is_no_answer(body: bytes) -> None:
    with pytest.raises(ApiError, match="cannot list kafkatriggers") as told:
        read(LIST, body)
    assert (told.value.status, told.value.reason) == (0, "Unreachable")


@pytest.mark.parametrize(
    "line",
    [b"{}", b'{"type": "ADDED"}', b'{"type": 1, "object": {}}', b'{"type": "A", "object": 1}'],
)
def test_a_line_that_is_no_change_is_no_answer(line: bytes) -> None:
    with pytest.raises(ApiError, match="no change") as told:
        change(LIST, line)
    assert told.value.status == 0


@pytest.mark.parametrize(
    ("told", "code", "expired"),
    [
        ({"code": 410, "reason": "Expired", "message": "too old"}, 410, True),
        ({"code": 500, "message": "decoding"}, 500, False),
        ({"message": "what is it"}, 500, False),
        ({"code": "410"}, 500, False),
        ({}, 500, False),
    ],
)
def test_a_line_that_tells_of_an_error_is_one(
    told: dict[str, object], code: int, expired: bool
) -> None:
    line = json.dumps({"type": "ERROR", "object": told}).encode()
    with pytest.raises(ApiError) as raised:
        change(LIST, line)
    assert (raised.value.status, raised.value.expired) == (code, expired)


@given(st.lists(st.text("ab\n", max_size=30)), st.integers(1, 9))
def test_lines_are_cut_wherever_chunks_end(texts: list[str], size: int) -> None:
    whole = "".join(texts).encode()
    lines = Lines()
    found = []
    for start in range(0, len(whole), size):
        found += lines.feed(whole[start : start + size])
    assert found == [line for line in whole.split(b"\n")[:-1] if line.strip()]
