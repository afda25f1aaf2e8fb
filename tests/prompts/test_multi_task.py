"""MultiTask: P ∘ (u vᵀ) by hand, mixed batches on every family, export, what is learned and what is
not.
"""

from __future__ import annotations

from typing import Any

import pytest
import torch
from families import EXTRA, MODELS, of_each_kind, open_tiny, refusal
from torch import nn

import vpt
from vpt.errors import PromptError
from vpt.prompts import build

FORMS = {
    "deep": lambda b: vpt.DeepTokens.like(b, 3),
    "shallow": lambda b: vpt.ShallowTokens.like(b, 2),
    "prefix": lambda b: vpt.Prefix.like(b, 2),
}


def drawn(prompt: vpt.Prompt, seed: int = 0) -> vpt.Prompt:
    generator = torch.Generator().manual_seed(seed)
    for p in prompt.parameters():
        p.data = 0.7 * torch.randn(p.shape, generator=generator)
    return prompt


def examples(backbone: vpt.Backbone, count: int) -> Any:
    x = backbone.inputs.example(count)
    return (
        x
        if isinstance(x, tuple)
        else torch.rand(x.shape, generator=torch.Generator().manual_seed(1))
    )


def part(x: Any, chosen: list[int]) -> Any:
    return tuple(value[chosen] for value in x) if isinstance(x, tuple) else x[chosen]


def test_by_hand() -> None:
    prompt = vpt.MultiTask(vpt.ShallowTokens(2, 3, 1), ["a", "b"])
    with torch.no_grad():
        prompt.shared.tokens.copy_(torch.tensor([[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]]))
        prompt.columns[0][1].copy_(torch.tensor([[1.0], [2.0]]))  # u = 2, 3
        prompt.rows[0][1].copy_(torch.tensor([[0.0, 1.0, -1.0]]))  # v = 1, 2, 0
    # starts from the shared prompt itself
    assert prompt.of_task(0, 0)[0].tolist() == [[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]]
    assert prompt.of_task(0, 1)[0].tolist() == [[2.0, 8.0, 0.0], [12.0, 30.0, 0.0]]
    assert prompt.of_task(0, -1)[0].tolist() == [[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]]
    assert prompt.export("b").tokens.tolist() == [[2.0, 8.0, 0.0], [12.0, 30.0, 0.0]]


@pytest.mark.parametrize("name", of_each_kind([*MODELS, *EXTRA]))
def test_a_mixed_batch_equals_each_task_alone(name: str) -> None:
    backbone = open_tiny(name)
    x, names, order = examples(backbone, 4), ["a", "b", "c"], ["c", "a", "c", "b"]
    readout = vpt.Linear(backbone.out_features, 3)
    nn.init.normal_(readout.weight, generator=torch.Generator().manual_seed(1))
    for form, make in FORMS.items():
        # samples of several tasks are told apart inside the attention
        if refusal(name, form) or refusal(name, "prefix"):
            with pytest.raises(vpt.errors.VptError):
                vpt.PromptedModel(backbone, vpt.MultiTask(make(backbone), names), readout)
            continue
        prompt = drawn(vpt.MultiTask(make(backbone), names))
        with torch.no_grad():
            with vpt.PromptedModel(backbone, prompt, readout) as model:
                mixed, again = (
                    model.eval()(x, tasks=order),
                    model(x, tasks=torch.tensor([2, 0, 2, 1])),
                )
                assert torch.equal(mixed, again)
                one = model(x, tasks="b")
                assert torch.allclose(one[3], mixed[3], atol=1e-4, rtol=1e-4)
            for i, task in enumerate(order):
                with vpt.PromptedModel(backbone, prompt.export(task), readout) as alone:
                    assert torch.allclose(
                        alone.eval()(part(x, [i]))[0], mixed[i], atol=1e-4, rtol=1e-4
                    )
        assert (mixed[0] - one[0]).abs().max() > 1e-4


def test_gradients_equal_those_of_the_product() -> None:
    """Each task's samples alone, with u and v as leaves of the obvious expression."""
    backbone = open_tiny("timm ViT")
    x, readout = torch.rand(3, 3, 32, 32), vpt.Linear(backbone.out_features, 2)
    nn.init.normal_(readout.weight)
    prompt = drawn(vpt.MultiTask(vpt.DeepTokens.like(backbone, 2), ["a", "b"]))
    with vpt.PromptedModel(backbone, prompt, readout) as model:
        model(x, tasks=["a", "b", "a"])[:, 0].sum().backward()
    shared = prompt.shared.tokens.detach().clone().requires_grad_()
    u = [p.detach().clone().requires_grad_() for p in prompt.columns]
    total = torch.zeros(())
    plain = vpt.DeepTokens.like(backbone, 2)
    for task, chosen in ((0, [0, 2]), (1, [1])):
        rows = [
            shared[i] * ((1 + u[i][task]) @ (1 + prompt.rows[i][task].detach())) for i in range(3)
        ]
        del plain.tokens
        plain.tokens = rows  # type: ignore[assignment]
        with vpt.PromptedModel(backbone, plain, readout, via="insert") as alone:
            total = total + alone(x[chosen])[:, 0].sum()
        del plain.tokens
        plain = vpt.DeepTokens.like(backbone, 2)
    total.backward()
    assert torch.allclose(prompt.shared.tokens.grad, shared.grad, atol=1e-5)
    assert all(
        torch.allclose(a.grad, b.grad, atol=1e-4) for a, b in zip(prompt.columns, u, strict=True)
    )


