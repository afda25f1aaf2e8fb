"""What methods say of the same examples, and sentences that claim no more than they say."""

from __future__ import annotations

import csv
import io
import re
from dataclasses import replace

import pytest
import torch

from vpt.data import Examples
from vpt.metrics.comparing import difference
from vpt.runs.answers import (
    Answers,
    accuracies,
    best_other,
    calibration_of,
    predictions_csv,
    verdict_of,
)


def answers(n: int, **right: int) -> Answers:
    """Two classes, of which each method has the first so many right."""
    y = torch.arange(n) % 2
    scores = {}
    for method, count in right.items():
        said = torch.where(torch.arange(n) < count, y, 1 - y)
        scores[method.replace("_", " ")] = 3.0 * torch.nn.functional.one_hot(said, 2)
    examples = Examples(
        lambda i: torch.zeros(1), y.tolist(), ["a", "b"], names=list(map(str, range(n)))
    )
    return Answers.of(examples, scores)


@pytest.mark.parametrize(
    ("n", "prompt", "probe", "words"),
    [
        (200, 180, 150, "^the prompt is better than the linear probe: \\+15.0 points \\(\\+"),
        (200, 150, 180, "^the prompt is worse than the linear probe, take that: -15.0 points"),
        (400, 350, 350, "^the prompt is level with the linear probe, take that: \\+0.0 points"),
        (400, 340, 352, "^the prompt is worse than the linear probe, take that: -3.0 points"),
        (2, 2, 1, "^cannot tell from 2 examples whether the prompt is better than the linear"),
        (60, 54, 51, "^cannot tell from 60 examples"),
    ],
)
def test_the_verdict_claims_no_more_than_the_examples_say(
    n: int, prompt: int, probe: int, words: str
) -> None:
    found = answers(n, prompt=prompt, linear_probe=probe)
    text = verdict_of(found, "test", "prompt", "linear probe")
    assert re.search(words, text), text
    assert text.endswith(f"on {n} test examples")


def test_what_is_probably_worse_is_not_called_level() -> None:
    found = answers(50, prompt=40, linear_probe=40)
    found.scores["prompt"] = found.scores["prompt"].clone()
    y = found.y
    for i in (*range(10), 40, 41, 42):  # ten are lost, three won
        found.scores["prompt"][i] = 3.0 * torch.nn.functional.one_hot(
            1 - y[i] if i < 10 else y[i], 2
        )
    text = verdict_of(found, "test", "prompt", "linear probe")
    assert text.startswith("the prompt is no better than the linear probe, take that: -14.0")


def test_it_is_compared_with_the_best_of_what_needs_no_prompt() -> None:
    found = answers(20, prompt=15, nearest_mean=12, linear_probe=10, probe_x=14)
    parts = {"val": found, "test": answers(9, prompt=5, nearest_mean=1, linear_probe=9, probe_x=2)}
    assert best_other(parts, "val", "prompt") == "probe x"
    assert best_other(parts, "val", "probe x") == "nearest mean"
    assert best_other(parts | {"test": answers(9, linear_probe=1)}, "val", "x") == "linear probe"
    assert best_other({"val": answers(4, prompt=1)}, "val", "prompt") is None
    assert "nothing to be compared" in verdict_of(found, "val", "prompt", None)
    assert "take that" in verdict_of(answers(400, a=10, b=300), "out_of_fold", "a", "b")


def test_numbers_are_of_the_same_examples() -> None:
    found = answers(20, prompt=15, nearest_mean=12)
    values = found.as_dict("prompt", "nearest mean")
    assert values["methods"]["nearest mean"]["accuracy"] == 12 / 20
    expected = difference(torch.arange(20).numpy() < 15, torch.arange(20).numpy() < 12)
    assert values["difference"] | {"of": 0} == expected.__dict__ | {"of": 0}
    assert "difference" not in found.as_dict("prompt", None)
    few = found.take(torch.tensor([1, 16]))
    assert (few.right("prompt").tolist(), few.names) == ([True, False], ["1", "16"])
    parts = {"out_of_fold": found, "test": few}
    assert accuracies(parts, "prompt") == {"val": 15 / 20, "test": 0.5}
    assert accuracies(parts, "absent") == {}


def test_calibration_before_and_after() -> None:
    found = answers(200, prompt=180)  # sure to 95 %, right to 90 %
    values = calibration_of({"val": found}, "prompt", 2.0)
    assert values["after"]["val"] == pytest.approx(1 / (1 + torch.tensor(-3.0).exp()) - 0.9)
    assert values["before"]["val"] == pytest.approx(0.9 - 1 / (1 + torch.tensor(-1.5).exp()))
    assert calibration_of({"val": found}, "prompt", None)["before"] is None


def test_every_example_has_a_row() -> None:
    parts = {"val": answers(4, prompt=4, probe=0), "test": answers(2, prompt=1)}
    rows = list(csv.DictReader(io.StringIO(predictions_csv(parts, "prompt").decode())))
    assert [row["part"] for row in rows] == ["val"] * 4 + ["test"] * 2
    assert rows[0] == {
        "part": "val",
        "file": "0",
        "label": "a",
        "answer": "a",
        "probability": "0.9526",
        "probability of label": "0.9526",
        "unit": "",
        "probe": "b",
    }
    assert (rows[5]["answer"], rows[5]["probability of label"], rows[5]["probe"]) == (
        "a",
        "0.0474",
        "",
    )
    together = {"val": replace(parts["val"], units=[3, 3, 7, 7])}
    rows = list(csv.DictReader(io.StringIO(predictions_csv(together, "prompt").decode())))
    assert [row["unit"] for row in rows] == ["3", "3", "7", "7"]
