"""The bare model's features, kept by input: right, only for the same input, never more than have a
place.
"""

from __future__ import annotations

import copy

import pytest
import torch
from families import open_tiny
from torch import nn

import vpt
from vpt.backbones.keeping.memo import Memo


def model_with_query(name: str = "timm ViT", **more: object) -> vpt.PromptedModel:
    backbone = open_tiny(name)
    readout = vpt.Linear(backbone.out_features, 3)
    nn.init.normal_(readout.weight)
    return vpt.PromptedModel(backbone, vpt.CODAPrompt.like(backbone, 2, **more), readout).eval()  # type: ignore[arg-type]


def forwards(model: vpt.PromptedModel) -> list[int]:
    """Counts what goes through block 0."""
    seen: list[int] = []
    model.backbone.blocks[0].module.register_forward_hook(
        lambda module, args, output: seen.append(len(args[0]))
    )
    return seen


def test_what_comes_again_costs_one_forward() -> None:
    model = model_with_query()
    x = torch.rand(4, 3, 32, 32)
    seen = forwards(model)
    with torch.no_grad():
        first = model(x)
        assert seen == [4, 4]
        again = model(x[[2, 0]])
        assert seen == [4, 4, 2]
        assert torch.allclose(again, first[[2, 0]], atol=1e-5)
        model(torch.cat([x[:1], x[:1] + 1e-6]))  # another picture, if only just
    assert seen == [4, 4, 2, 1, 2]


def test_one_pass_asks_for_nothing() -> None:
    model = model_with_query(one_pass=True)
    seen = forwards(model)
    with torch.no_grad():
        model(torch.rand(4, 3, 32, 32))
    assert seen == [4]


def test_lengths_and_precision_are_part_of_the_input() -> None:
    model = model_with_query("user's keyword transformer")
    waves = torch.rand(2, 1600) - 0.5
    with torch.no_grad():
        model((waves, torch.tensor([1600, 1600])))
        model((waves, torch.tensor([1600, 800])))
        assert len(model.backbone.bare_features.kept) == 3
        with torch.autocast("cpu", dtype=torch.bfloat16):
            model((waves, torch.tensor([1600, 1600])))
        assert len(model.backbone.bare_features.kept) == 5


def test_only_what_has_a_place_is_kept_and_the_answers_stay_right(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    model = model_with_query()
    x = torch.rand(5, 3, 32, 32)
    with torch.no_grad():
        needed = model(x)
        model.backbone.bare_features.clear()
        monkeypatch.setattr(model.backbone.bare_features, "budget", 2 * 32 * 4)
        assert torch.allclose(model(x), needed, atol=1e-5)
        assert torch.allclose(model(x), needed, atol=1e-5)
        assert len(model.backbone.bare_features.kept) == 2
        model.backbone.bare_features.clear()
        model.backbone.bare_features.keep = False
        model(x)
        assert not model.backbone.bare_features.kept


def test_a_copy_begins_empty_and_a_new_prompt_too() -> None:
    model = model_with_query()
    with torch.no_grad():
        model(torch.rand(2, 3, 32, 32))
    assert model.backbone.bare_features.kept
    assert not copy.deepcopy(model.backbone.bare_features).kept
    model.swap(vpt.CODAPrompt.like(model.backbone, 3))
    assert not model.backbone.bare_features.kept


def test_after_inference_mode_it_can_still_learn() -> None:
    model = model_with_query()
    x = torch.rand(2, 3, 32, 32)
    with torch.inference_mode():
        model(x)
    model.train()(x).sum().backward()
    assert model.prompt.keys[0].grad.abs().sum() > 0


def test_alone() -> None:
    kept, asked = Memo(1 << 20), []

    def compute(missing: list[int]) -> torch.Tensor:
        asked.append(missing)
        return torch.tensor([[float(i)] for i in missing])

    assert kept.recall([b"a", b"b"], compute).tolist() == [[0.0], [1.0]]
    assert kept.recall([b"c", b"b", b"a"], compute).tolist() == [[0.0], [1.0], [0.0]]
    assert asked == [[0, 1], [0]]
    assert (kept.hits, kept.misses, kept.full) == (2, 3, False)
    small = Memo(4)
    small.recall([b"a", b"b"], compute)
    assert (len(small.kept), small.full) == (1, True)
    assert len(copy.deepcopy(kept).kept) == 0
