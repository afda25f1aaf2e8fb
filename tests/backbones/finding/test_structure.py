"""Blocks, attention, classifier and layout are found by structure."""

from __future__ import annotations

import pytest
import torch
import transformers
from families import EXTRA, MODELS, SOUND, KeywordTransformer, make, open_tiny
from torch import nn

import vpt

ROTARY = ("timm EVA-02", "timm DINOv3", "timm rotary ViT, mixed")


@pytest.mark.parametrize("name", MODELS)
def test_blocks_heads_and_features(name: str) -> None:
    backbone = open_tiny(name)
    width = 24 if "user" in name else 32
    if "Swin" in name:
        assert backbone.depth == 5
        assert backbone.widths == [16, 16, 32, 32, 64]
        assert backbone.heads == [(2, 8), (2, 8), (4, 8), (4, 8), (8, 8)]
        assert all(block.windowed and block.masked for block in backbone.blocks)
        return
    assert backbone.depth == 3
    assert backbone.widths == [width] * 3
    if "CaiT" not in name:
        assert all(heads is not None and heads[0] * heads[1] == width for heads in backbone.heads)
    assert backbone.out_features == {
        "transformers DINOv2": 2 * width,
        "transformers wav2vec2": 16,
    }.get(name, width)
    assert [block.masked for block in backbone.blocks] == [
        "BEiT" in name or name == "transformers wav2vec2"
    ] * 3
    assert [block.rotary for block in backbone.blocks] == ["rope" if name in ROTARY else None] * 3
    assert not any(block.seq_first or block.grid or block.unknown for block in backbone.blocks)


def test_logits_are_the_classifier_of_the_features() -> None:
    for name in (
        "timm ViT",
        "transformers ViT",
        "transformers AST",
        "user's keyword transformer",
        "timm CLIP",
    ):
        backbone = open_tiny(name)
        out = backbone.run(backbone.inputs.example(3))
        assert torch.allclose(backbone.classifiers[0](out.features), out.logits, atol=1e-6), name


def test_a_distilled_model_has_two_classifiers_and_its_features_are_their_mean() -> None:
    backbone = open_tiny("timm DeiT distilled")
    assert len(backbone.classifiers) == 2
    x = backbone.inputs.example(2)
    model = backbone.model
    expected = model.forward_head(
        model.forward_features(backbone.inputs.normalize(x)), pre_logits=True
    )
    assert torch.allclose(backbone.features(x), expected, atol=1e-6)


def test_models_without_a_classifier_say_so() -> None:
    backbone = open_tiny("timm SigLIP")
    assert backbone.classes == 0
    with pytest.raises(vpt.errors.BackboneError, match="no classifier"):
        backbone.logits(backbone.inputs.example(1))
    with pytest.raises(vpt.errors.PromptError, match="has none"):
        vpt.PromptedModel(backbone, None, vpt.Identity())


def test_class_token_of_a_bare_transformers_vit() -> None:
    backbone = open_tiny("transformers ViT base")
    x = backbone.inputs.example(2)
    tokens = backbone.model(backbone.inputs.normalize(x)).last_hidden_state
    assert torch.equal(backbone.features(x), tokens[:, 0])


def test_a_cnn_has_no_blocks_and_takes_pixels_only() -> None:
    backbone = open_tiny("CNN")
    assert backbone.depth == 0
    for form in (vpt.DeepTokens, vpt.ShallowTokens, vpt.Prefix):
        with pytest.raises(vpt.errors.BackboneError, match="pixel prompts do not: use Border"):
            form.like(backbone)
    with pytest.raises(vpt.errors.BackboneError, match="no transformer blocks"):
        vpt.PromptedModel(backbone, vpt.DeepTokens(2, [32], [0]), vpt.Identity())
    model = vpt.PromptedModel(backbone, vpt.Border.like(backbone, width=3), vpt.Identity())
    assert model(backbone.inputs.example(2)).shape == (2, 5)


def test_blocks_may_be_named() -> None:
    class Hidden(nn.Module):
        """Blocks whose attention has a name that tells nothing."""

        def __init__(self) -> None:
            super().__init__()
            inner = KeywordTransformer()
            for layer in inner.layers:
                layer.mix = layer.attn
                del layer.attn
                type(layer.mix).__name__ = "Attention"
            self.inner = inner

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.inner(x)

    backbone = vpt.load_backbone(KeywordTransformer(), inputs=SOUND, blocks="layers")
    assert backbone.depth == 3
    with pytest.raises(vpt.errors.BackboneError, match=r"no module 'nowhere'.*layers"):
        vpt.load_backbone(KeywordTransformer(), inputs=SOUND, blocks="nowhere")
    with pytest.raises(vpt.errors.BackboneError, match="not called once each"):
        vpt.load_backbone(KeywordTransformer(), inputs=SOUND, blocks="layers.0")


@pytest.mark.parametrize("name", [*MODELS, *EXTRA])
def test_watching_leaves_no_trace(name: str) -> None:
    model = make(name)
    inputs = open_tiny(name).inputs
    tower = model.encoder if "Whisper" in name else model
    with torch.no_grad():
        x, extra = inputs.arguments(*inputs.prepare(inputs.example(2)))
        tower(x, **extra)  # transformers itself leaves hooks in some models when they first run
    hooks = vpt.backbones.count_hooks(model)
    training = [m.training for m in model.modules()]
    vpt.load_backbone(model, inputs=inputs)
    assert vpt.backbones.count_hooks(model) == hooks
    assert [m.training for m in model.modules()] == training


def test_compiled_and_scripted_modules_are_refused() -> None:
    model = make("timm ViT")
    with pytest.raises(vpt.errors.BackboneError, match="compiled"):
        vpt.load_backbone(torch.compile(model))
    model.blocks[1].compile()
    with pytest.raises(vpt.errors.BackboneError, match=r"blocks\.1 is compiled"):
        vpt.load_backbone(model)


def test_patch_dim_is_the_fan_in_of_the_patch_embedding() -> None:
    assert open_tiny("timm ViT").patch_dim == 3 * 8 * 8
    assert open_tiny("transformers AST").patch_dim == 16 * 16


def test_transformers_output_objects_are_read() -> None:
    backbone = open_tiny("transformers AST base")
    x = backbone.inputs.example(2)
    assert torch.equal(
        backbone.features(x), backbone.model(backbone.inputs.normalize(x)).pooler_output
    )
    assert isinstance(backbone.model, transformers.ASTModel)
