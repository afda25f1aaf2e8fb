"""Real tokens as queries, against the slow way of finding them."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from families import open_tiny
from helpers import colours
from torch.nn import functional as F

import vpt
from vpt.errors import PromptError
from vpt.runs.choosing import folds_of
from vpt.runs.hard import search as module
from vpt.runs.hard.bank import Bank
from vpt.runs.hard.search import Search
from vpt.runs.kept import Kept, keep

NAMES = ["timm ViT", "transformers Whisper encoder"]


def inputs(backbone: vpt.Backbone) -> list[Any]:
    if backbone.inputs.kind == "image":
        pictures = colours(12, size=backbone.inputs.shape[-1])
        return [pictures[i][0] for i in range(12)]
    generator = torch.Generator().manual_seed(0)
    length = backbone.inputs.samples
    waves = torch.rand(12, length, generator=generator) - 0.5
    return [(wave, torch.tensor(length)) for wave in waves]


def searched(name: str = "timm ViT", each: int = 3) -> tuple[vpt.Backbone, Kept, Search]:
    backbone = open_tiny(name)
    x = inputs(backbone)
    kinds = ["a", "b", "c"]
    examples = vpt.Examples(lambda i: x[i], [0, 1, 2] * 4, kinds)
    kept = keep(backbone, examples, blocks=[0, 1], each=each)
    extra = 1 if backbone.class_token else 0
    bank = Bank.of(kept, [0, 1], extra, 2)
    return backbone, kept, Search(kept.of_blocks([0, 1]), bank, kept, folds_of(examples, 0), 3)


@pytest.mark.parametrize("name", NAMES)
def test_a_bank_holds_tokens_as_they_enter_the_blocks(name: str) -> None:
    backbone, _, search = searched(name)
    seen = backbone.record(torch.utils.data.default_collate(inputs(backbone)))
    extra = 1 if backbone.class_token else 0
    bank = search.bank
    for block, rows in enumerate(bank.rows):
        slow = seen[block]["tokens"][bank.inputs, bank.places + extra]
        assert torch.allclose(rows, slow, atol=1e-5)
    assert len({*zip(bank.inputs.tolist(), bank.places.tolist(), strict=True)}) == len(bank.inputs)


def test_the_nearest_looks_most_alike() -> None:
    """The slow way: attention scores of every row on every token."""
    _, kept, search = searched()
    queries = torch.randn(3, search.bank.rows[1].shape[1])
    memory = kept.memories[1]
    scores = [
        memory.projected(rows) @ memory.keys[:, 0].mT for rows in (queries, search.bank.rows[1])
    ]
    scores = [s - s.mean(-1, keepdim=True) for s in scores]  # [n,heads,R,N]; softmax sees no mean
    gaps = (scores[0][:, :, :, None] - scores[1][:, :, None]).square().sum((0, 1, 4)).sqrt()
    assert torch.allclose(search.far(1, queries), gaps, rtol=1e-3)


def test_projected_queries_are_all_different_rows() -> None:
    _, _, search = searched()
    one = search.bank.rows[0][5]
    (first, second), _ = search.project([torch.stack([one, one]), search.bank.rows[1][:2]])
    assert first == 5
    assert second != 5


def test_a_snapped_query_is_a_row_and_learns_straight_through() -> None:
    _, _, search = searched()
    rows = torch.randn(2, 3, search.bank.rows[0].shape[1])
    held = search.snap(0, rows)
    nearest = search.far(0, rows.flatten(0, 1)).argmin(1)
    assert torch.equal(held, search.bank.rows[0][nearest].view(2, 3, -1))


def loss_of(search: Search, heads: module._Heads, choice: list[torch.Tensor]) -> float:
    """The slow way: read everything anew."""
    read = search.read(search.rows(choice))
    total = 0.0
    for i, (row, y) in enumerate(zip(read, heads.y, strict=True)):
        e = int(heads.judge[i])
        total += float(F.cross_entropy(heads.weight[e] @ row + heads.bias[e], y))
    return total


def test_a_swap_is_the_best_of_the_bank_and_never_worse(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "SHORTLIST", 10_000)  # all are tried
    _, _, search = searched()
    choice = [torch.tensor([0, 1]), torch.tensor([2, 3])]
    read = search.read(search.rows(choice))
    heads = search._heads(read)
    width = read.shape[1] // 4
    best, scores = search._swap(
        1, choice[1], 0, slice(2 * width, 3 * width), heads, heads.scores(read), read
    )
    losses = {}
    for row in range(len(search.bank.inputs)):
        if row != 3:
            losses[row] = loss_of(search, heads, [choice[0], torch.tensor([row, 3])])
    assert losses[best] == pytest.approx(min(losses.values()), rel=1e-4)
    assert losses[best] <= losses[2]
    after = [choice[0], torch.tensor([best, 3])]
    assert torch.allclose(read, search.read(search.rows(after)), atol=1e-5)
    assert torch.allclose(scores, heads.scores(read), atol=1e-4)


def test_the_shortlist_is_by_gradient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its first is the row that a tiny step downhill is most like."""
    monkeypatch.setattr(module, "SHORTLIST", 1)
    _, kept, search = searched()
    choice = [torch.tensor([0, 1]), torch.tensor([2, 3])]
    read = search.read(search.rows(choice))
    heads = search._heads(read)
    here = search.projected[0][:, [0]].clone().requires_grad_()
    width = read.shape[1] // 4
    every = torch.arange(12)
    out = kept.memories[0].attend(here, every)[:, 0]
    whole = torch.cat([out, read[:, width:]], 1)
    heads.losses(heads.scores(whole), every).sum().backward()
    promise = -((search.projected[0] - here.detach()) * here.grad).sum((0, 2))
    promise[[0, 1]] = float("-inf")
    best, _ = search._swap(0, choice[0], 0, slice(0, width), heads, heads.scores(read), read)
    assert best in (0, int(promise.argmax()))


def test_no_token_twice_and_no_more_loss_than_before() -> None:
    _, _, search = searched()
    start = [torch.tensor([0, 1]), torch.tensor([2, 3])]
    heads = search._heads(search.read(search.rows(start)))
    told: list[int] = []
    found = search.flip(start, lambda: told.append(1))
    assert all(len(set(own.tolist())) == 2 for own in found)
    assert len(told) % 4 == 0
    assert torch.equal(start[0], torch.tensor([0, 1]))
    assert loss_of(search, heads, found) <= loss_of(search, heads, start) * 1.5


def test_a_bank_smaller_than_the_prompt_is_refused() -> None:
    backbone = open_tiny("timm ViT")
    kept = keep(backbone, colours(2), blocks=[0], each=1)
    with pytest.raises(PromptError, match="tokens to choose from for 50 queries"):
        Bank.of(kept, [0], 1, 50)
    with pytest.raises(PromptError, match="each"):
        Bank.of(keep(backbone, colours(2), blocks=[0]), [0], 1, 1)
