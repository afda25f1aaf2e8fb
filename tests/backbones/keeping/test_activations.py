"""Activations before a late prompt, computed once: the same answers and gradients, and never
another input's.
"""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from families import MODELS, of_each_kind, open_tiny, refusal
from torch import Tensor, nn

import vpt
from vpt.backbones import FeatureCache, cannot_skip, count_hooks, first_block
from vpt.sites import KeyValues, Pixels, Tokens

SWIN = "Swin"


def late(name: str, form: str = "deep") -> vpt.PromptedModel:
    """A model prompted in its last block only."""
    backbone = open_tiny(name)
    cls = {"deep": vpt.DeepTokens, "prefix": vpt.Prefix}[form]
    prompt = cls.like(backbone, 2, blocks=[backbone.depth - 1])
    model = vpt.PromptedModel(backbone, prompt, vpt.Linear(backbone.out_features, 3)).eval()
    nn.init.normal_(model.readout.weight)
    return model


def examples(backbone: vpt.Backbone, count: int, seed: int = 0) -> Any:
    """Different inputs of the right shape, clips of different lengths."""
    generator = torch.Generator().manual_seed(seed)
    x = backbone.inputs.example(1)
    if isinstance(x, tuple):
        waves = torch.randn(count, x[0].shape[1], generator=generator).mul(0.2).clamp(-1, 1)
        lengths = torch.tensor([int(x[1]) - 40 * (i % 3) for i in range(count)])
        return waves * (torch.arange(waves.shape[1]) < lengths[:, None]), lengths
    return torch.rand(count, *x.shape[1:], generator=generator)


def part(x: Any, chosen: list[int]) -> Any:
    return tuple(value[chosen] for value in x) if isinstance(x, tuple) else x[chosen]


def near(a: Tensor, b: Tensor, tolerance: float = 1e-5) -> bool:
    return float((a - b).detach().norm() / b.detach().norm()) < tolerance


@pytest.mark.parametrize("form", ["deep", "prefix"])
@pytest.mark.parametrize("name", of_each_kind(name for name in MODELS if SWIN not in name))
def test_the_same_answers_and_gradients_in_any_batch(name: str, form: str) -> None:
    if refusal(name, form):
        return
    model = late(name, form)
    backbone, hooks = model.backbone, count_hooks(model.backbone.model)
    x, state = examples(backbone, 6), copy.deepcopy(backbone.model.state_dict())
    out = model(x)
    slopes = torch.linspace(-1, 1, out.numel()).view_as(out)
    needed = torch.autograd.grad((out * slopes).sum(), list(model.prompt.parameters()))
    cache = FeatureCache(backbone, first_block(model.attachment.sites))
    assert cannot_skip(backbone, cache) is None
    assert (cache.hits, cache.misses, cache.bytes) == (0, 0, 0)
    backbone.cache = cache
    ran: list[int] = []
    handles = [
        layer.register_forward_hook(lambda *_, i=i: ran.append(i))
        for i, block in enumerate(backbone.blocks)
        for layer in [next(m for m in block.module.modules() if isinstance(m, nn.LayerNorm))]
    ]
    # some known, some new, one twice
    for chosen in ([0, 1, 2], [5, 2, 0], [3, 3], [4, 1, 3, 0, 5, 2]):
        assert near(model(part(x, chosen)), out[chosen])
    assert (cache.hits, cache.misses) == (7, 7)
    ran.clear()
    found = torch.autograd.grad((model(x) * slopes).sum(), list(model.prompt.parameters()))
    assert set(ran) == {backbone.depth - 1}  # nothing before the prompt ran
    for handle in handles:
        handle.remove()
    assert all(near(a, b) for a, b in zip(found, needed, strict=True))
    with torch.inference_mode():
        assert near(model(x), out)
    backbone.cache = None
    assert torch.equal(model(x), out)
    assert count_hooks(backbone.model) == hooks
    assert all(torch.equal(v, state[k]) for k, v in backbone.model.state_dict().items())
    assert all("forward" not in module.__dict__ for module in backbone.model.modules())


