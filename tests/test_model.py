"""Joining, swapping and taking apart; what comes back is the model that went in."""

from __future__ import annotations

import copy
import pickle
import threading
import time

import pytest
import torch
from families import FORMS, MODELS, make, open_tiny
from helpers import in_threads

import vpt
from vpt.backbones import count_hooks


def trained(backbone: vpt.Backbone, prompt: vpt.Prompt) -> vpt.PromptedModel:
    model = vpt.PromptedModel(backbone, prompt, vpt.Linear(backbone.out_features, 2))
    x, y = backbone.inputs.example(4), torch.tensor([0, 1, 0, 1])
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.05)
    for _ in range(3):
        model.train()
        torch.nn.functional.cross_entropy(model(x), y).backward()
        optimizer.step()
        optimizer.zero_grad()
    return model


@pytest.mark.parametrize("name", ["timm ViT", "transformers AST", "user's keyword transformer"])
def test_close_after_training_gives_the_same_model_back(name: str) -> None:
    source = make(name)
    source.train()
    source.register_forward_hook(lambda *args: None)  # the user's own hook stays
    state, hooks = copy.deepcopy(source.state_dict()), count_hooks(source)
    backbone = vpt.load_backbone(source, inputs=open_tiny(name).inputs)
    model = trained(backbone, FORMS["stack"](backbone))
    bare = model.close()
    assert bare is source
    assert count_hooks(bare) == hooks
    assert all(torch.equal(v, state[k]) for k, v in bare.state_dict().items())
    assert all(p.requires_grad and p.grad is None for p in bare.parameters())
    assert all(m.training for m in bare.modules())
    with pytest.raises(vpt.errors.PromptError, match="closed"):
        model(backbone.inputs.example(1))
    model.close()  # twice does no harm


