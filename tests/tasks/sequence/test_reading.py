"""Queries for each task of a sequence: what earlier tasks learned stays, to the bit."""

from __future__ import annotations

import pytest
import torch
from families import open_tiny
from helpers import six_in_three
from torch import nn

import vpt
from vpt.errors import PromptError
from vpt.tasks.sequence import reading as module
from vpt.tasks.sequence import run


@pytest.mark.parametrize("name", ["timm ViT", "timm Swin"])
def test_together_they_say_what_each_says_alone(name: str) -> None:
    backbone = open_tiny(name)
    learned = []
    for seed in range(3):
        torch.manual_seed(seed)
        own = vpt.QueryTokens.like(backbone, 2, blocks=[1, backbone.depth - 1], seed=seed)
        readout = vpt.Linear(own.reads, [f"{seed}a", f"{seed}b"][: 1 + seed % 2 + 1], "queries")
        for value in (readout.weight, readout.bias, readout.mean):
            nn.init.normal_(value)
        readout.scale.uniform_(0.5, 2)
        learned.append((own, readout))
    x = torch.rand(3, *backbone.inputs.shape, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        with vpt.PromptedModel(backbone, *module.side_by_side(learned)) as model:
            together = model.eval()(x)
        alone = []
        for own, readout in learned:
            with vpt.PromptedModel(backbone, own, readout) as model:
                alone.append(model.eval()(x))
    assert torch.allclose(together, torch.cat(alone, 1), rtol=1e-5, atol=1e-5)


def test_what_an_earlier_task_learned_stays() -> None:
    backbone, tasks = open_tiny("timm ViT"), six_in_three()
    found = []
    for count in (1, 3):
        outcome = run("queries:2", tasks[:count], backbone, progress=False)
        outcome.model.close()
        found.append(outcome.model)
    for one, three in zip(found[0].prompt.queries, found[1].prompt.queries, strict=True):
        assert torch.equal(one, three[: len(one)])
    assert not torch.equal(found[1].prompt.queries[0][:2], found[1].prompt.queries[0][2:4])
    weight = found[1].readout.weight
    assert int((weight != 0).sum()) == weight.numel() // 3


def test_queries_that_cannot_be_kept_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    backbone, tasks = open_tiny("timm ViT"), six_in_three(3)
    through = vpt.QueryTokens.like(backbone, 1, through=True)
    with pytest.raises(PromptError, match="Take fewer blocks"):
        run(through, tasks, backbone, progress=False)
    with pytest.raises(PromptError, match="needed are queries alone"):
        run("ridge:queries:1+deep:2", tasks, backbone, progress=False)
    with pytest.raises(PromptError, match="Found features 'bays'"):
        run("ridge:bays", tasks, backbone, progress=False)
    assert backbone.attachment is None
