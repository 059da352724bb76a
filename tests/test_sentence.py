"""What an error says, in one sentence."""

from __future__ import annotations

from triggerhub.sentence import leaf, sentence


def test_of_groups_in_groups_the_first_error_is_told() -> None:
    first = OSError("no broker answers")
    group = ExceptionGroup("a", [ExceptionGroup("b", [first, ValueError("late")]), OSError("c")])
    assert leaf(group) is first
    assert leaf(first) is first
    assert sentence(group) == "no broker answers"


def test_an_error_of_the_system_names_its_file() -> None:
    assert sentence(FileNotFoundError(2, "No such file", "a.yaml")) == "a.yaml: No such file"
    assert sentence(TimeoutError()) == "TimeoutError"
