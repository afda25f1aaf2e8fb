"""Multitask prompt tuning: what is shared, sampled and distilled; new tasks; exports; resume; wrong
input.
"""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from families import open_tiny
from helpers import colours, stop_at, three_tasks, turned

import vpt
from vpt.data import Data, joined
from vpt.errors import DataError, PromptError, TrainingError
from vpt.tasks.shared import export, share, take_to

QUICK = {"epochs": 3, "batch_size": 8, "lr": 0.02, "progress": False}


def test_learning_sharing_and_exporting(tmp_path: Path) -> None:
    backbone, tasks = open_tiny("timm ViT"), three_tasks()
    shared = share(tasks, backbone, "deep:2", **QUICK)
    assert set(shared.teachers) == set(tasks)
    found = shared.accuracies(tasks, "test")
    assert min(found["plain"], found["turned"]) > 0.6
    prompt = shared.prompt
    assert all(bool(p.abs().sum() > 0) for p in prompt.columns)
    x = torch.stack([tasks["turned"].test[i][0] for i in range(4)])
    with torch.no_grad():
        needed = shared.model(x, tasks="turned")[:, 3:6]
        file = export(tmp_path / "turned.vpt", shared.model, "turned")
        # the shared model goes on
        assert torch.equal(shared.model(x, tasks="turned")[:, 3:6], needed)
        with pytest.raises(PromptError, match="'nothing'"):
            export(tmp_path / "nothing.vpt", shared.model, "nothing")
        vpt.save(tmp_path / "all.vpt", shared.model)
        shared.model.close()
        with vpt.load(file, backbone) as alone:
            assert type(alone.prompt) is vpt.DeepTokens
            assert alone.classes == tasks["turned"].classes
            assert torch.allclose(alone(x), needed, atol=1e-4)
            assert vpt.evaluate(alone, tasks["turned"].test)["accuracy"] == pytest.approx(
                found["turned"]
            )
        with vpt.load(tmp_path / "all.vpt", backbone) as again:
            assert torch.allclose(again(x, tasks="turned")[:, 3:6], needed, atol=1e-6)


@pytest.mark.parametrize("learn", ["all", "factors", "nothing"])
def test_new_tasks_leave_the_shared_prompt_as_it_is(learn: str) -> None:
    backbone, tasks = open_tiny("timm ViT"), three_tasks()
    prompt = vpt.MultiTask(vpt.DeepTokens.like(backbone, 2), list(tasks))
    before = {name: value.clone() for name, value in prompt.state_dict().items()}
    data = turned(tasks["plain"], 2)
    data.val = None  # type: ignore[assignment]  # so that the last epoch is kept
    with take_to(prompt, data, backbone, learn=learn, **QUICK) as model:
        assert all(torch.equal(value, before[name]) for name, value in prompt.state_dict().items())
        own = model.prompt
        assert torch.equal(own.shared.tokens, prompt.shared.tokens) == (learn != "all")
        assert (own.columns[0].abs().sum() == 0) == (learn == "nothing")
        assert vpt.evaluate(model, data.test)["accuracy"] > 0.5


