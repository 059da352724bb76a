from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest
from aiokafka import errors
from pydantic import ValidationError

from triggerhub.connector import SpecError
from triggerhub.fields import parse_time
from triggerhub_kafka import KafkaSource
from triggerhub_kafka.problems import explain
from triggerhub_kafka.source import StartAt

ONE = {"partition": 0, "offset": 1}


def load(**fields: Any) -> KafkaSource:
    return KafkaSource.model_validate(fields)


class TestSource:
    def test_one_topic_or_several(self) -> None:
        assert load(topic="orders").topic_names == {"orders"}
        assert load(topics=["a", "b"]).topic_names == {"a", "b"}

    def test_defaults_are_latest_and_the_rest_derived(self) -> None:
        spec = load(topic="orders")
        assert (spec.start_from, spec.brokers, spec.group) == ("Latest", None, None)

    def test_a_start_time_is_text_or_what_yaml_makes_of_it(self) -> None:
        for found in ("2026-01-31T08:00:00Z", datetime(2026, 1, 31, 8, tzinfo=UTC)):
            start = load(topic="t", startFrom={"timestamp": found}).start_from
            assert isinstance(start, StartAt)
            assert start.timestamp is not None
            assert parse_time(start.timestamp) == datetime(2026, 1, 31, 8, tzinfo=UTC)

    def test_an_offset_of_the_topic_counts_before_one_of_each_topic(self) -> None:
        places = [
            {"partition": 0, "offset": 1},
            {"partition": 0, "offset": 2, "topic": "a"},
            {"partition": 1, "offset": 3, "topic": "a"},
        ]
        start = load(topics=["a", "b"], startFrom={"offsets": places}).start_from
        assert isinstance(start, StartAt)
        assert [start.offset(*at) for at in (("a", 0), ("b", 0), ("a", 1), ("b", 1))] == [
            2, 1, 3, None,
        ]  # fmt: skip

    def test_a_pattern_is_of_the_whole_name(self) -> None:
        spec = load(topicPattern="a|orders-.*")
        names = ("a", "ab", "ba", "orders-", "my-orders-x")
        assert [name for name in names if spec.reads(name)] == ["a", "orders-"]
        assert spec.topic_names == frozenset()

    def test_a_pattern_that_backtracking_would_never_end_with_is_no_trouble(self) -> None:
        assert not load(topicPattern="(a|a|a*)*b").reads("a" * 249)

    def test_a_choice_of_topics_has_one_fingerprint_whatever_the_order(self) -> None:
        assert load(topics=["a", "b"]).choice == load(topics=["b", "a"]).choice
        others = [load(topic="a"), load(topics=["a", "c"]), load(topicPattern="a.b")]
        assert len({spec.choice for spec in (*others, load(topics=["a", "b"]))}) == 4

    @pytest.mark.parametrize(
        ("fields", "message"),
        [
            ({}, "found none of topic, topics, topicPattern, expected exactly one of"),
            ({"topic": "a", "topics": ["b"]}, "found both topic and topics, expected exactly one"),
            ({"topics": []}, "at least 1"),
            ({"topic": "a b"}, "expected a topic name"),
            ({"topic": ".."}, "expected a topic name"),
            ({"topic": "a", "brokers": ["kafka"]}, "expected host:port such as"),
            ({"topic": "a", "brokers": ["kafka:70000"]}, "expected host:port such as"),
            ({"topic": "a", "startFrom": "Newest"}, "'Latest' or 'Earliest'"),
            ({"topic": "a", "startFrom": {"timestamp": "2026-01-31"}}, "expected a time"),
            ({"topic": "a", "startFrom": {"timestamp": "2026-01-31T08:00:00"}}, "expected a time"),
            ({"topicPattern": "(a"}, "expected a regular expression of RE2 (missing ): (a)"),
            ({"topicPattern": ""}, "expected a regular expression of 1 to 1000 characters"),
            ({"topicPattern": "a", "topic": "a"}, "found both topic and topicPattern"),
            (
                {"topic": "a", "startFrom": {"offsets": [{"topic": "b"} | ONE]}},
                "found startFrom.offsets of topic b, expected only those of topics that",
            ),
            (
                {"topic": "a", "startFrom": {"offsets": [ONE, ONE]}},
                "found startFrom.offsets of partition 0 twice",
            ),
            ({"topic": "a", "startFrom": {}}, "found none of timestamp, offsets"),
            ({"topic": "a", "outOfRange": "Fail"}, "'Earliest', 'Latest' or 'Stop'"),
            ({"topic": "a", "isolation": "Serializable"}, "'ReadCommitted' or 'ReadUncommitted'"),
            ({"topic": "a", "groupId": "g"}, "Extra inputs"),
        ],
    )
    def test_faults_say_what_was_found_and_expected(
        self, fields: dict[str, Any], message: str
    ) -> None:
        with pytest.raises(ValidationError) as caught:
            load(**fields)
        assert message in str(caught.value)

    @pytest.mark.parametrize("broker", ["kafka:9092", "127.0.0.1:1", "[::1]:9092", "a-b.c_d:65535"])
    def test_brokers_are_host_and_port(self, broker: str) -> None:
        assert load(topic="a", brokers=[broker]).brokers == [broker]


class TestProblems:
    @pytest.mark.parametrize(
        ("error", "reason", "text"),
        [
            (errors.KafkaConnectionError("refused"), "BrokerUnreachable", "at k:1: "),
            (TimeoutError(), "BrokerUnreachable", "TimeoutError"),
            (errors.TopicAuthorizationFailedError("orders"), "TopicNotAuthorized", "topic orders"),
            (errors.TopicAuthorizationFailedError({"b", "a"}), "TopicNotAuthorized", "topic a, b"),
            (errors.GroupAuthorizationFailedError("g"), "GroupNotAuthorized", "group g"),
            (errors.SaslAuthenticationFailed("no"), "AuthenticationFailed", "no"),
            (errors.UnsupportedCodecError("zstd"), "CodecMissing", "triggerhub[kafka]"),
            (errors.InconsistentGroupProtocolError(), "GroupInUse", "choose another group"),
            (errors.KafkaError("odd"), "KafkaError", "odd"),
        ],
    )
    def test_each_has_its_reason(self, error: Exception, reason: str, text: str) -> None:
        found, message = explain(error, brokers=["k:1"], group="g")
        assert found == reason
        assert text in message

    @pytest.mark.parametrize(
        "error", [errors.InvalidTopicError("a/b"), errors.InvalidGroupIdError()]
    )
    def test_what_only_the_manifest_cures_is_a_spec_error(self, error: Exception) -> None:
        with pytest.raises(SpecError):
            explain(error, brokers=["k:1"], group="g")
