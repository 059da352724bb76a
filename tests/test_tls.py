"""TLS contexts from certificates and a key."""

from __future__ import annotations

import gc
import ssl
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path

import pytest
import trustme
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    PrivateFormat,
    load_pem_private_key,
)

from triggerhub.tls import Contexts, Unfit, _in_memory, _on_disk

AUTHORITY = trustme.CA()
OWN, OTHER = AUTHORITY.issue_cert("hub"), AUTHORITY.issue_cert("other")
CA = AUTHORITY.cert_pem.bytes()
CERTIFICATE = OWN.cert_chain_pems[0].bytes()
KEY = OWN.private_key_pem.bytes()
ENCRYPTED = load_pem_private_key(KEY, None).private_bytes(
    Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(b"word")
)


def test_the_authority_that_is_given_is_the_only_one_that_is_trusted() -> None:
    context = Contexts().of(CA, CERTIFICATE, KEY)
    assert len(context.get_ca_certs()) == 1
    assert context.check_hostname
    assert context.verify_mode is ssl.CERT_REQUIRED
    assert context.minimum_version is ssl.TLSVersion.TLSv1_2


def test_those_with_the_same_certificates_share_a_context() -> None:
    contexts = Contexts()
    one = contexts.of(CA, None, None)
    assert contexts.of(CA, None, None) is one
    assert contexts.of(CA, CERTIFICATE, KEY) is not one
    del one
    gc.collect()
    assert not contexts._known


@pytest.mark.parametrize(
    ("parts", "unfit", "wanted"),
    [
        ((b"no PEM", None, None), "ca", "certificates in PEM form"),
        ((b"", None, None), "ca", "certificates in PEM form"),
        ((CA, b"no PEM", KEY), "certificate", "a certificate in PEM form"),
        ((CA, CERTIFICATE, b"no PEM"), "key", "a private key in PEM form"),
        ((CA, CERTIFICATE, ENCRYPTED), "key", "a private key that is not encrypted"),
        ((CA, CERTIFICATE, OTHER.private_key_pem.bytes()), "key", "the key of the certificate"),
    ],
)
def test_what_cannot_be_one_is_told(
    parts: tuple[bytes | None, bytes | None, bytes | None], unfit: str, wanted: str
) -> None:
    with pytest.raises(Unfit) as raised:
        Contexts().of(*parts)
    assert (raised.value.part, raised.value.wanted) == (unfit, wanted)


@pytest.mark.parametrize("file", [_in_memory, _on_disk])
def test_what_openssl_reads_from_a_file_is_there_for_this_user_and_this_moment(
    file: Callable[[bytes], AbstractContextManager[str]],
) -> None:
    with file(CA) as path:
        assert Path(path).read_bytes() == CA
        assert file is _in_memory or Path(path).stat().st_mode & 0o777 == 0o600
    assert not Path(path).exists()
