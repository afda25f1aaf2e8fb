"""Hard wear: threads, a thousand attachments, copies, autocast, bf16, inference mode,
torch.compile, checkpointing.
"""

from __future__ import annotations

import copy
import gc
import io
import pickle
import resource
import warnings
from typing import Any

import pytest
import torch
from families import MODELS, make, of_each_kind, open_tiny, refusal
from helpers import in_threads
from torch import Tensor

import vpt
from vpt.backbones import count_hooks
from vpt.backbones.finding.structure import refuse_checkpointing

SOME = [
    "timm ViT",
    "timm EVA-02",
    "timm BEiT",
    "timm Swin",
    "transformers ViT",
    "transformers DINOv3",
    "transformers Swin",
    "torchvision ViT",
    "transformers AST",
    "transformers Whisper encoder",
]
WAYS = ["insert", "record"]
COMPILED = ["timm ViT", "timm Swin", "transformers ViT", "torchvision ViT"]


def prompted(name: str, via: str = "insert") -> vpt.PromptedModel:
    backbone = open_tiny(name)
    parts = [vpt.DeepTokens.like(backbone, 3), vpt.Prefix.like(backbone, 2)]
    parts += [] if refusal(name, "shallow") else [vpt.ShallowTokens.like(backbone, 2)]
    model = vpt.PromptedModel(
        backbone, vpt.Stack(parts), vpt.Linear(backbone.out_features, 3), via=via
    ).eval()
    torch.manual_seed(1)
    torch.nn.init.normal_(model.readout.weight)
    return model


def gradients(model: vpt.PromptedModel, out: Tensor) -> list[Tensor]:
    model.zero_grad()
    out.float().square().sum().backward()
    return [p.grad.clone() for p in model.prompt.parameters()]


def outcome(name: str, via: str) -> tuple[vpt.PromptedModel, Any, Tensor, list[Tensor]]:
    """A prompted model, an input, its output, and the gradients of the prompt."""
    model = prompted(name, via)
    x = model.backbone.inputs.example(2)
    out = model(x)
    return model, x, out, gradients(model, out)


def near(a: Tensor, b: Tensor, tolerance: float) -> bool:
    return float((a.float() - b).detach().norm() / b.detach().norm()) < tolerance


@pytest.mark.parametrize("via", WAYS)
@pytest.mark.parametrize("name", SOME)
def test_inference_mode_autocast_and_bf16_weights(name: str, via: str) -> None:
    model, x, out, needed = outcome(name, via)
    with torch.inference_mode():
        assert torch.equal(model(x), out)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        low = model(x)
        assert near(low, out, 0.05)
        assert all(near(a, b, 0.1) for a, b in zip(gradients(model, low), needed, strict=True))
    model.backbone.model.to(torch.bfloat16)  # frozen weights in bf16, prompts in fp32
    low = model(x)
    assert low.dtype == torch.float32
    assert near(low, out, 0.1)
    assert all(p.dtype == torch.float32 for p in model.prompt.parameters())
    assert all(near(a, b, 0.3) for a, b in zip(gradients(model, low), needed, strict=True))


def _compiled() -> list[Any]:
    """Each is traced for ten seconds or more; `tests/training/test_compiling.py` does it once."""
    return [pytest.param(name, "record", marks=pytest.mark.long) for name in COMPILED]


@pytest.mark.parametrize(
    ("name", "via"), [pytest.param("timm ViT", "insert", marks=pytest.mark.long), *_compiled()]
)
def test_torch_compile_after_attachment_is_exact_without_graph_breaks(name: str, via: str) -> None:
    model, x, out, needed = outcome(name, via)
    torch._dynamo.reset()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of dynamo itself
        compiled = torch.compile(model, backend="aot_eager", fullgraph=True)
        found = compiled(x)
        assert near(found, out, 1e-5)
        assert all(near(a, b, 1e-5) for a, b in zip(gradients(model, found), needed, strict=True))
        with torch.no_grad():
            for p in model.prompt.parameters():
                p.add_(0.5)
        assert near(compiled(x), model(x), 1e-5)
    assert not near(compiled(x), out, 1e-3)


