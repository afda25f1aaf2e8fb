"""Queries that learn from kept keys and values: equal to the model itself, and to each member
alone.
"""

from __future__ import annotations

import pytest
import torch
from families import open_tiny
from helpers import colours

import vpt
from vpt.data import Examples
from vpt.runs.kept import keep
from vpt.training import side_by_side
from vpt.training.side_by_side import Members, learn_side_by_side

FAMILIES = ["timm ViT", "transformers wav2vec2", "timm Swin", "torchvision ViT", "timm EVA-02"]


def some(backbone: vpt.Backbone, count: int = 8) -> Examples:
    """Examples of three classes, sound among them padded."""
    if backbone.inputs.kind == "image":
        return colours(count, size=backbone.inputs.shape[-1])
    waves, _ = backbone.inputs.example(1)
    generator = torch.Generator().manual_seed(0)
    lengths = [waves.shape[1] // (1 + i % 2) for i in range(count)]
    sounds = [torch.rand(waves.shape[1], generator=generator) - 0.5 for _ in range(count)]
    for sound, length in zip(sounds, lengths, strict=True):
        sound[length:] = 0
    labels = [i % 3 for i in range(count)]
    return Examples(lambda i: (sounds[i], torch.tensor(lengths[i])), labels, ["a", "b", "c"])


def member(prompt: vpt.QueryTokens, members: Members, e: int) -> vpt.Linear:
    readout = vpt.Linear(prompt.reads, ["a", "b", "c"], "queries")
    with torch.no_grad():
        for rows, learned in zip(prompt.queries, members.queries, strict=True):
            rows.copy_(learned[e])
        for name in ("mean", "scale", "weight", "bias"):
            getattr(readout, name).copy_(getattr(members, name)[e])
    return readout


def learned(
    backbone: vpt.Backbone, examples: Examples, shares: torch.Tensor, **options: float
) -> tuple[vpt.QueryTokens, Members, torch.Tensor]:
    prompt = vpt.QueryTokens.like(backbone, 2)
    batch = torch.utils.data.default_collate([examples[i][0] for i in range(4)])
    prompt.start_from(backbone, batch)
    kept = keep(backbone, examples, blocks=prompt.blocks)
    memories = [kept.memories[block] for block in prompt.blocks]
    start = [rows.detach() for rows in prompt.queries]
    members = learn_side_by_side(memories, start, kept.y, shares, 3, decay=1.0, **options)
    return prompt, members, members.scores(memories)


@pytest.fixture(autouse=True)
def _few_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(side_by_side, "STEPS", 6)
    monkeypatch.setattr(side_by_side, "FEWEST", 6)
    monkeypatch.setattr(side_by_side, "BATCH", 5)


@pytest.mark.parametrize("name", FAMILIES)
def test_what_was_learned_from_memory_is_what_the_model_gives(name: str) -> None:
    backbone = open_tiny(name)
    examples = some(backbone)
    shares = torch.ones(2, len(examples))
    shares[0, :3] = 0
    prompt, members, scores = learned(backbone, examples, shares)
    batch = torch.utils.data.default_collate([examples[i][0] for i in range(len(examples))])
    for e in range(2):
        readout = member(prompt, members, e)
        with vpt.PromptedModel(backbone, prompt, readout).eval() as model, torch.no_grad():
            assert torch.allclose(model(batch), scores[:, e], atol=1e-5)
    assert not torch.allclose(scores[:, 0], scores[:, 1], atol=1e-4)


def test_each_member_is_what_it_is_alone() -> None:
    backbone = open_tiny("timm ViT")
    examples = some(backbone)
    shares = torch.ones(3, len(examples))
    shares[0, :3] = shares[1, 5:] = 0
    _, _, together = learned(backbone, examples, shares)
    for e in range(3):
        _, _, alone = learned(backbone, examples, shares[e : e + 1])
        assert torch.allclose(alone[:, 0], together[:, e], atol=1e-5)


def test_its_gradient_is_that_through_the_model() -> None:
    backbone = open_tiny("timm ViT")
    examples = some(backbone)
    prompt = vpt.QueryTokens.like(backbone, 2)
    kept = keep(backbone, examples, blocks=prompt.blocks)
    batch = torch.stack([examples[i][0] for i in range(len(examples))])
    readout = vpt.Linear(prompt.reads, 3, "queries")
    torch.nn.init.normal_(readout.weight)
    with vpt.PromptedModel(backbone, prompt, readout) as model:
        torch.nn.functional.cross_entropy(model(batch), kept.y).backward()
    slow = prompt.queries.grad.clone()
    rows = [one[None].detach().requires_grad_() for one in prompt.queries]
    memories = [kept.memories[block] for block in prompt.blocks]
    read = side_by_side.read_all(memories, rows, torch.arange(len(examples)))[:, 0]
    torch.nn.functional.cross_entropy(readout(read), kept.y).backward()
    for mine, theirs in zip(rows, slow, strict=True):
        assert torch.allclose(mine.grad[0], theirs, atol=1e-5)


def test_memory_is_held_in_half_precision_or_not_at_all_where_it_has_no_place() -> None:
    backbone = open_tiny("timm ViT")
    examples = some(backbone)
    whole = keep(backbone, examples, blocks=[1])
    size = whole.memories[1].keys.nbytes * 2
    half = keep(backbone, examples, blocks=[1], budget=size // 2)
    assert half.memories[1].keys.dtype == torch.float16
    assert torch.allclose(half.memories[1].keys.float(), whole.memories[1].keys, atol=1e-2)
    none = keep(backbone, examples, blocks=[1], budget=size // 2 - 1)
    assert none.full
    assert not none.memories
    assert torch.equal(none.features, whole.features)


def test_shares_of_classes_are_labels_where_they_are_certain() -> None:
    backbone = open_tiny("timm ViT")
    examples = some(backbone, 12)
    prompt = vpt.QueryTokens.like(backbone, 2)
    kept = keep(backbone, examples, blocks=prompt.blocks)
    memories, begin = kept.of_blocks(prompt.blocks), list(prompt.queries)
    shares = torch.ones(2, 12)
    shares[0, :3] = 0

    def learn(y: torch.Tensor) -> Members:
        return learn_side_by_side(memories, begin, y, shares, 3, decay=1.0, steps=5)

    certain = torch.nn.functional.one_hot(kept.y, 3).float().expand(2, -1, -1)
    plain, same = learn(kept.y), learn(certain)
    assert torch.allclose(plain.weight, same.weight, atol=1e-6)
    # and each member has its own
    other = certain.clone()
    other[1] = 1 / 3
    mixed = learn(other)
    assert torch.allclose(mixed.weight[0], plain.weight[0], atol=1e-6)
    assert not torch.allclose(mixed.weight[1], plain.weight[1], atol=1e-3)
