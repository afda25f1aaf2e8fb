"""Labels that look wrong: found where others deny them, and where they harm their neighbours."""

from __future__ import annotations

import pytest
import torch

from vpt.runs.doubting import RIDGE, doubts_of, explained, pulls


def clusters(count: int = 60, classes: int = 3) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    y = torch.arange(count) % classes
    centres = torch.randn(classes, 8, generator=generator) * 2
    return centres[y] + torch.randn(count, 8, generator=generator), y


def test_pulls_are_what_leaving_one_out_does() -> None:
    x, y = clusters(15)
    found = pulls(x, y, 3)
    z = ((x - x.mean(0)) / x.std(0)).double()
    kernel = z @ z.T / z.shape[1]
    targets = torch.nn.functional.one_hot(y, 3).double()
    targets = targets - targets.mean(0)
    full = torch.eye(15).double()

    def errors(some: list[int]) -> torch.Tensor:
        inner = kernel[some][:, some] + RIDGE * full[some][:, some]
        said = kernel[:, some] @ torch.linalg.solve(inner, targets[some])
        return (targets - said).square().sum(1)

    before = errors(list(range(15)))
    for i in (0, 4, 11):
        rest = [j for j in range(15) if j != i]
        after = errors(rest)
        assert float(found[i]) == pytest.approx(float((before - after)[rest].sum()), abs=1e-8)


def test_wrong_labels_are_believed_less_and_do_harm() -> None:
    x, y = clusters()
    told = y.clone()
    told[:6] = (y[:6] + 1) % 3  # of all classes
    said = torch.full((60, 3), 0.02)
    said[torch.arange(60), y] = 0.96
    doubts = doubts_of(said, told, torch.ones(60).bool(), x)
    assert float(doubts.right[:6].max()) < 0.5 < float(doubts.right[6:].min())
    assert torch.equal(doubts.likely, y)
    assert float(doubts.pull[:6].mean()) > float(doubts.pull[6:].mean())
    assert torch.allclose(doubts.confusion.sum(1), torch.ones(3).double())


def test_where_wrong_labels_are_expected_a_model_that_they_made_unsure_is_believed_more() -> None:
    x, y = clusters(90)
    told = y.clone()
    told[:18] = (y[:18] + 1) % 3
    said = torch.full((90, 3), 0.25)
    said[torch.arange(90), y] = 0.5  # never sure, always right
    every = torch.ones(90).bool()
    both = (explained(said, told, every, expected=one)[0] for one in (False, True))
    plain, expected = (shares.gather(1, told[:, None])[:, 0] for shares in both)
    assert torch.equal(plain, doubts_of(said, told, every, x).right)
    assert float(plain[:18].min()) > 0.5
    assert float(expected[:18].max()) < 0.2
    assert float(expected[18:].min()) > 0.8


def test_what_nothing_was_said_of_is_believed() -> None:
    x, y = clusters()
    tested = torch.ones(60).bool()
    tested[:3] = False
    said = torch.full((60, 3), 1 / 3)
    doubts = doubts_of(said, y, tested, x)
    assert torch.equal(doubts.right[:3], torch.ones(3).double())


def test_a_confusion_of_two_classes_is_learned() -> None:
    x, y = clusters(90)
    told = torch.where((y == 0) & (torch.arange(90) % 2 == 0), 1, y)  # half of class 0 is called 1
    said = torch.full((90, 3), 0.1)
    said[torch.arange(90), y] = 0.8
    doubts = doubts_of(said, told, torch.ones(90).bool(), x)
    assert float(doubts.confusion[0, 1]) > 0.3 > float(doubts.confusion[1, 0])
    # so that a 1 that is thought to be a 0 is doubted more than a 2 that is thought to be a 1
    assert float(doubts.right[(told == 1) & (y == 0)].max()) < 0.3
