"""By which name a group knows a replica."""

from __future__ import annotations

import pytest

from triggerhub.testing.fakes import subscription
from triggerhub_kafka import KafkaSource
from triggerhub_kafka.groups import member_name
from triggerhub_kafka.membership import is_named


def named(replica: str, group: str | None = None, name: str = "shop.orders.handle") -> str | None:
    spec = {"topic": "t"} | ({"group": group} if group else {})
    return member_name(subscription(KafkaSource.model_validate(spec), name=name), replica)


def test_a_replica_without_a_name_is_a_member_without() -> None:
    assert named("") is None


def test_a_group_of_one_binding_knows_the_replica_alone() -> None:
    assert named("hub-1") == "hub-1"


def test_in_a_group_that_may_be_shared_each_binding_has_its_own_name() -> None:
    assert named("hub-1", "g") == "hub-1.shop.orders.handle"
    assert named("hub-1", "g", "shop.orders.audit") != named("hub-1", "g")


def test_long_names_stay_apart_within_what_kafka_takes() -> None:
    names = {named("hub-" + "x" * 245 + last, "g") for last in "ab"}
    assert len(names) == 2
    assert all(name is not None and len(name) <= 249 for name in names)


@pytest.mark.parametrize(
    ("member", "its"),
    [
        ("hub-1-7f1b6f0e-61b5-4c0e-8d3a-2f0d6a1f9c11", True),
        ("hub-1-AAAAAAAAAAAAAAAAAAAAAA", True),
        ("hub-1", False),
        ("hub-10-7f1b6f0e-61b5-4c0e-8d3a-2f0d6a1f9c11", False),
        ("hub-1-2-7f1b6f0e-61b5-4c0e-8d3a-2f0d6a1f9c11", False),
        ("triggerhub.shop.orders.handle-7f1b6f0e-61b5-4c0e-8d3a-2f0d6a1f9c11", False),
    ],
)
def test_a_member_s_id_tells_its_name(member: str, its: bool) -> None:
    assert is_named(member, "hub-1") is its
    assert not is_named(member, None)
