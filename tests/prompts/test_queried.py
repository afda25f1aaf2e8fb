"""Prompts made for each sample: on every family the six properties hold, and no sample's answer
depends on its batch mates.
"""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable
from typing import Any

import pytest
import torch
from families import EXTRA, MODELS, of_each_kind, open_tiny, refusal
from helpers import colours
from torch import Tensor, nn

import vpt
from vpt.backbones import count_hooks
from vpt.errors import PromptError
from vpt.prompts import build, parse
from vpt.prompts.queried import cosine
from vpt.sites import Bare, KeyValues, Observe, Site

METHODS: dict[str, Callable[..., vpt.Prompt]] = {
    "l2p": lambda b, **more: vpt.L2P.like(b, 3, length=4, top=3, blocks=[0, b.depth - 1], **more),
    "dual": lambda b, **more: vpt.DualPrompt.like(b, 4, **more),
    "coda": lambda b, **more: vpt.CODAPrompt.like(b, 3, length=4, **more),
}


def moved(prompt: vpt.Prompt, seed: int = 0) -> vpt.Prompt:
    """Away from its start, frozen parts too."""
    generator = torch.Generator().manual_seed(seed)
    for p in prompt.parameters():
        p.data += 1.5 * torch.randn(p.shape, generator=generator)
    return prompt


def examples(backbone: vpt.Backbone, count: int = 3) -> Any:
    x = backbone.inputs.example(count)
    generator = torch.Generator().manual_seed(3)
    if isinstance(x, tuple):
        return (torch.rand(x[0].shape, generator=generator) - 0.5, x[1])
    return torch.rand(x.shape, generator=generator)


def part(x: Any, chosen: list[int]) -> Any:
    return tuple(value[chosen] for value in x) if isinstance(x, tuple) else x[chosen]


def reversed_rows(site: Site) -> Site:
    if not isinstance(site, KeyValues):
        return site

    def make(keys: Tensor, values: Tensor) -> tuple[Tensor, Tensor, None]:
        own_keys, own_values, _ = site.make(keys, values)
        return own_keys.flip(2), own_values.flip(2), None

    return KeyValues(site.block, site.count, make)


def lengths(backbone: vpt.Backbone, x: Any) -> list[int]:
    """Tokens that every block hands on."""
    found: list[int] = []

    def see(module: nn.Module, args: tuple, output: Any) -> None:
        found.append((output[0] if isinstance(output, tuple) else output).numel())

    handles = [block.module.register_forward_hook(see) for block in backbone.blocks]
    with torch.no_grad():
        backbone.run(x)
    for handle in handles:
        handle.remove()
    return found


@pytest.mark.parametrize("name", of_each_kind([*MODELS, *EXTRA]))
def test_six_properties_and_batch_independence(name: str) -> None:
    backbone = open_tiny(name)
    if words := refusal(name, "prefix"):
        for make in METHODS.values():
            with pytest.raises(vpt.errors.VptError, match=words):
                make(backbone)
        return
    x = examples(backbone)
    with torch.no_grad():
        bare, hooks, fingerprint = (
            backbone.run(x),
            count_hooks(backbone.model),
            backbone.fingerprint(),
        )
    sizes = lengths(backbone, x)
    readout = vpt.Linear(backbone.out_features, 3)
    nn.init.normal_(readout.weight, generator=torch.Generator().manual_seed(1))
    for method, one_pass in [*((method, False) for method in METHODS), ("coda", True)]:
        prompt = METHODS[method](backbone, one_pass=one_pass)
        prompt.grow(7)
        moved(prompt)
        model = vpt.PromptedModel(backbone, prompt, readout).eval()
        with torch.no_grad():
            out = model(x)
            assert (out - readout(bare.features)).abs().max() > 5e-4 * out.abs().max()
            for chosen in ([1], [2, 0], [0, 1, 1, 2]):
                assert torch.allclose(model(part(x, chosen)), out[chosen], atol=1e-4, rtol=1e-4)
            features = backbone.features(x)
        assert lengths(backbone, x) == sizes  # 3
        model.train()  # 5
        (backbone.features(x) * torch.linspace(-1, 1, features.shape[1])).sum().backward()
        if (penalty := prompt.penalty()) is not None:
            penalty.backward()
        for p in prompt.parameters():
            rows = p.grad.flatten(1).abs().sum(1) if p.requires_grad and p.ndim > 1 else p.grad
            assert (rows is None) if not p.requires_grad else bool((rows != 0).all())
        assert all(p.grad is None for p in backbone.model.parameters())
        torch.optim.SGD(prompt.parameters(), lr=0.1).step()  # 6
        model.close()
        moved(prompt.eval(), 1)
        found = []
        for sites in (prompt.sites(), [reversed_rows(site) for site in prompt.sites()]):  # 4
            attachment = backbone.insert(sites)
            with torch.no_grad():
                found.append(backbone.features(x))
            attachment.remove()
        assert torch.allclose(*found, atol=1e-4, rtol=1e-4)
        assert backbone.fingerprint() == fingerprint
        with torch.no_grad():  # 1 and 2
            assert torch.equal(backbone.run(x).features, bare.features)
        assert count_hooks(backbone.model) == hooks