def test_what_inference_mode_kept_can_be_trained_on() -> None:
    model = late("timm ViT")
    x = examples(model.backbone, 4)
    model.backbone.cache = FeatureCache(model.backbone, 2)
    with torch.inference_mode():
        model(x + 0)
    model(x).sum().backward()
    assert model.prompt.tokens.grad is not None
    assert model.backbone.cache.hits == 4


def test_keys_tell_inputs_precision_and_lengths_apart() -> None:
    model = late("timm ViT")
    cache = model.backbone.cache = FeatureCache(model.backbone, 2)
    x = examples(model.backbone, 2)
    model(x)
    with torch.autocast("cpu", torch.bfloat16):
        model(x)
    assert (cache.hits, cache.misses) == (0, 4)
    changed = x.clone()
    changed[1, 0, 0, 0] += 1e-3
    model(changed)
    assert (cache.hits, cache.misses) == (1, 5)
    model.backbone.model.to(torch.bfloat16)
    model(x)
    assert cache.misses == 7
    sound = late("transformers wav2vec2")
    cache = sound.backbone.cache = FeatureCache(sound.backbone, 2)
    waves, lengths = examples(sound.backbone, 2)
    waves[:, int(lengths.min()) - 400 :] = 0
    assert not near(sound((waves, lengths)), sound((waves, lengths - 400)), 1e-4)
    assert (cache.hits, cache.misses) == (0, 4)


def test_a_budget_is_kept_and_bf16_halves_it() -> None:
    model = late("timm ViT")
    x, size = examples(model.backbone, 4), 17 * 32 * 4
    out = model(x)
    cache = model.backbone.cache = FeatureCache(model.backbone, 2, budget=2 * size + 5)
    for _ in range(2):
        assert near(model(x), out)
    assert (len(cache.kept), cache.bytes, cache.full, cache.hits) == (2, 2 * size, True, 2)
    cache = model.backbone.cache = FeatureCache(model.backbone, 2, budget=2 * size + 5, half=True)
    first, second = model(x), model(x)
    assert (len(cache.kept), cache.full) == (4, False)
    assert torch.equal(first, second)  # what was just computed is rounded like what is kept
    assert near(first, out, 0.02)
    assert not torch.equal(first, out)


def test_another_prompt_that_begins_earlier_does_not_use_it() -> None:
    model = late("timm ViT")
    x = examples(model.backbone, 2)
    cache = model.backbone.cache = FeatureCache(model.backbone, 2)
    model(x)
    model.swap(vpt.DeepTokens.like(model.backbone, 2, blocks=[1]))
    out = model(x)
    assert (cache.hits, cache.misses) == (0, 2)
    model.backbone.cache = None
    assert torch.equal(model(x), out)


def test_where_nothing_can_be_skipped() -> None:
    for name in MODELS:
        if SWIN in name:
            model = late(name)
            assert "cannot be skipped" in cannot_skip(
                model.backbone, FeatureCache(model.backbone, model.backbone.depth - 1)
            )
            assert model(examples(model.backbone, 2)).shape == (2, 3)

    class Recalling(nn.Module):
        """A model whose answer also comes from what its first block gave."""

        def __init__(self, inner: nn.Module) -> None:
            super().__init__()
            self.inner, self.seen = inner, []
            inner.blocks[0].register_forward_hook(
                lambda module, args, output: self.seen.append(output[:, 1:].mean())
            )

        def forward(self, x: Tensor) -> Tensor:
            self.seen.clear()
            return self.inner(x) * (1 + self.seen[0])

    backbone = vpt.load_backbone(
        Recalling(open_tiny("timm ViT").model), inputs=vpt.Images(size=(32, 32))
    )
    prompt = vpt.DeepTokens.like(backbone, 2, blocks=[2])
    with vpt.PromptedModel(backbone, prompt, vpt.Linear(backbone.out_features, 2)):
        assert "what its first blocks gave" in cannot_skip(backbone, FeatureCache(backbone, 2))


def test_first_block() -> None:
    make: Any = None
    assert first_block(()) == 0
    assert first_block((Tokens(2, 2, 1, make), KeyValues(1, 1, make))) == 1
    assert first_block((Tokens(2, 2, 1, make), Pixels(make))) == 0
    assert first_block((Tokens(0, 2, 1, make),)) == 0
