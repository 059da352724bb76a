"""What a field must hold: both halves of each form let the same pass."""

from __future__ import annotations

import ipaddress
import re
from typing import Annotated, ClassVar, get_args

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import Field, TypeAdapter, ValidationError

import triggerhub_cron.source
import triggerhub_http.edge
import triggerhub_http.security
import triggerhub_http.source
import triggerhub_kafka.source
import triggerhub_kinesis.source
import triggerhub_nats.source
from triggerhub.control import scalars
from triggerhub.delivery.endpoint import parse_endpoint
from triggerhub.fields import IPV6, PORT, Checked, Rule, Text, cel_text

MODULES = (
    scalars,
    triggerhub_cron.source,
    triggerhub_http.edge,
    triggerhub_http.security,
    triggerhub_http.source,
    triggerhub_kafka.source,
    triggerhub_kinesis.source,
    triggerhub_nats.source,
)
FORMS = {
    form.what: form
    for module in MODULES
    for value in vars(module).values()
    for form in (value, *get_args(value))
    if isinstance(form, Text)
}
ODD = " \t\n\r\0aZ09.-_/:@#%*?[]\\'\"\u2028\u00e9\u212a\u0131\u0663"


@pytest.mark.parametrize("form", FORMS.values(), ids=FORMS)
@settings(max_examples=30, deadline=None)
@given(data=st.data())
def test_an_api_servers_engine_reads_a_form_like_ours(form: Text, data: st.DataObject) -> None:
    """Rust's engine stands in for RE2: it knows the same syntax."""
    text = data.draw(st.from_regex(form.pattern, fullmatch=True) | st.text(ODD))
    spot = data.draw(st.integers(0, len(text)))
    text = text[:spot] + data.draw(st.text(ODD, max_size=2)) + text[spot:]
    theirs = TypeAdapter(Annotated[str, Field(pattern=form.anchored)])
    assert accepts(theirs, text) == (re.fullmatch(form.pattern, text) is not None)
    if form.never:
        never = TypeAdapter(Annotated[str, Field(pattern=form.never)])
        assert accepts(never, text) == (re.search(form.never, text) is not None)


def accepts(adapter: TypeAdapter[str], text: str) -> bool:
    try:
        adapter.validate_python(text)
    except ValidationError:
        return False
    return True


@given(st.ip_addresses(v=6), st.booleans())
def test_each_ipv6_address_is_known(address: ipaddress.IPv6Address, long: bool) -> None:
    assert re.fullmatch(IPV6, address.exploded if long else address.compressed)


@given(st.from_regex("[0-9a-f:]{1,5}(:[0-9a-f]{0,5}){0,9}", fullmatch=True))
def test_what_is_taken_for_an_ipv6_address_is_one(text: str) -> None:
    try:
        ipaddress.IPv6Address(text)
    except ValueError:
        assert not re.fullmatch(IPV6, text)
    else:
        assert re.fullmatch(IPV6, text)


def test_ports_go_from_1_to_65535() -> None:
    numbers = {n for n in range(70_000) if re.fullmatch(PORT, str(n))}
    assert numbers == set(range(1, 65536))
    assert not re.fullmatch(PORT, "080")


@settings(max_examples=50, deadline=None)
@given(st.from_regex(get_args(triggerhub_http.security.Network)[1].pattern, fullmatch=True))
def test_what_fits_the_pattern_of_a_network_is_one(text: str) -> None:
    ipaddress.ip_network(text, strict=False)


@given(st.from_regex(get_args(scalars.HTTPURL)[1].pattern, fullmatch=True))
def test_where_events_go_can_be_taken_apart(url: str) -> None:
    assert parse_endpoint(url).host


def test_a_text_says_what_was_expected() -> None:
    form = Text("[a-z]+", "small letters", 3, never="x")
    adapter = TypeAdapter(Annotated[str, form])
    assert adapter.validate_python("abc") == "abc"
    for text, said in (("a1", "small letters"), ("axe", "small letters"), ("abcd", "at most 3")):
        with pytest.raises(ValidationError, match=f"expected {said}"):
            adapter.validate_python(text)
        with pytest.raises(ValueError, match=f"^found '{text}', expected {said}"):
            form.read(text)
    assert form.read("abc") == "abc"


class Span(Checked):
    exactly_one = ("a", "b")
    field_rules: ClassVar[tuple[Rule, ...]] = (
        Rule("self.low <= self.high", "expected low before high",
             lambda span: "" if span.low <= span.high else f"low is {span.low}"),
    )  # fmt: skip

    a: int | None = None
    b: int | None = None
    low: int = 0
    high: int = 1


def test_fields_must_fit_together() -> None:
    assert Span(a=1).high == 1
    with pytest.raises(ValidationError, match="found none of a, b, expected exactly one of a, b"):
        Span()
    with pytest.raises(ValidationError, match="found both a and b, expected exactly one of a, b"):
        Span(a=1, b=2)
    with pytest.raises(ValidationError, match="low is 5"):
        Span(a=1, low=5)


def test_a_text_in_cel_means_itself() -> None:
    assert cel_text(r"it's \d") == r"'it\'s \\d'"
