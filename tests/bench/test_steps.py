"""The pieces of work that are timed: each is what it says, and leaves the backbone as it was."""

from __future__ import annotations

import importlib.util

import pytest
import torch

from vpt.backbones import count_hooks
from vpt.bench.steps import Case, Setting, Stage
from vpt.errors import VptError

SMALL = Setting(batch=2, tokens=(3, 5))
PEFT = importlib.util.find_spec("peft") is not None


@pytest.fixture(scope="module")
def stage() -> Stage:
    return Stage(SMALL)


def test_every_case_runs_and_leaves_nothing_behind(stage: Stage) -> None:
    backbone = stage.backbone
    before, hooks = backbone.fingerprint(), count_hooks(backbone.model)
    kinds = {case.kind for case in stage.cases()}
    assert kinds == {
        "plain",
        "probe",
        "insert",
        "ours",
        "baked",
        "autocast",
        "rounded",
        "full",
        *(["lora"] if PEFT else []),
    }
    for case in stage.cases():
        with stage.ready(case) as run:
            run()
        assert backbone.attachment is None
    assert backbone.fingerprint() == before
    assert count_hooks(backbone.model) == hooks


def test_a_training_step_trains_what_it_says(stage: Stage) -> None:
    for kind, changes in (("probe", False), ("ours", True), ("insert", True)):
        seen = []
        make_model = stage._prompted
        stage._prompted = lambda case, backbone: seen.append(make_model(case, backbone)) or seen[-1]
        try:
            with stage.ready(Case(kind, 3 if changes else 0, True)) as run:
                before = {name: p.detach().clone() for name, p in seen[0].named_parameters()}
                run()
                now = dict(seen[0].named_parameters())
        finally:
            del stage._prompted
        moved = {
            name.split(".")[0]
            for name, value in before.items()
            if not torch.equal(value, now[name])
        }
        assert moved == ({"prompt", "readout"} if changes else {"readout"})
        assert seen[0].via == ("insert" if kind == "insert" else "auto")


def test_operations_are_those_of_the_equations(stage: Stage) -> None:
    """Of the plain forward by hand; a step of recorded tokens has fewer than one of inserted
    tokens.
    """
    model = stage.backbone.model
    count, width, depth = model.pos_embed.shape[1], model.embed_dim, len(model.blocks)
    hidden, patch = model.blocks[0].mlp.fc1.out_features, model.patch_embed.proj.weight[0].numel()
    block = 2 * count * (4 * width * width + 2 * width * hidden) + 4 * count * count * width
    needed = 2 * (
        depth * block
        + 2 * (count - model.num_prefix_tokens) * patch * width
        + 2 * width * model.num_classes
    )
    assert stage.operations(Case("plain")) == needed
    steps = {kind: stage.operations(Case(kind, 5, True)) for kind in ("ours", "insert")}
    assert steps["ours"] < 0.95 * steps["insert"]
    assert 1.5 * needed < steps["ours"] < 2.1 * needed
    assert (
        stage.operations(Case("baked", 5))
        < stage.operations(Case("ours", 5))
        < stage.operations(Case("insert", 5))
    )
    assert not stage.counting


@pytest.mark.skipif(not PEFT, reason="peft is not installed")
def test_lora_trains_little_and_full_fine_tuning_all(stage: Stage) -> None:
    for kind in ("lora", "full"):
        with stage.ready(Case(kind, training=True)) as run:
            run()
        assert stage.tuned[kind] is not None


WRONG = [
    ({"batch": 0}, "batch=0"),
    ({"tokens": ()}, r"tokens=\[\]"),
    ({"precision": "int8"}, "precision='int8'"),
    ({"device": "cuda"}, "GPU"),
]


@pytest.mark.parametrize(("changes", "message"), WRONG)
def test_settings_that_cannot_be(changes: dict, message: str) -> None:
    with pytest.raises(VptError, match=message):
        Setting(**changes)


def test_a_model_without_blocks_has_a_plain_forward_a_probe_and_fine_tuning() -> None:
    stage = Stage(Setting(source="test_resnet", weights="random", batch=2))
    assert {case.kind for case in stage.cases()} == {"plain", "probe", "full"}
    for case in stage.cases():
        with stage.ready(case) as run:
            run()


def test_sound_runs_too() -> None:
    stage = Stage(Setting(source="vpt:ast-tiny", batch=2, tokens=(2,)))
    for case in stage.cases():
        with stage.ready(case) as run:
            run()