def test_config_new_task_and_sizes() -> None:
    backbone = open_tiny("timm ViT")
    prompt = drawn(vpt.MultiTask(vpt.Prefix.like(backbone, 4), ["a", "b"]))
    again = build("MultiTask", prompt.config())
    again.load_state_dict(prompt.state_dict())
    assert again.task_names == ["a", "b"]
    new = prompt.new_task("c", learn="factors")
    learned = {name for name, p in new.named_parameters() if p.requires_grad}
    assert not any("shared" in name for name in learned)
    assert new.task_names == []
    assert torch.equal(new.shared.keys, prompt.shared.keys)
    assert new.shared.keys is not prompt.shared.keys
    assert all(p.requires_grad for p in prompt.new_task("c").parameters())


def test_wrong_input() -> None:
    backbone = open_tiny("timm ViT")
    deep = vpt.DeepTokens.like(backbone, 2)
    prompt, readout = vpt.MultiTask(deep, ["a", "b"]), vpt.Linear(backbone.out_features, 2)
    x = torch.rand(3, 3, 32, 32)
    for call, message in (
        (lambda: vpt.MultiTask(vpt.Border.like(backbone), ["a"]), "MultiTask\\(Border\\)"),
        (lambda: vpt.MultiTask(deep, []), "different names"),
        (lambda: vpt.MultiTask(deep, ["a", "a"]), "different names"),
        (lambda: vpt.MultiTask(deep, "ab"), "different names"),
        (lambda: vpt.MultiTask(vpt.DeepTokens.like(backbone, 2, dropout=0.1), ["a"]), "dropout"),
        (
            lambda: build("MultiTask", {"shared": {"name": "os", "config": {}}, "tasks": ["a"]}),
            "'os'",
        ),
        (lambda: prompt.export("z"), "'z'; this prompt has a, b"),
        (lambda: prompt.new_task("c", learn="some"), "'all' or 'factors'"),
        (
            lambda: vpt.PromptedModel(
                backbone, prompt, vpt.TaskHeads(32, {"b": ["x"], "a": ["y"]})
            ),
            "same order",
        ),
    ):
        with pytest.raises(PromptError, match=message):
            call()
    with vpt.PromptedModel(backbone, prompt, readout) as model:
        for tasks, message in (
            (None, "Say which each sample has"),
            (["a", "z", "a"], "Found tasks z"),
            (["a", "b"], "2 tasks for a batch of 3"),
            (torch.tensor([0, 1, 2]), "task numbers"),
            (torch.tensor([0, -1, 1]), "task numbers"),
        ):
            with pytest.raises(PromptError, match=message):
                model(x, tasks=tasks)
        backbone.model.set_grad_checkpointing(True)
        with pytest.raises(PromptError, match="activation checkpointing"):
            model(x, tasks="a")
        backbone.model.set_grad_checkpointing(False)
    with vpt.PromptedModel(
        backbone, vpt.MultiTask(vpt.Prefix.like(backbone, 2), ["a", "b"]), readout
    ) as model:
        for tasks in (["a", "b"], ["a", "b", "a", "b", "a", "b"]):
            with pytest.raises((PromptError, RuntimeError), match=r"tasks for a batch of|size"):
                model(x[:3], tasks=tasks)
        with pytest.raises(PromptError, match="2 tasks for a batch of 4"):
            model(torch.rand(4, 3, 32, 32), tasks=["a", "b"])
    for wrong in (vpt.DeepTokens(2, [48] * 3, [0, 1, 2]), vpt.ShallowTokens(2, 48, 3)):
        for names in (["a"], ["a", "b"]):
            with pytest.raises(PromptError, match="whose tokens have width 32"):
                vpt.PromptedModel(backbone, vpt.MultiTask(wrong, names), readout)
    with pytest.raises(PromptError, match="cannot be in a Stack"):
        vpt.Stack([prompt, vpt.Border.like(backbone)])
    with vpt.PromptLibrary(backbone) as library:
        library.add("alone", prompt.new_task("x"), readout)
        with pytest.raises(PromptError, match="Heads of several tasks"):
            library.add("heads", deep, vpt.TaskHeads(32, {"a": ["x"], "b": ["y"]}))
        for selecting in (prompt, vpt.L2P.like(backbone)):
            with pytest.raises(PromptError, match="chosen or made for each sample"):
                library.add("all", selecting, readout)
        library.add("one", prompt.export("a"), readout)
