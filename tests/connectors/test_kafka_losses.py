"""Records that were gone before they were read."""

from __future__ import annotations

from aiokafka import TopicPartition

from triggerhub_kafka.losses import Lost, lose, told

DAY = 24 * 3600
ORDERS = TopicPartition("orders", 3)


class TestLost:
    def test_one_gap_is_told_with_its_records(self) -> None:
        text = lose(None, 2, 4, 1_764_124_332.9).told(ORDERS)
        assert text == (
            "topic orders partition 3: up to 2 records from offset 2 to 3 were gone before they "
            "were read; went on with 4 at 2025-11-26T02:32:12Z"
        )

    def test_several_within_a_day_are_told_as_one_that_counts_each_record_once(self) -> None:
        first = lose(None, 10, 20, 0)
        assert lose(first, 50, 60, 5) == Lost(10, 60, 20, 5)
        assert lose(first, 15, 25, 5) == Lost(10, 25, 15, 5)
        assert lose(first, 5, 20, 5) == Lost(5, 20, 15, 5)
        assert lose(first, 12, 20, 5) == Lost(10, 20, 10, 5)

    def test_one_of_the_day_before_is_told_no_more(self) -> None:
        first = lose(None, 10, 20, 0)
        assert told({ORDERS: first}, DAY - 1) != ""
        assert told({ORDERS: first}, DAY) == ""
        assert lose(first, 50, 60, DAY) == Lost(50, 60, 10, DAY)

    def test_a_partition_that_ends_before_is_told_as_such(self) -> None:
        back = lose(None, 100, 3, 0)
        assert back.records == 0
        assert "offset 100 was not there, the partition ended before it; went on with 3" in (
            told({ORDERS: back}, 0)
        )
        assert lose(back, 3, 5, 0) == Lost(3, 5, 2, 0)

    def test_many_partitions_are_counted_after_the_fifth(self) -> None:
        lost = {TopicPartition("orders", n): lose(None, 0, 1, 0) for n in range(12)}
        text = told(lost, 0)
        assert text.count("were gone") == 5
        assert text.endswith("; and 7 more partitions")
