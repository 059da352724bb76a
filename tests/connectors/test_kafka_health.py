"""What a trigger says of its source: the worst that holds, and only what lasts."""

from __future__ import annotations

from aiokafka import TopicPartition

from triggerhub.testing.fakes import RecordingReport
from triggerhub_kafka.brokers import View
from triggerhub_kafka.health import Health

ONE, TWO = TopicPartition("orders", 1), TopicPartition("orders", 2)


def started() -> tuple[Health, RecordingReport]:
    report = RecordingReport()
    health = Health(report, ["broker:9092"], "g", 25.0)
    health.joined()
    return health, report


def test_a_leader_that_changes_is_no_news() -> None:
    health, report = started()
    health.back(True, {ONE: "no broker leads it"})
    health.back(True, {TWO: "no broker leads it"})
    health.back(True, {})
    assert report.said == ["Connected"]


def test_a_partition_that_stays_away_is_named_once() -> None:
    health, report = started()
    for _ in range(3):
        health.back(True, {ONE: "no broker leads it"})
    assert report.message == ("topic orders partition 1: no broker leads it; the others are read")
    health.back(True, {})
    assert report.said == ["Connected", "PartitionUnavailable", "Connected"]


def test_the_worst_is_told() -> None:
    health, report = started()
    for _ in range(2):
        health.back(False, {ONE: "no broker leads it"})
    health.topics({"returns"})
    health.away("no answer in time")
    health.back(True, {})
    health.topics(())
    assert report.said == [
        "Connected", "PartitionUnavailable", "TopicNotFound", "BrokerUnreachable",
        "TopicNotFound", "Connected",
    ]  # fmt: skip


def test_why_a_partition_cannot_be_read() -> None:
    view = View({"orders": {0: 7, 1: -1, 2: 8}}, {}, {8: "no answer in time"})
    assert view.trouble(TopicPartition("orders", 0)) == ""
    assert view.trouble(ONE) == "no broker leads it"
    assert view.trouble(TWO) == "its leader, broker 8, does not answer: no answer in time"