def test_balanced_and_proportional_sampling(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[torch.Tensor] = []
    real = vpt.Distillation.losses

    def losses(
        self: vpt.Distillation, logits: torch.Tensor, y: torch.Tensor, group: torch.Tensor
    ) -> dict:
        seen.append(group)
        return real(self, logits, y, group)

    monkeypatch.setattr(vpt.Distillation, "losses", losses)
    for sampling, needed in (("balanced", [24, 24, 24]), ("proportional", [24, 24, 12])):
        seen.clear()
        share(
            three_tasks(),
            open_tiny("timm ViT"),
            "deep:1",
            sampling=sampling,
            **(QUICK | {"epochs": 1}),
        ).model.close()
        assert torch.bincount(torch.cat(seen)).tolist() == needed


def test_the_teachers_scores_reach_their_own_examples(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each position's targets are the teacher's scores of that very example, −inf elsewhere."""
    backbone, tasks, seen = open_tiny("timm ViT"), three_tasks(), {}
    real = vpt.Distillation.bind

    def bind(self: vpt.Distillation, y: list, group: list, *rest: object) -> None:
        seen.update(targets=self.targets, y=y, group=group)
        real(self, y, group, *rest)

    monkeypatch.setattr(vpt.Distillation, "bind", bind)
    share(tasks, backbone, "deep:2", **(QUICK | {"epochs": 8})).model.close()
    targets, y, group = seen["targets"], torch.tensor(seen["y"]), torch.tensor(seen["group"])
    own = torch.tensor([0] * 3 + [1] * 3 + [2] * 6)
    assert torch.equal(torch.isfinite(targets), own[None] == group[:, None])
    assert (targets.argmax(1) == y).float().mean() > 0.9  # the teachers have learned them


def test_a_passed_recipe_wins() -> None:
    backbone, tasks, found = open_tiny("timm ViT"), three_tasks(6), []
    recipe = vpt.Recipe(seed=7, epochs=1)
    for said in ({"recipe": recipe}, {"seed": 7, "epochs": 1}, {"epochs": 1}):
        shared = share(
            {name: tasks[name] for name in ("plain", "turned")},
            backbone,
            "deep:1",
            distil=0,
            progress=False,
            **said,
        )
        shared.model.close()
        taken = take_to(shared.prompt, tasks["six"], backbone, progress=False, **said)
        taken.close()
        found.append(
            torch.cat(
                [
                    p.detach().flatten()
                    for p in (*shared.prompt.parameters(), *taken.prompt.parameters())
                ]
            )
        )
    assert torch.equal(found[0], found[1])
    assert not torch.equal(found[0], found[2])


def test_without_teachers() -> None:
    shared = share(three_tasks(), open_tiny("timm ViT"), "prefix:2", distil=0, **QUICK)
    assert shared.teachers == {}
    shared.model.close()


CUTS = [("step", 4), pytest.param("finish_epoch", 14, marks=pytest.mark.long), ("step", 40)]


@pytest.mark.parametrize(("method", "call"), CUTS)
def test_a_killed_run_goes_on_to_the_same_bytes(
    method: str, call: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def go(out: str, resume: bool) -> bytes:
        share(
            three_tasks(),
            open_tiny("timm ViT"),
            "deep:2",
            out=tmp_path / out,
            resume=resume,
            **QUICK,
        ).model.close()
        return (tmp_path / out / "prompt.vpt").read_bytes()

    whole = go("whole", False)
    with monkeypatch.context() as patch:
        stop_at(patch, method, call)
        with pytest.raises(KeyboardInterrupt):
            go("killed", False)
    assert go("killed", True) == whole


def test_wrong_input() -> None:
    backbone, tasks = open_tiny("timm ViT"), three_tasks()
    lone = Data(
        tasks["plain"].train.subset([0, 3]), tasks["plain"].val, None, tasks["plain"].classes, []
    )
    empty = Data(
        tasks["plain"].train.subset([]), tasks["plain"].val, None, tasks["plain"].classes, []
    )
    for call, error, message in (
        (lambda: share({}, backbone), PromptError, "different names"),
        (lambda: share([tasks], backbone), DataError, "name: data"),
        (lambda: share({"a": "folder"}, backbone), DataError, "name: data"),
        (lambda: share({"a": empty}, backbone), DataError, "'a' has examples of 0 classes"),
        (lambda: share({"a": lone}, backbone), DataError, "'a' has examples of 1 classes"),
        (lambda: share(tasks, backbone, "border:2"), PromptError, "MultiTask\\(Border\\)"),
        (lambda: share(tasks, backbone, sampling="all"), TrainingError, "balanced, proportional"),
        (lambda: share(tasks, backbone, distil=-1), TrainingError, "weight=-1"),
        (
            lambda: take_to(vpt.DeepTokens.like(backbone), tasks["plain"], backbone),
            PromptError,
            "Found DeepTokens",
        ),
        (
            lambda: take_to(
                vpt.MultiTask(vpt.DeepTokens.like(backbone), ["a"]),
                tasks["plain"],
                backbone,
                learn="x",
            ),
            PromptError,
            "'x'",
        ),
    ):
        with pytest.raises(error, match=message):
            call()
        assert backbone.attachment is None
    model = vpt.PromptedModel(
        backbone,
        vpt.MultiTask(vpt.DeepTokens.like(backbone), ["a", "b"]),
        vpt.TaskHeads(32, {"a": ["a: x"], "b": ["b: y"]}),
    )
    x = list(torch.rand(2, 3, 32, 32))
    for part, message in (
        ([(x[0], 0), (x[1], 1)], "The group of"),
        (joined({"c": colours(3).renamed(["a: x", "b: y"], [0] * 3)}), "examples of task c"),
    ):
        with pytest.raises(DataError, match=message):
            vpt.evaluate(model, part)
    model.close()
