"""What each query is worth, against the model with and without it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from families import open_tiny
from helpers import colours
from torch.nn import functional as F

import vpt
from vpt.errors import TrainingError
from vpt.metrics.calibrating import slope_of
from vpt.runs.kept import Kept, keep
from vpt.runs.worth import Parts, narrowed, parts_of, prune, slots_of, worth_of
from vpt.training import side_by_side
from vpt.training.side_by_side import Members, learn_side_by_side


@pytest.fixture(autouse=True)
def _few_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(side_by_side, "STEPS", 6)
    monkeypatch.setattr(side_by_side, "FEWEST", 6)


def learned(name: str = "timm ViT") -> tuple[vpt.QueryTokens, Kept, Members]:
    backbone = open_tiny(name)
    prompt = vpt.QueryTokens.like(backbone, 2)
    examples = colours(12, size=backbone.inputs.shape[-1])
    prompt.start_from(backbone, torch.stack([examples[i][0] for i in range(4)]))
    kept = keep(backbone, examples, blocks=prompt.blocks)
    shares = torch.ones(2, 12)
    shares[0, :6] = 0
    members = learn_side_by_side(
        kept.of_blocks(prompt.blocks), list(prompt.queries), kept.y, shares, 3, decay=1.0
    )
    return prompt, kept, members


@pytest.mark.parametrize("name", ["timm ViT", "timm Swin"])
def test_the_parts_add_up_and_one_alone_is_the_model_without_the_others(name: str) -> None:
    prompt, kept, members = learned(name)
    memories = kept.of_blocks(prompt.blocks)
    judge = torch.tensor([1, 0] * 6)
    parts = parts_of(members, memories, prompt, judge, kept.y)
    scores = members.scores(memories)[torch.arange(12), judge]
    assert torch.allclose(parts.scores(range(len(slots_of(prompt)))), scores, atol=1e-4)
    readout = members.into(prompt, ["a", "b", "c"])
    every = parts_of(members, memories, prompt, torch.ones(12, dtype=torch.long), kept.y)
    for stay in ([0], [1, 2], list(range(len(slots_of(prompt))))):
        small, head = narrowed(prompt, readout, stay)
        read = kept.with_read(small).read
        assert read is not None
        assert torch.allclose(head(read), every.scores(stay), atol=1e-4)
        assert sum(small.counts) == len(stay)


def test_a_narrowed_prompt_acts_in_the_model_and_comes_back_from_a_file(tmp_path: Path) -> None:
    prompt, kept, members = learned()
    readout = members.into(prompt, ["a", "b", "c"])
    prompt, head = narrowed(prompt, readout, [0, 2, 3])
    assert prompt.counts == [1, 2]
    assert prompt.describe() == "3 queries read: 1 block 1, 2 block 2"
    assert kept.memories.keys() >= set(prompt.blocks)
    backbone = open_tiny("timm ViT")
    x = torch.stack([colours(12, size=backbone.inputs.shape[-1])[i][0] for i in range(12)])
    model = vpt.PromptedModel(backbone, prompt, head).eval()
    out = model(x)
    read = kept.with_read(prompt).read
    assert read is not None
    assert torch.allclose(out, head(read), atol=1e-4)
    found = vpt.explain(model, x)
    assert torch.allclose(found.maps.sum((1, 2)) + found.outside + found.rest, found.score)
    vpt.save(tmp_path / "prompt.vpt", model)
    model.close()
    assert torch.equal(vpt.load(tmp_path, backbone)(x), out)


def test_pruning_is_greedy_and_never_worse() -> None:
    generator = torch.Generator().manual_seed(0)
    y = torch.arange(60) % 3
    adds = 0.3 * torch.randn(60, 4, 3, generator=generator)
    adds[:, 0] += 2 * F.one_hot(y, 3)  # one knows, the others are noise
    parts = Parts(adds, torch.zeros(60, 3), y)
    stay = prune(parts)
    assert 0 in stay
    assert parts.loss(stay) <= parts.loss(range(4))
    for out in stay:
        if len(stay) > 1:
            assert parts.loss([s for s in stay if s != out]) > parts.loss(stay)
    assert prune(Parts(adds[:, :1], torch.zeros(60, 3), y)) == [0]


def test_what_each_costs_is_the_loss_without_it() -> None:
    prompt, kept, members = learned()
    memories = kept.of_blocks(prompt.blocks)
    parts = parts_of(members, memories, prompt, torch.ones(12, dtype=torch.long), kept.y)
    members.into(prompt, ["a", "b", "c"])
    found, _ = worth_of(parts, prompt, memories)
    assert [(one.block, one.query) for one in found] == [
        (block, number) for block in prompt.blocks for number in range(2)
    ]
    whole = members.scores(memories)[:, 1]
    for slot, one in enumerate(found):
        less = whole - parts.adds[:, slot]
        losses = [F.cross_entropy(s * slope_of(s, kept.y), kept.y) for s in (less, whole)]
        assert one.costs == pytest.approx(float(losses[0] - losses[1]), abs=1e-5)
        assert 0 <= one.spread <= 1
    assert sum(one.moves for one in found) == pytest.approx(1)


def test_queries_that_look_alike_or_everywhere_are_told() -> None:
    prompt, kept, members = learned()
    members.into(prompt, ["a", "b", "c"])
    with torch.no_grad():
        prompt.queries[0][1] = prompt.queries[0][0]
        prompt.queries[1].zero_()
    memories = kept.of_blocks(prompt.blocks)
    parts = parts_of(members, memories, prompt, torch.ones(12, dtype=torch.long), kept.y)
    _, odd = worth_of(parts, prompt, memories)
    first, second = prompt.blocks[:2]
    assert f"queries 0 and 1 of block {first} look at the same" in odd
    assert any(f"of block {second} look" in text for text in odd)


def test_a_run_says_what_each_query_is_worth_and_prunes(tmp_path: Path) -> None:
    data = {"train": colours(30), "test": colours(15, 2)}
    backbone = open_tiny("timm ViT")
    result = vpt.adapt(data, backbone, out=tmp_path / "a", progress=False, prune=True)
    metrics = json.loads((tmp_path / "a" / "metrics.json").read_text())
    x = torch.stack([data["test"][i][0] for i in range(5)])
    out = result.model.eval()(x)
    result.model.close()
    assert torch.equal(vpt.load(tmp_path / "a", backbone)(x), out)
    if metrics["queries"] is not None:  # they were chosen
        kept = len(metrics["queries"]["worth"])
        assert kept + metrics["queries"]["left_out"] == 8
        assert "What each query is worth" in (tmp_path / "a" / "report.html").read_text()
    with pytest.raises(TrainingError, match="with prune"):
        vpt.adapt(data, backbone, "deep:2", prune=True, progress=False)