@pytest.fixture
def backbone() -> vpt.Backbone:
    return open_tiny("timm ViT")


@pytest.mark.parametrize("method", METHODS)
def test_each_sample_gets_what_a_prefix_of_its_own_would_do(
    backbone: vpt.Backbone, method: str
) -> None:
    """Against the independent prefix, sample by sample."""
    prompt = moved(METHODS[method](backbone))
    x, readout = examples(backbone), vpt.Linear(backbone.out_features, 3)
    nn.init.normal_(readout.weight)
    model = vpt.PromptedModel(backbone, prompt, readout).eval()
    with torch.no_grad():
        out = model(x)
        sites = [site for site in prompt.sites() if isinstance(site, KeyValues)]
        made = [site.make(torch.zeros(3, 2, 1, 16), torch.zeros(3, 2, 1, 16)) for site in sites]
    model.close()
    for i in range(3):
        alone = []
        for site, (keys, values, _) in zip(sites, made, strict=True):
            own = vpt.Prefix.like(backbone, keys.shape[2], blocks=[site.block])
            chosen = i if len(keys) > 1 else 0
            own.load_state_dict({"keys": keys[chosen][None], "values": values[chosen][None]})
            alone.append(own)
        with vpt.PromptedModel(backbone, vpt.Stack(alone), readout) as single, torch.no_grad():
            assert torch.allclose(single(x[i : i + 1]), out[i : i + 1], atol=1e-5)


@pytest.mark.parametrize("method", METHODS)
def test_configs_files_copies_and_stacks(
    backbone: vpt.Backbone, method: str, tmp_path: Any
) -> None:
    prompt = METHODS[method](backbone)
    prompt.grow(1)
    moved(prompt)
    again = build(type(prompt).__name__, prompt.config())
    again.load_state_dict(prompt.state_dict())
    assert [p.requires_grad for p in again.parameters()] == [
        p.requires_grad for p in prompt.parameters()
    ]
    assert again.describe() == prompt.describe()
    x = examples(backbone)
    model = vpt.PromptedModel(backbone, prompt, vpt.Linear(backbone.out_features, 2)).eval()
    nn.init.normal_(model.readout.weight)
    with torch.no_grad():
        out = model(x)
        vpt.save(tmp_path / "a.vpt", model)
        copied = copy.deepcopy(model)
        assert torch.equal(copied(x), out)
        assert torch.equal(pickle.loads(pickle.dumps(model))(x), out)
        model.swap(vpt.Stack([vpt.DeepTokens.like(backbone, 1), prompt]))
        with model.eval().baked():
            assert torch.allclose(model(x), model(x))
        stacked = model.prompt
        model.train()
        model(x)
        assert (prompt.penalty() is None) == (stacked.penalty() is None)
        model.close()
        with vpt.load(tmp_path / "a.vpt", backbone) as loaded:
            assert torch.allclose(loaded(x), out, atol=1e-6)


def test_the_query_is_the_bare_models_features(backbone: vpt.Backbone) -> None:
    x, seen = examples(backbone), []
    bare = backbone.features(x)
    border = vpt.Border.like(backbone, 3, init="uniform")
    attachment = backbone.insert([*border.sites(), Bare(seen.append)])
    backbone.run(x)
    attachment.remove()
    assert torch.allclose(seen[-1], bare, atol=1e-6)  # not of the bordered input
    assert not seen[-1].requires_grad


def test_one_pass_asks_the_tokens_before_the_block(backbone: vpt.Backbone) -> None:
    tokens = backbone.record(examples(backbone))[1]["tokens"]
    prompt = vpt.CODAPrompt.like(backbone, 2, length=2, blocks=[1], one_pass=True)
    assert isinstance(prompt.sites()[0], Observe)
    with vpt.PromptedModel(backbone, prompt, vpt.Linear(backbone.out_features, 2)) as model:
        model(examples(backbone))
        assert torch.allclose(prompt.query(0), tokens.mean(1), atol=1e-6)
        assert not prompt.query(0).requires_grad


def test_cosine() -> None:
    assert torch.allclose(
        cosine(torch.tensor([[3.0, 4.0]]), torch.tensor([[1.0, 0.0], [0.0, 2.0]])),
        torch.tensor([[0.6, 0.8]]),
    )


