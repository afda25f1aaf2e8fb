"""What each place adds to a score, against the slow way: without it, look again."""

from __future__ import annotations

import pytest
import torch
from families import open_tiny

import vpt
from vpt.errors import PromptError
from vpt.runs.explaining import _Watched
from vpt.sites import Attended, Observe


def model_on(name: str, of: str = "queries", average: bool = False) -> vpt.PromptedModel:
    torch.manual_seed(0)
    backbone = open_tiny(name)
    prompt = vpt.QueryTokens.like(backbone, 2)
    prompt.start_from(backbone, backbone.inputs.example(2))
    width = prompt.reads + (backbone.out_features if "cls" in of else 0)
    readout = vpt.Linear(width, ["a", "b", "c"], of)
    for value in (readout.weight, readout.bias, readout.mean):
        torch.nn.init.normal_(value)
    if average:
        plain = vpt.Linear(backbone.out_features, ["a", "b", "c"])
        readout = vpt.Average([plain, readout])
    return vpt.PromptedModel(backbone, prompt, readout).eval()


NAMES = [
    "timm ViT",
    "timm ViT registers",
    "timm EVA-02",
    "transformers AST",
    "transformers CLIP vision",
    "transformers Whisper encoder",
    "transformers wav2vec2",
]


@pytest.mark.parametrize("name", NAMES)
def test_the_parts_add_up_to_the_score(name: str) -> None:
    with model_on(name) as model:
        x = model.backbone.inputs.example(3)
        found = vpt.explain(model, x)
        scores = model(x)
        assert torch.equal(found.target, scores.argmax(1))
        expected = scores.gather(1, found.target[:, None])[:, 0] - scores.mean(1)
        assert torch.allclose(found.score, expected, atol=1e-4)
        total = found.maps.sum((1, 2)) + found.outside + found.rest
        assert torch.allclose(total, expected, atol=1e-4)
        bias = model.readout.bias
        assert torch.allclose(found.rest, bias[found.target] - bias.mean(), atol=1e-4)
        parts = found.parts.sum((1, 2, 3))
        assert torch.allclose(parts, found.maps.sum((1, 2)) + found.outside, atol=1e-4)
        assert not torch.allclose(found.maps[0], found.maps[0].mean())


def test_a_place_is_worth_what_the_score_loses_without_it() -> None:
    """The slow way: values of one token replaced by what standardising subtracts, which then adds
    nothing.
    """
    with model_on("timm ViT") as model:
        prompt, readout = model.prompt, model.readout
        x = model.backbone.inputs.example(2)
        found = vpt.explain(model, x, 1)
        seen: dict[int, Attended] = {}
        watch = [Observe(b, attention=lambda a, b=b: seen.update({b: a})) for b in prompt.blocks]
        model.swap(_Watched(prompt, watch))
        with torch.no_grad():
            model.outputs(x)
        model.swap(prompt)

        def scored(without: int | None) -> torch.Tensor:
            read, at = [], 0
            for rows, block in zip(prompt.queries, prompt.blocks, strict=True):
                a = seen[block]
                q = a.project(rows[None])
                shares = torch.softmax(q @ a.keys.mT / q.shape[-1] ** 0.5, -1)
                heads, size = a.keys.shape[1], a.keys.shape[3]
                mean = readout.mean[at : at + prompt.count * heads * size]
                at += len(mean)
                mean = mean.view(prompt.count, heads, size)
                out = torch.zeros(len(x), prompt.count, heads, size)
                for n in range(a.keys.shape[2]):
                    value = a.values[:, None, :, n]  # [B,1,H,d]
                    value = mean if n == without else value
                    out += shares[..., n].transpose(1, 2)[..., None] * value
                read.append(out.flatten(1))
            logits = readout(torch.cat(read, 1))
            return (logits[:, 1] - logits.mean(1)).detach()

        assert torch.allclose(scored(None), found.score, atol=1e-4)
        columns = found.maps.shape[2]
        for place in (0, 5, found.maps[0].numel() - 1):
            loss = scored(None) - scored(1 + place)  # behind the class token
            expected = found.maps[:, place // columns, place % columns]
            assert torch.allclose(loss, expected, atol=1e-4)
        assert torch.allclose(scored(None) - scored(0), found.outside, atol=1e-4)


def test_other_features_are_the_rest_and_an_average_explains_its_queries() -> None:
    for model in (model_on("timm ViT", "cls+queries"), model_on("timm ViT", average=True)):
        with model:
            x = model.backbone.inputs.example(2)
            found = vpt.explain(model, x, torch.tensor([0, 2]))
            total = found.maps.sum((1, 2)) + found.outside + found.rest
            assert torch.allclose(total, found.score, atol=1e-4)
            assert found.target.tolist() == [0, 2]
            assert torch.allclose(found.attention.sum((3, 4)), torch.tensor(1.0), atol=0.5)
            hooks = sum(len(m._forward_hooks) for m in model.backbone.model.modules())
            vpt.explain(model, x)
            assert sum(len(m._forward_hooks) for m in model.backbone.model.modules()) == hooks


def test_the_prompt_stays_in_the_mode_that_it_is_in() -> None:
    with model_on("timm ViT", average=True) as model:
        model.prompt.dropout.p = 0.5
        x = model.backbone.inputs.example(2)
        assert torch.equal(vpt.explain(model, x).score, vpt.explain(model, x).score)
        assert torch.equal(vpt.explain(model, x).target, model(x).argmax(1))
        model.train()
        with pytest.raises(Exception, match=r"shape|size|input"):
            vpt.explain(model, torch.rand(2, 3, 7, 7))
        assert model.prompt.training


def test_what_cannot_be_explained_so_is_said() -> None:
    backbone = open_tiny("timm ViT")
    deep = vpt.PromptedModel(backbone, vpt.DeepTokens.like(backbone, 1), vpt.Linear(32, 2))
    words = "needed are queries .* vpt.occlusion explains any"
    with deep, pytest.raises(PromptError, match=words):
        vpt.explain(deep, backbone.inputs.example(1))
    with model_on("timm ViT") as model:
        x = model.backbone.inputs.example(2)
        with pytest.raises(PromptError, match="target=3"):
            vpt.explain(model, x, 3)
        with pytest.raises(PromptError, match="for each of 2 examples"):
            vpt.explain(model, x, torch.tensor([0]))
        assert model.attachment is not None
        assert model(x).shape == (2, 3)
    with model_on("timm Swin") as model, pytest.raises(PromptError, match="cuts its tokens"):
        vpt.explain(model, model.backbone.inputs.example(2))