def test_exception_in_forward_leaves_a_working_model() -> None:
    backbone = open_tiny("timm ViT")
    hooks = count_hooks(backbone.model)
    model = vpt.PromptedModel(backbone, FORMS["stack"](backbone), vpt.Identity())
    x = backbone.inputs.example(2)
    good, attached = model(x), count_hooks(backbone.model)
    broken = backbone.model.blocks[2].mlp.register_forward_pre_hook(lambda *args: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        model(x)
    broken.remove()
    assert count_hooks(backbone.model) == attached
    assert torch.equal(model(x), good)
    assert count_hooks(model.close()) == hooks


@pytest.mark.parametrize("form", FORMS)
def test_deepcopy_is_independent_and_closes_clean(form: str) -> None:
    backbone = open_tiny("timm ViT")
    x, hooks = backbone.inputs.example(2), count_hooks(backbone.model)
    model = trained(backbone, FORMS[form](backbone))
    out = model(x)
    twin = copy.deepcopy(model)
    assert torch.equal(twin(x), out)
    with torch.no_grad():
        for parameter in model.prompt.parameters():
            parameter.normal_()
    assert torch.equal(twin(x), out)
    assert not torch.equal(model(x), out)
    bare = twin.close()
    assert count_hooks(bare) == hooks
    assert torch.equal(bare(backbone.inputs.normalize(x)), _straight(model, x))
    assert not torch.equal(model(x), out)  # the original is still prompted
    assert count_hooks(model.close()) == hooks


def _straight(model: vpt.PromptedModel, x: torch.Tensor) -> torch.Tensor:
    with model.prompts_off():
        return model.backbone.logits(x)


def test_prompts_off_within_prompts_off_and_around_close_and_swap() -> None:
    backbone = open_tiny("timm ViT")
    x, hooks = backbone.inputs.example(2), count_hooks(backbone.model)
    first, second = (
        vpt.DeepTokens.like(backbone, 2, seed=1),
        vpt.DeepTokens.like(backbone, 2, seed=2),
    )
    model = vpt.PromptedModel(backbone, first, vpt.Identity())
    one, attached = model(x), count_hooks(backbone.model)
    bare = _straight(model, x)
    with model.prompts_off():
        with model.prompts_off():
            assert torch.equal(backbone.logits(x), bare)
        assert torch.equal(backbone.logits(x), bare)
    assert count_hooks(backbone.model) == attached
    assert torch.equal(model(x), one)
    with model.prompts_off():
        model.swap(second)
    assert count_hooks(backbone.model) == attached
    two = model(x)
    assert not torch.equal(two, one)
    assert torch.equal(model.swap(first)(x), one)
    assert torch.equal(model.swap(second)(x), two)
    with model.prompts_off():
        model.close()
    assert count_hooks(backbone.model) == hooks


def test_pickle_of_a_prompted_model() -> None:
    backbone = open_tiny("timm ViT")
    model = trained(backbone, FORMS["stack"](backbone))
    x = backbone.inputs.example(2)
    twin = pickle.loads(pickle.dumps(model))
    assert torch.equal(twin(x), model(x))
    assert count_hooks(twin.close()) == {}


def test_a_second_prompt_is_refused_and_swap_exchanges() -> None:
    backbone = open_tiny("timm ViT")
    x = backbone.inputs.example(2)
    first, second = (
        vpt.DeepTokens.like(backbone, 2, seed=1),
        vpt.DeepTokens.like(backbone, 2, seed=2),
    )
    model = vpt.PromptedModel(backbone, first, vpt.Identity())
    with pytest.raises(vpt.errors.PromptError, match="swap"):
        vpt.PromptedModel(backbone, second, vpt.Identity())
    one, hooks = model(x), count_hooks(backbone.model)
    assert model.swap(second) is model
    two = model(x)
    assert not torch.equal(one, two)
    assert count_hooks(backbone.model) == hooks
    assert torch.equal(model.swap(first)(x), one)
    other = vpt.DeepTokens(2, [64] * 3, [0, 1, 2])
    with pytest.raises(vpt.errors.PromptError, match="width 32"):
        model.swap(other)
    assert torch.equal(model(x), one)  # as it was
    assert model.swap(second, vpt.Linear(32, 7))(x).shape == (2, 7)


@pytest.mark.parametrize("name", MODELS)
def test_frozen_and_in_eval_whatever_the_caller_does(name: str) -> None:
    backbone = open_tiny(name)
    model = vpt.PromptedModel(
        backbone, FORMS["deep"](backbone), vpt.Linear(backbone.out_features, 2)
    )
    x = backbone.inputs.example(2)
    out = model(x)
    model.train()
    backbone.model.train()
    backbone.model.requires_grad_(True)
    again = model(x)
    assert torch.equal(out, again)
    assert not any(m.training for m in backbone.model.modules())
    assert not any(p.requires_grad for p in backbone.model.parameters())
    assert model.prompt.training


def test_a_prompt_of_another_backbone_is_refused_by_width_depth_and_input() -> None:
    backbone = open_tiny("timm ViT")
    wrong = {
        "width": (vpt.ShallowTokens(2, 48, 3), "width 32"),
        "depth": (vpt.ShallowTokens(2, 32, 12), "blocks 0 to 2"),
        "input": (vpt.Border(3, [3, 64, 64]), r"\[B,3,64,64\]"),
        "readout": (vpt.ShallowTokens(2, 32, 3), "Linear"),
    }
    for what, (prompt, message) in wrong.items():
        readout = vpt.Linear(99, 2) if what == "readout" else vpt.Identity()
        with pytest.raises(vpt.errors.PromptError, match=message):
            vpt.PromptedModel(backbone, prompt, readout)
        assert backbone.attachment is None
    with pytest.raises(vpt.errors.BackboneError, match="load_backbone"):
        vpt.PromptedModel(backbone.model, None, vpt.Identity())
    with pytest.raises(vpt.errors.PromptError, match="needed are e\\.g\\."):
        vpt.PromptedModel(backbone, "deep:10", vpt.Identity())


def test_the_callers_tensor_is_never_changed() -> None:
    backbone = open_tiny("timm ViT")
    x = backbone.inputs.example(2)
    kept = x.clone()
    for form in FORMS.values():
        with vpt.PromptedModel(backbone, form(backbone), vpt.Identity()) as model:
            model(x)
        assert torch.equal(x, kept)


def test_samples_of_a_batch_do_not_see_each_other() -> None:
    backbone = open_tiny("transformers AST")
    model = vpt.PromptedModel(backbone, FORMS["stack"](backbone), vpt.Identity()).eval()
    x = backbone.inputs.example(4)
    whole = model(x)
    assert torch.allclose(torch.cat([model(x[i : i + 1]) for i in range(4)]), whole, atol=1e-5)


def test_a_swap_is_seen_whole_by_other_threads() -> None:
    """Half of the answers were of one task's prompt and the other's readout."""
    backbone = open_tiny("timm ViT")
    pairs = []
    for seed in range(2):
        torch.manual_seed(seed)
        prompt, readout = (
            vpt.DeepTokens.like(backbone, 2, seed=seed),
            vpt.Linear(backbone.out_features, 3),
        )
        torch.nn.init.normal_(prompt.tokens)
        torch.nn.init.normal_(readout.weight)
        pairs.append((prompt, readout))
    x, needed = backbone.inputs.example(2), []
    model = vpt.PromptedModel(backbone, *pairs[0]).eval()
    with torch.no_grad():
        for pair in pairs:
            needed.append(model.swap(*pair)(x))
    wrong, stop = [], threading.Event()

    def swapping() -> None:
        while not stop.is_set():
            for pair in pairs:
                model.swap(*pair)
                time.sleep(0.002)

    def running(_: int) -> None:
        with torch.no_grad():
            for _ in range(60):
                out = model(x)
                if not any(torch.allclose(out, one, atol=1e-5) for one in needed):
                    wrong.append(out)

    thread = threading.Thread(target=swapping)
    thread.start()
    in_threads(running, 3)
    stop.set()
    thread.join()
    assert not wrong


def test_only_one_thread_learns_where_blocks_run_again() -> None:
    """The backward pass of one thread ran blocks in the midst of another's forward: a quarter of
    the gradients were wrong.
    """
    module = make("timm ViT")
    module.set_grad_checkpointing(True)
    backbone = vpt.load_backbone(module)
    model = vpt.PromptedModel(backbone, vpt.DeepTokens.like(backbone, 2), vpt.Identity())
    x, refused, found = backbone.inputs.example(2), [], []

    def gradient() -> torch.Tensor:
        return torch.autograd.grad(model(x).square().sum(), model.prompt.tokens)[0]

    needed = gradient()

    def other(_: int) -> None:
        for _ in range(5):
            try:
                found.append(gradient())
            except vpt.errors.PromptError as error:
                refused.append(str(error))

    in_threads(other)
    assert not found
    assert all("only one thread can use the model" in text for text in refused)
    assert torch.equal(gradient(), needed)
    module.set_grad_checkpointing(False)
    in_threads(other)
    assert len(found) == 20
    assert all(torch.allclose(one, needed, atol=1e-5) for one in found)


def test_the_learning_thread_may_change_when_it_is_gone() -> None:
    module = make("timm ViT")
    module.set_grad_checkpointing(True)
    backbone = vpt.load_backbone(module)
    model = vpt.PromptedModel(backbone, vpt.DeepTokens.like(backbone, 2), vpt.Identity())
    for _ in range(2):
        in_threads(lambda _: model(backbone.inputs.example(1)).sum().backward(), 1)
    model(backbone.inputs.example(1)).sum().backward()


def test_an_interrupted_swap_leaves_the_old_prompt(monkeypatch: pytest.MonkeyPatch) -> None:
    backbone = open_tiny("timm ViT")
    model = vpt.PromptedModel(backbone, vpt.DeepTokens.like(backbone, 2), vpt.Identity())
    out, new = model(backbone.inputs.example(1)), vpt.DeepTokens.like(backbone, 3)
    monkeypatch.setattr(new, "sites", lambda: (_ for _ in ()).throw(KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        model.swap(new)
    assert torch.equal(model(backbone.inputs.example(1)), out)
