"""A module carries one backbone at a time, and is given back as it was, whoever lets go of what."""

from __future__ import annotations

import contextlib
import copy
import gc
import sys
import threading

import pytest
import torch
from families import make
from torch import nn

import vpt
from vpt.backbones import count_hooks
from vpt.errors import BackboneError, PromptError

INPUTS = vpt.Images(size=(32, 32), mean=0.5, std=0.5)


class Wrapper(nn.Module):
    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.inner(x)


def prompted(backbone: vpt.Backbone, seed: int = 0) -> vpt.PromptedModel:
    torch.manual_seed(seed)
    prompt, readout = (
        vpt.DeepTokens.like(backbone, 2, seed=seed),
        vpt.Linear(backbone.out_features, 3),
    )
    nn.init.normal_(readout.weight)
    return vpt.PromptedModel(backbone, prompt, readout).eval()


def test_a_second_backbone_is_refused_by_name() -> None:
    """Both prompts acted in both, and the flags of the second were those that the first had set."""
    module = make("timm ViT")
    first = vpt.load_backbone(module, inputs=INPUTS)
    model, x = prompted(first), INPUTS.example(2)
    out = model(x)
    with pytest.raises(
        BackboneError,
        match="VisionTransformer cannot carry this backbone: it carries another one already",
    ):
        vpt.load_backbone(module, inputs=INPUTS)
    with pytest.raises(BackboneError, match="its part 'inner' carries another one already"):
        vpt.load_backbone(Wrapper(module), inputs=INPUTS)
    with pytest.raises(BackboneError, match="carries another one"):
        vpt.load_backbone(module.blocks, inputs=INPUTS)
    with pytest.raises(BackboneError, match="carries another one"):
        vpt.load_backbone(model, inputs=INPUTS)
    assert torch.equal(model(x), out)
    model.close()
    second = vpt.load_backbone(Wrapper(module), inputs=INPUTS)
    with pytest.raises(BackboneError, match="carries another one"):
        first.features(x)
    with pytest.raises(BackboneError, match="carries another one"):
        prompted(first)
    second.release()
    assert torch.equal(prompted(first)(x), out)


@pytest.mark.parametrize("order", [(0, 1), (1, 0)])
def test_flags_come_back_in_any_order(order: tuple[int, int]) -> None:
    module = make("timm ViT").train()
    backbones = [vpt.load_backbone(module, inputs=INPUTS)]
    backbones[0].release()
    backbones.append(vpt.load_backbone(module, inputs=INPUTS))
    backbones[1].release()
    for number in order:
        prompted(backbones[number]).close()
        assert all(p.requires_grad for p in module.parameters())
        assert all(m.training for m in module.modules())


def test_nobody_owns_what_was_thrown_away() -> None:
    module = make("timm ViT")
    for _ in range(3):
        backbone = vpt.load_backbone(module, inputs=INPUTS)
        backbone.itself = [backbone]  # a circle, which only the collector finds
        del backbone
    assert vpt.load_backbone(module, inputs=INPUTS).depth == 3


def test_a_deleted_model_leaves_no_hooks_and_a_deleted_backbone_no_flags() -> None:
    module = make("timm ViT").train()
    backbone = vpt.load_backbone(module, inputs=INPUTS)
    model = prompted(backbone)
    assert count_hooks(module)
    del model
    assert count_hooks(module) == {}
    assert backbone.attachment is None
    prompted(backbone)
    del backbone
    gc.collect()
    assert all(p.requires_grad for p in module.parameters())
    assert all(m.training for m in module.modules())


def test_a_swapped_model_lets_go_of_the_newest_prompt() -> None:
    backbone = vpt.load_backbone(make("timm ViT"), inputs=INPUTS)
    model = prompted(backbone)
    model.swap(vpt.DeepTokens.like(backbone, 3))
    del model
    assert count_hooks(backbone.model) == {}


def test_copies_are_owners_of_their_own() -> None:
    module = make("timm ViT")
    model = prompted(vpt.load_backbone(module, inputs=INPUTS))
    twin, x = copy.deepcopy(model), INPUTS.example(2)
    assert torch.equal(twin(x), model(x))
    bare = twin.close()
    assert all(p.requires_grad for p in bare.parameters())
    assert not any(p.requires_grad for p in module.parameters())
    assert count_hooks(module)


def test_weights_made_in_inference_mode_are_given_back_without_a_complaint() -> None:
    with torch.inference_mode():
        module = make("timm ViT")
        model = prompted(vpt.load_backbone(module, inputs=INPUTS))
    model.close()
    with torch.inference_mode():
        backbone = vpt.load_backbone(module, inputs=INPUTS)
    del backbone, model
    gc.collect()  # what a finalizer raises is a warning, and warnings are errors here
    assert count_hooks(module) == {}


def test_of_threads_that_attach_at_once_one_does() -> None:
    module, switch = make("timm ViT"), sys.getswitchinterval()
    backbone = vpt.load_backbone(module, inputs=INPUTS)
    sys.setswitchinterval(1e-5)
    try:
        for _ in range(30):
            made: list[vpt.PromptedModel] = []

            def attach(seed: int, made: list[vpt.PromptedModel] = made) -> None:
                with contextlib.suppress(PromptError):
                    made.append(prompted(backbone, seed))

            threads = [threading.Thread(target=attach, args=(seed,)) for seed in range(3)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
            assert len(made) == 1
            made[0].close()
            assert count_hooks(module) == {}
    finally:
        sys.setswitchinterval(switch)
