"""What is said of labels that look wrong."""

from __future__ import annotations

import torch
from helpers import colours

from vpt.data import Examples
from vpt.runs.doubting import Doubts
from vpt.runs.suspects import suspects


def doubted(*believed: float) -> Doubts:
    """Of 60 examples, the first by so much; what they look like is the next class."""
    right = torch.ones(60).double()
    right[: len(believed)] = torch.tensor(believed).double()
    y = torch.tensor(colours(60).targets)
    shares = torch.nn.functional.one_hot(y, 3).double() * right[:, None]
    shares += torch.nn.functional.one_hot((y + 1) % 3, 3).double() * (1 - right)[:, None]
    return Doubts(shares, right, torch.eye(3).double(), torch.arange(60).double())


def test_the_least_believed_come_first_and_are_said_if_they_are_many() -> None:
    examples = colours(60)
    found = suspects(doubted(0.7, 0.1, 0.3, 0.1), examples)
    assert [row["file"] for row in found["examples"]] == ["3", "1", "2"]  # by harm, too
    assert found["examples"][0]["likely"] == examples.classes[(examples.targets[3] + 1) % 3]
    assert found["count"] == 3
    assert "3 of 60 labels look wrong" in found["said"][0]
    assert "is 3, labelled red, like green" in found["said"][0]
    few = suspects(doubted(0.1, 0.1), examples)
    assert few["count"] == 2
    assert few["said"] == []


def test_a_class_whose_labels_look_wrong_is_named() -> None:
    examples = colours(60)
    doubts = doubted()
    blue = torch.tensor(examples.targets) == 2
    doubts.right[blue] = 0.2
    doubts.shares[blue] = torch.tensor([0.7, 0.1, 0.2]).double()
    found = suspects(doubts, examples)
    assert found["classes"] == {"blue": "red"}
    assert found["said"][0] == "most labels of blue look wrong: they look like red"


def test_labels_that_are_believed_are_not_spoken_of() -> None:
    found = suspects(doubted(), Examples(colours(60).get, colours(60).labels, ["a", "b", "c"]))
    assert (found["count"], found["examples"], found["said"]) == (0, [], [])