def test_wrong_input(backbone: vpt.Backbone) -> None:
    for call, message in (
        (lambda: vpt.L2P.like(backbone, length=5), "length=5; needed is an even number"),
        (lambda: vpt.L2P.like(backbone, 3, top=4), "top=4 of pool=3"),
        (lambda: vpt.CODAPrompt.like(backbone, 0), "components=0"),
        (lambda: vpt.CODAPrompt.like(backbone, blocks=[9]), "0 to 2"),
        (lambda: vpt.DualPrompt.like(backbone, general=3), "general=3"),
        (lambda: vpt.CODAPrompt(2, 4, 2, 16, [0, 1], [32]), "1 query widths for 2 blocks"),
        (lambda: vpt.CODAPrompt(2, 4, 2, 16, [0], 32, tasks=10**9), "from 1 to 4096"),
        (lambda: vpt.CODAPrompt(2, 4, 2, 16, [0], 32).query(0), "no input yet"),
        (
            lambda: vpt.PromptedModel(
                backbone, vpt.CODAPrompt(2, 4, 2, 16, [0], 48), vpt.Linear(32, 2)
            ),
            "query of width 32",
        ),
        (
            lambda: vpt.PromptedModel(
                backbone, vpt.L2P(4, 4, 2, 2, 16, [0], 48, one_pass=True), vpt.Linear(32, 2)
            ),
            "query of width 32",
        ),
        (
            lambda: vpt.PromptedModel(
                backbone, vpt.CODAPrompt(2, 4, 4, 16, [0], 32), vpt.Linear(32, 2)
            ),
            "Found prefix keys",
        ),
    ):
        with pytest.raises(PromptError, match=message):
            call()


@pytest.mark.parametrize("spec", ["coda:3@1-2", "l2p:4@2", "dual:4@1-2"])
def test_training_from_the_command_lines_words_is_the_same_with_and_without_kept_activations(
    spec: str,
) -> None:
    found = []
    for cache in ("auto", "off"):
        backbone = open_tiny("timm ViT")
        prompt = parse(spec, backbone, seed=0)
        with vpt.PromptedModel(
            backbone, prompt, vpt.Linear(backbone.out_features, colours(3).classes)
        ) as model:
            vpt.fit(
                model, colours(12), colours(6, 1), epochs=2, lr=0.02, cache=cache, progress=False
            )
            assert len(backbone.bare_features.kept) == 18  # training and validation
        found.append(torch.cat([p.detach().flatten() for p in prompt.parameters()]))
    assert torch.allclose(*found, atol=1e-5)


def test_augmented_examples_are_not_kept(backbone: vpt.Backbone) -> None:
    prompt = vpt.CODAPrompt.like(backbone, 2)
    with vpt.PromptedModel(
        backbone, prompt, vpt.Linear(backbone.out_features, colours(3).classes)
    ) as model:
        vpt.fit(model, colours(6), None, epochs=2, augment="crop", progress=False)
    assert not backbone.bare_features.kept
    assert backbone.bare_features.keep


def test_the_penalty_is_learned_from_but_not_shown(backbone: vpt.Backbone) -> None:
    """History shows the cross-entropy; keys of L2P move all the same."""
    shown = []
    for pull in (0.0, 50.0):
        prompt = vpt.L2P.like(backbone, 3, pull=pull)
        before = prompt.keys[0].detach().clone()
        with vpt.PromptedModel(
            backbone, prompt, vpt.Linear(backbone.out_features, colours(3).classes)
        ) as model:
            history = vpt.fit(
                model, colours(12), None, epochs=1, batch_size=12, weight_decay=0.0, progress=False
            )
        shown.append(history.rows[1]["loss"])
        assert torch.equal(prompt.keys[0], before) == (pull == 0.0)
    assert shown[0] == pytest.approx(shown[1])


def test_autocast_does_not_touch_the_choice(backbone: vpt.Backbone) -> None:
    prompt = moved(vpt.CODAPrompt.like(backbone, 2))
    with (
        vpt.PromptedModel(backbone, prompt, vpt.Linear(backbone.out_features, 3)) as model,
        torch.no_grad(),
    ):
        model(examples(backbone))
        plain = prompt.make(0, torch.zeros(3, 2, 1, 16), torch.zeros(3, 2, 1, 16))[0]
        with torch.autocast("cpu", dtype=torch.bfloat16):
            assert torch.equal(
                prompt.make(0, torch.zeros(3, 2, 1, 16), torch.zeros(3, 2, 1, 16))[0], plain
            )


@pytest.mark.long
def test_compiled(backbone: vpt.Backbone) -> None:
    readout, x = vpt.Linear(backbone.out_features, 3), examples(backbone)
    nn.init.normal_(readout.weight)
    with (
        vpt.PromptedModel(backbone, vpt.CODAPrompt.like(backbone, 2), readout) as model,
        torch.no_grad(),
    ):
        compiled = torch.compile(model.eval(), backend="eager")
        assert torch.allclose(compiled(x), model(x), atol=1e-6)
        assert torch.allclose(compiled(0.9 * x), model(0.9 * x), atol=1e-6)
        with pytest.raises(vpt.errors.TrainingError, match="cannot be compiled"):
            vpt.fit(model, colours(6), None, compile="eager", progress=False)


def test_activation_checkpointing_is_refused(backbone: vpt.Backbone) -> None:
    model = vpt.PromptedModel(
        backbone, vpt.CODAPrompt.like(backbone, 2), vpt.Linear(backbone.out_features, 3)
    )
    backbone.model.set_grad_checkpointing(True)
    with pytest.raises(PromptError, match="activation checkpointing"):
        model(examples(backbone))
    backbone.model.set_grad_checkpointing(False)
    model.close()
