"""What is said of a store in NATS: by the command line, and by the environment."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from triggerhub.nats.access import Access
from triggerhub.store.jetstream.names import text_of, word
from triggerhub.store.jetstream.place import Accesses, Place, place_of
from triggerhub.store.records import StoreError


def access(servers: str = "nats://n", **environ: str) -> Access:
    named = {f"TRIGGERHUB_STORE_{name}": value for name, value in environ.items()}
    return Accesses(place_of(servers), named).now()


def complaint(url: str = "nats://n", **environ: str) -> str:
    with pytest.raises(StoreError) as refused:
        access(url, **environ)
    return str(refused.value)


def test_a_url_names_servers_and_how_much_is_kept_there() -> None:
    assert place_of("nats://a:4222") == Place(servers=("nats://a:4222",))
    found = place_of("tls://a,b.example:1,[::1]:2/?prefix=shop&replicas=3&deadLetters=10Gi&inbox=5")
    assert found == Place(
        servers=("tls://a", "tls://b.example:1", "tls://[::1]:2"),
        prefix="shop",
        replicas=3,
        dead_letters=10 * 2**30,
        inbox=5,
    )
    assert str(found) == "tls://a,b.example:1,[::1]:2 (shop)"


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("redis://a", "found 'redis://a', expected nats://host:port"),
        ("nats", "found 'nats', expected nats://host:port"),
        ("nats://", "found '', expected host:port"),
        ("nats://a,,b", "found '', expected host:port"),
        ("nats://a/b", "found 'a/b', expected host:port"),
        ("nats://a?replica=3", "found the option 'replica', expected prefix, replicas"),
        ("nats://a?replicas=9", "replicas: found '9', expected 1 to 5"),
        ("nats://a?prefix=a.b", "prefix: found 'a.b', expected letters, digits"),
        ("nats://a?inbox=much", "inbox: found 'much', expected bytes, or a quantity such as"),
    ],
)
def test_what_cannot_be_is_said_in_words(url: str, said: str) -> None:
    assert said in complaint(url)


def test_a_login_in_the_url_is_refused_and_not_shown() -> None:
    for url in ("nats://hub:pa55@n:4222", "redis://hub:pa55@n"):
        assert "pa55" not in complaint(url)
    assert "TRIGGERHUB_STORE_USER" in complaint("nats://hub:pa55@n:4222")


def test_the_environment_has_the_login_as_it_is_or_in_a_file(tmp_path: Path) -> None:
    assert access().login == ()
    assert access(USER="hub", PASSWORD="pa55").login == ("user", "hub", "pa55")
    file = tmp_path / "token"
    file.write_text("first\n")
    accesses = Accesses(place_of("nats://n"), {"TRIGGERHUB_STORE_TOKEN_FILE": str(file)})
    assert accesses.now().login == ("token", "first")
    file.write_text("second\n")
    assert accesses.now().login == ("token", "second")
    assert accesses.now().context is None


def test_tls_is_by_the_scheme_or_by_what_is_trusted() -> None:
    assert access("tls://n").context is not None
    assert access("nats://n").context is None


def test_half_a_login_and_two_of_them_are_refused(tmp_path: Path) -> None:
    assert "expected both" in complaint(USER="hub")
    assert "expected both" in complaint(PASSWORD="pa55")
    assert "expected one of them" in complaint(TOKEN="t", NKEY="n")
    assert "expected one of them" in complaint(TOKEN="t", TOKEN_FILE="/t")
    assert "expected both" in complaint(CERTIFICATE="c")
    missing = tmp_path / "missing"
    said = complaint(TOKEN_FILE=str(missing))
    assert said == f"TRIGGERHUB_STORE_TOKEN_FILE: {missing}: No such file or directory"
    for name in ("NKEY", "CREDENTIALS", "CA"):
        said = complaint(**{name: "SUAPA55"})
        assert said.startswith(f"TRIGGERHUB_STORE_{name}: expected ")
        assert "PA55" not in said


@given(st.text())
def test_any_text_is_a_word_of_a_subject_and_no_two_are_the_same(text: str) -> None:
    found = word(text)
    assert found.isascii()
    assert not set(found) & set(" .*>\t\r\n")
    assert found
    assert text_of(found) == text
