"""TaskHeads: masks, growth, nearest-mean start, one head alone."""

from __future__ import annotations

from math import inf

import pytest
import torch
from torch import nn

import vpt
from vpt.errors import DataError, PromptError
from vpt.readouts import build


def heads(incremental: bool) -> vpt.TaskHeads:
    readout = vpt.TaskHeads(2, {"animals": ["cat", "dog"], "colours": ["red"]}, incremental)
    with torch.no_grad():
        for i, linear in enumerate(readout.linears):
            nn.init.constant_(linear.weight, 1.0 + i)
            nn.init.constant_(linear.bias, 0.5)
    return readout


def test_all_compete_at_test_and_only_the_newest_in_training() -> None:
    readout = heads(incremental=True)
    x = torch.tensor([[1.0, 2.0]])
    assert readout.classes == ["cat", "dog", "red"]
    assert readout.eval()(x).tolist() == [[3.5, 3.5, 6.5]]
    assert readout.train()(x).tolist() == [[-inf, -inf, 6.5]]
    assert [p.requires_grad for p in readout.parameters()] == [False, False, True, True]
    readout.grow("shapes", ["round", "square"])
    assert readout.train()(x).tolist() == [[-inf, -inf, -inf, 0.0, 0.0]]
    assert [p.requires_grad for p in readout.parameters()] == [False] * 4 + [True] * 2


def test_a_told_task_masks_the_others() -> None:
    readout = heads(incremental=False)
    x = torch.tensor([[1.0, 2.0], [1.0, 0.0]])
    assert readout.task_names == ["animals", "colours"]
    assert all(p.requires_grad for p in readout.parameters())
    with readout.asked(torch.tensor([1, 0])):
        assert readout(x).tolist() == [[-inf, -inf, 6.5], [1.5, 1.5, -inf]]
        with pytest.raises(PromptError, match="2 tasks for a batch of 3"):
            readout(torch.zeros(3, 2))
    assert torch.isfinite(readout(x)).all()


def test_masked_scores_give_no_gradient_to_old_heads() -> None:
    readout = heads(incremental=True).requires_grad_(True).train()
    readout.grow("shapes", ["round", "square"])
    readout.requires_grad_(True)
    nn.functional.cross_entropy(readout(torch.rand(4, 2)), torch.tensor([3, 4, 3, 4])).backward()
    assert not readout.linears[0].weight.grad.any()
    assert not readout.linears[1].weight.grad.any()
    assert readout.linears[2].weight.grad.any()


def test_the_start_is_nearest_class_mean() -> None:
    generator = torch.Generator().manual_seed(0)
    readout, nearest = vpt.TaskHeads(4, {"1": ["a", "b"]}, True), vpt.NearestMean(4, 4)
    for t in range(2):
        if t:
            readout.grow("2", ["c", "d"])
        x, y = torch.randn(20, 4, generator=generator) + 3 * t, torch.arange(20) % 2
        readout.start(x, y)
        nearest.update(x, y + 2 * t)
    x = torch.randn(9, 4, generator=generator) + 1
    found, needed = readout.eval()(x), nearest(x) / (20 * readout.spread)
    assert torch.allclose(found - found[:, :1], needed - needed[:, :1], atol=1e-4)


def test_starts_from_little() -> None:
    readout = vpt.TaskHeads(4, {"1": ["a", "b"]}, True)
    with pytest.raises(DataError, match="'b' has no training example"):
        readout.start(torch.rand(3, 4), torch.zeros(3, dtype=torch.long))
    x = torch.randn(2, 4)
    readout.start(x, torch.tensor([0, 1]))  # one each: nothing is known of the spread within
    assert readout.spread > 0.01
    assert readout.eval()(x).argmax(1).tolist() == [0, 1]


def test_files_and_export() -> None:
    readout = vpt.TaskHeads(3, {"x": ["x: odd", "x: even"], "y": ["y: odd", "y: even"]})
    for p in readout.parameters():
        nn.init.normal_(p)
    again = build("TaskHeads", readout.config())
    again.load_state_dict(readout.state_dict())
    x = torch.rand(2, 3)
    assert torch.equal(again(x), readout(x))
    alone = readout.export("y")
    assert alone.classes == ["odd", "even"]
    assert torch.equal(alone(x), readout(x)[:, 2:])


def test_wrong_input() -> None:
    for call, message in (
        (
            lambda: vpt.TaskHeads(3, {"a": ["x"], "b": ["y", "x"]}),
            "'x' appears in task 'a' and in task 'b'",
        ),
        (lambda: vpt.TaskHeads(3, {"a": ["x", "x"]}), "'x' appears"),
        (lambda: heads(True).grow("colours", ["blue"]), "needed is a new task"),
        (lambda: heads(True).grow("empty", []), "with 0 classes"),
        (lambda: heads(True).export("nothing"), "'nothing'; these heads have animals, colours"),
        (lambda: vpt.TaskHeads(3, {}).bind(None), "no task"),
    ):
        with pytest.raises(PromptError, match=message):
            call()
