"""Queries that are real tokens: what the prompt itself refuses and keeps."""

from __future__ import annotations

import pytest
import torch
from families import open_tiny

import vpt
from vpt.errors import PromptError


def chosen() -> vpt.HardQueries:
    prompt = vpt.HardQueries.like(open_tiny("timm ViT"), 2, blocks=[1])
    rows = [torch.randn(2, prompt.widths[0])]
    places = [[{"example": "a.png", "row": 0, "column": i} for i in range(2)]]
    prompt.become(rows, places, torch.full(prompt.crops.shape, 7, dtype=torch.uint8))
    return prompt


def test_it_is_made_again_from_its_config() -> None:
    prompt = chosen()
    again = vpt.HardQueries.rebuild(prompt.config())
    again.load_state_dict(prompt.state_dict())
    assert again.taken == prompt.taken
    assert torch.equal(again.crops, prompt.crops)
    assert torch.equal(again.queries[0], prompt.queries[0])
    assert not any(rows.requires_grad for rows in again.parameters())


def test_it_reads_as_soft_queries_of_the_same_rows_do() -> None:
    backbone, prompt = open_tiny("timm ViT"), chosen()
    soft = vpt.QueryTokens(prompt.count, prompt.widths, prompt.outputs, prompt.blocks)
    soft.load_state_dict({"queries": prompt.queries})
    x, found = backbone.inputs.example(2), []
    for one in (prompt, soft):
        readout = vpt.Linear(one.reads, 3, "queries")
        torch.manual_seed(0)
        torch.nn.init.normal_(readout.weight)
        with vpt.PromptedModel(backbone, one, readout) as model:
            found.append(model.eval()(x))
    assert torch.equal(*found)


def test_blocks_of_other_widths_are_refused() -> None:
    with pytest.raises(PromptError, match="one width"):
        vpt.HardQueries(2, [8, 16], [8, 8], [0, 1])


def test_before_they_are_chosen_they_do_nothing_silently() -> None:
    prompt = vpt.HardQueries.like(open_tiny("timm ViT"), 2)
    with pytest.raises(PromptError, match=r"vpt\.adapt\(data, prompt='hard:4'\)"):
        prompt.sites()
    with pytest.raises(PromptError, match="needed are 2 for each of"):
        prompt.become(list(prompt.queries), [[]], prompt.crops)
