"""What a process holds of a durable consumer's messages."""

from __future__ import annotations

from triggerhub_nats.held import ACK, TERM, Held, confirmed


def said(held: Held) -> list[bytes]:
    lines, held.unsaid = held.unsaid, []
    return lines


def test_what_is_settled_is_acked_once() -> None:
    held = Held()
    assert held.take((1, 5), "r1", 10)
    assert (len(held), held.size) == (1, 10)
    held.settle((1, 5), ACK, None)
    assert said(held) == [b"PUB r1  4\r\n+ACK\r\n"]
    assert (len(held), held.size) == (0, 0)


def test_what_comes_again_while_it_is_under_way_is_not_taken_twice() -> None:
    held = Held()
    held.take((1, 5), "r1", 10)
    assert not held.take((1, 5), "r2", 10)
    assert said(held) == [b"PUB r2  4\r\n+WPI\r\n"]
    held.settle((1, 5), ACK, None)
    assert said(held) == [b"PUB r2  4\r\n+ACK\r\n"]


def test_what_comes_again_after_it_was_settled_hears_the_same_word_again() -> None:
    held = Held()
    held.take((1, 5), "r1", 10)
    held.settle((1, 5), TERM, None)
    said(held)
    assert not held.take((1, 5), "r2", 10)
    assert said(held) == [b"PUB r2  5\r\n+TERM\r\n"]
    held.forget_settled()
    assert held.take((1, 5), "r3", 10)


def test_an_ack_is_repeated_until_it_is_confirmed() -> None:
    held = Held()
    held.take((7, 5), "r1", 10)
    held.settle((7, 5), ACK, "in")
    assert said(held) == [b"PUB r1 in.7-5 4\r\n+ACK\r\n"]
    held.repeat("other")
    assert said(held) == [b"PUB r1 other.7-5 4\r\n+ACK\r\n"]
    del held.unconfirmed[confirmed("7-5")]
    held.repeat("other")
    assert said(held) == []


def test_what_is_given_back_goes_in_the_order_of_the_stream() -> None:
    held = Held()
    for sequence in (3, 1, 2):
        held.take((sequence, 5), f"r{sequence}", 1)
    held.give_back()
    assert said(held) == [b"PUB r%d  4\r\n-NAK\r\n" % n for n in (1, 2, 3)]
    assert len(held) == 0


def test_a_sequence_that_the_server_gave_to_another_message_is_another_message() -> None:
    held = Held()
    held.take((1, 5), "r1", 10)
    held.settle((1, 5), ACK, None)
    assert held.take((1, 6), "r2", 10)
