"""Queries as a prompt: where they read, where they begin, and what they give."""

from __future__ import annotations

import pytest
import torch
from families import open_tiny

import vpt
from vpt.errors import PromptError
from vpt.prompts import build, parse
from vpt.prompts.queries import default_blocks


def test_they_read_at_half_three_quarters_and_the_end_by_default() -> None:
    assert default_blocks(12) == [6, 9, 11]
    assert default_blocks(24) == [12, 18, 23]
    assert default_blocks(1) == [0]
    prompt = vpt.QueryTokens.like(open_tiny("timm ViT"), 5)
    assert prompt.blocks == [1, 2]
    assert prompt.queries.shape == (2, 5, 32)
    assert prompt.reads == 2 * 5 * 32
    assert prompt.describe() == "5 queries read each of blocks 1, 2"


def test_text_says_how_many_and_where() -> None:
    backbone = open_tiny("timm ViT")
    assert parse("queries:2@0,2", backbone).blocks == [0, 2]
    assert parse("queries:2@0-1,2", backbone).blocks == [0, 1, 2]
    assert parse("queries:2", backbone).count == 2
    for text, words in (
        ("queries:2@0,x", "needed is one of border"),
        ("queries:2@,", "needed is one of border"),
        ("queries:2@1,1", "needed are different numbers"),
        ("queries:2@7", "needed are different numbers from 0 to 2"),
        ("queries:0", "count=0"),
    ):
        with pytest.raises(PromptError, match=words):
            parse(text, backbone)


def test_widths_may_differ_and_it_is_built_again() -> None:
    backbone = open_tiny("timm Swin")
    prompt = vpt.QueryTokens.like(backbone, 2)
    assert isinstance(prompt.queries, torch.nn.ParameterList)
    assert [rows.shape[1] for rows in prompt.queries] == prompt.widths == [32, 32, 64]
    again = build("QueryTokens", prompt.config())
    again.load_state_dict(prompt.state_dict())
    assert again.config() == prompt.config()
    plain = vpt.QueryTokens.like(open_tiny("timm ViT"), 2, through=True)
    assert build("QueryTokens", plain.config()).through


def test_they_begin_as_the_models_own_tokens() -> None:
    backbone = open_tiny("timm ViT")
    x = torch.rand(4, 3, 32, 32)
    prompt = vpt.QueryTokens.like(backbone, 3, examples=x)
    recorded = backbone.record(x)
    for rows, block in zip(prompt.queries, prompt.blocks, strict=True):
        own = recorded[block]["tokens"].flatten(0, 1)
        for row in rows:
            assert bool((own == row).all(1).any())
    other = vpt.QueryTokens.like(backbone, 3, examples=x, seed=1)
    assert not torch.equal(other.queries, prompt.queries)


def test_what_is_read_has_dropout_and_is_gone_once_it_was_given() -> None:
    backbone = open_tiny("timm ViT")
    prompt = vpt.QueryTokens.like(backbone, 2, dropout=0.5)
    with pytest.raises(PromptError, match="have had no input yet"):
        prompt.read()
    readout = vpt.Linear(prompt.reads, 3, "queries")
    with vpt.PromptedModel(backbone, prompt, readout) as model:
        x = torch.rand(2, 3, 32, 32)
        out = model.train().outputs(x)
        assert 0.3 < float((out == 0).float().mean()) < 0.7
        assert not bool((model.eval().outputs(x) == 0).any())
        with pytest.raises(PromptError, match="have had no input yet"):
            prompt.read()


@pytest.mark.parametrize("through", [False, True])
def test_beside_other_prompts_both_act(through: bool) -> None:
    backbone = open_tiny("timm ViT")
    queries = vpt.QueryTokens.like(backbone, 2, through=through)
    stack = vpt.Stack([vpt.Border.like(backbone, 3), vpt.DeepTokens.like(backbone, 2), queries])
    assert stack.reads == queries.reads
    with vpt.PromptedModel(backbone, stack, vpt.Linear(stack.reads, 3, "queries")) as model:
        torch.nn.init.normal_(model.readout.weight)
        model(torch.rand(2, 3, 32, 32)).square().sum().backward()
    assert all(p.grad is not None and bool(p.grad.any()) for p in stack.parameters())


def test_a_run_by_name_reads_them(tmp_path) -> None:
    from helpers import colours

    data = {"train": colours(24), "test": colours(9, 2)}
    result = vpt.adapt(
        data, open_tiny("timm ViT"), "queries:2", epochs=2, progress=False, out=tmp_path
    )
    assert result.model.readout.named.text == "queries"
    assert result.report.parameters_trained["prompt"] == 2 * 2 * 32
    result.model.close()


def test_what_enters_their_first_block_is_kept_and_changes_nothing() -> None:
    from helpers import colours

    data = {"train": colours(24), "val": colours(12, 1), "test": colours(9, 2)}
    options = {"epochs": 2, "progress": False, "augment": "none"}
    found = []
    for cache in ("auto", "off"):
        result = vpt.adapt(data, open_tiny("timm ViT"), "queries:2", cache=cache, **options)
        found.append((result.model.prompt.queries.detach().clone(), result.report.test_accuracy))
        result.model.close()
    assert torch.allclose(found[0][0], found[1][0], atol=1e-5)
    assert found[0][1] == found[1][1]