@pytest.mark.parametrize("via", WAYS)
@pytest.mark.parametrize(
    "name", of_each_kind(name for name in MODELS if refusal(name, "prefix") is None)
)
def test_deepcopy_and_pickle_after_a_training_step_carry_no_recorded_tensors(
    name: str, via: str
) -> None:
    model = prompted(name, via)
    x = model.backbone.inputs.example(2)
    out = model(x)
    gradients(model, out)
    twin = copy.deepcopy(model)
    assert torch.equal(twin(x), out)
    # torch refuses to pickle their parametrized convolution
    if "wav2vec2" not in name and "HuBERT" not in name:
        buffer = io.BytesIO()
        pickle.dump(model, buffer)
        assert torch.equal(pickle.loads(buffer.getvalue())(x), out)
    with torch.no_grad():
        for p in twin.prompt.parameters():
            p.zero_()
    assert not torch.equal(twin(x), out)  # the copy's hooks read the copy's prompt
    assert torch.equal(model(x), out)
    bare = count_hooks(model.close())
    assert count_hooks(twin.close()) == bare


def test_threads_share_a_backbone() -> None:
    model = prompted("timm ViT", "record")
    inputs = [
        torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(i)) for i in range(4)
    ]
    with torch.no_grad():
        needed = [model(x) for x in inputs]
        with model.prompts_off():
            bare = model.backbone.features(inputs[0])
    wrong: list[str] = []

    def work(i: int) -> None:
        for turn in range(20):
            with torch.no_grad():
                if turn % 5 == 4:
                    with model.prompts_off():
                        if not torch.equal(model.backbone.features(inputs[0]), bare):
                            wrong.append(f"bare {i}")
                elif not torch.equal(model(inputs[i]), needed[i]):
                    wrong.append(f"prompted {i}")

    in_threads(work)
    assert wrong == []


@pytest.mark.parametrize("times", [20, pytest.param(1000, marks=pytest.mark.long)])
def test_attach_train_close_many_times_without_growth(times: int) -> None:
    bare = make("timm ViT")
    hooks, x = count_hooks(bare), torch.rand(2, 3, 32, 32)

    def once(i: int) -> None:
        backbone = vpt.load_backbone(bare)
        prompt = vpt.Stack(
            [
                vpt.Border.like(backbone, 2),
                vpt.DeepTokens.like(backbone, 2),
                vpt.Prefix.like(backbone, 1),
            ]
        )
        model = vpt.PromptedModel(backbone, prompt, vpt.Linear(32, 2), via=WAYS[i % 2])
        torch.nn.init.normal_(model.readout.weight)
        model(x).square().sum().backward()
        assert model.close() is bare

    def held() -> tuple[int, int]:
        gc.collect()
        return len(gc.get_objects()), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss

    for i in range(20):
        once(i)
    objects, memory = held()
    for i in range(times - 20):
        once(i)
    after = held()
    assert count_hooks(bare) == hooks
    assert after[0] - objects < 500
    assert after[1] - memory < 20_000  # kB


@pytest.mark.parametrize("via", WAYS)
@pytest.mark.parametrize("name", ["timm ViT", "timm EVA-02", "timm BEiT", "timm Swin"])
def test_activation_checkpointing_of_timm_is_exact(name: str, via: str) -> None:
    model, x, out, needed = outcome(name, via)
    runs = []
    handle = model.backbone.blocks[1].module.register_forward_pre_hook(lambda *_: runs.append(1))
    model.backbone.model.set_grad_checkpointing(True)
    found = model(x)
    assert len(runs) == 1
    again = gradients(model, found)
    handle.remove()
    assert len(runs) == 2  # the block ran again in the backward pass, and its hooks with it
    assert torch.equal(found, out)
    assert all(near(a, b, 1e-6) for a, b in zip(again, needed, strict=True))
    copy.deepcopy(model)


def test_activation_checkpointing_with_prompt_dropout_draws_the_same_again() -> None:
    backbone = open_tiny("timm ViT")
    model = vpt.PromptedModel(
        backbone, vpt.DeepTokens.like(backbone, 3, dropout=0.5), vpt.Identity()
    ).train()
    x = backbone.inputs.example(3)
    found = []
    for on in (False, True):
        backbone.model.set_grad_checkpointing(on)
        torch.manual_seed(5)
        found.append(gradients(model, model(x)))
    assert torch.allclose(found[0][0], found[1][0], atol=1e-6)


def test_activation_checkpointing_of_transformers_is_refused_before_and_after_opening() -> None:
    model = make("transformers ViT")
    backbone = vpt.load_backbone(model)
    model.activation_checkpointing_enable()
    for act in (lambda: vpt.load_backbone(model), lambda: backbone.insert([])):
        with pytest.raises(vpt.errors.BackboneError, match=r"activation_checkpointing_disable\(\)"):
            act()
    model.activation_checkpointing_disable()
    refuse_checkpointing(model)
    assert backbone.attachment is None
