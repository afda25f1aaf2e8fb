"""Sequences of tasks: every method learns, forgets as told, resumes to the bit; wrong sequences are
said at once.
"""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from families import open_tiny
from helpers import six_classes, six_in_three

import vpt
from vpt.data import Data
from vpt.errors import DataError, PromptError, TrainingError
from vpt.tasks.sequence import BASELINES, run, split

QUICK = {"epochs": 2, "batch_size": 6, "lr": 0.02, "progress": False}
METHODS = [
    "sequential",
    "l2p",
    "dual",
    "coda",
    "coda:3@1-2",
    "prefix:2",
    "queries:2",
    "ridge:queries:2",
    "ridge:blocks:2",
    *BASELINES,
]


@pytest.mark.parametrize("method", METHODS)
def test_every_method_learns_and_leaves_the_model_as_it_was(method: str, tmp_path: Path) -> None:
    backbone, tasks = open_tiny("timm ViT"), six_in_three()
    fingerprint = backbone.fingerprint()
    outcome = run(method, tasks, backbone, out=tmp_path, **QUICK)
    joint = method == "joint"
    assert [len(row) for row in outcome.accuracy] == ([3] if joint else [1, 2, 3])
    assert outcome.final_average > 0.4  # of six classes
    assert (outcome.forgetting_l2p is None) == joint
    assert outcome.model.classes == [name for task in tasks for name in task.classes]
    queried = method.partition(":")[0] in ("l2p", "dual", "coda")
    assert bool(outcome.usage) == queried
    if queried:
        assert 0 < outcome.parts_used <= 1
    found = vpt.evaluate(outcome.model, tasks[1].test)["accuracy"]
    assert found == pytest.approx(outcome.accuracy[-1][1])
    outcome.model.close()
    report = json.loads((tmp_path / "results.json").read_text())
    assert report["accuracy"] == outcome.accuracy
    with vpt.load(tmp_path / "prompt.vpt", backbone) as again:
        assert vpt.evaluate(again, tasks[1].test)["accuracy"] == pytest.approx(found)
    assert backbone.fingerprint() == fingerprint


def test_prompts_and_functions_are_methods_too() -> None:
    backbone, tasks = open_tiny("timm ViT"), six_in_three(3)
    prompt = vpt.CODAPrompt.like(backbone, 2)
    before = {name: value.clone() for name, value in prompt.state_dict().items()}
    for method in (prompt, lambda b: vpt.DeepTokens.like(b, 1)):
        outcome = run(method, tasks, backbone, **QUICK)
        assert len(outcome.accuracy) == 3
        outcome.model.close()
    assert prompt.tasks == 1  # a copy was tuned
    assert all(torch.equal(value, before[name]) for name, value in prompt.state_dict().items())


def test_a_passed_recipe_wins() -> None:
    backbone, tasks, rows = open_tiny("timm ViT"), six_in_three(3), []
    for said in (
        {"recipe": vpt.Recipe(seed=7, epochs=1)},
        {"seed": 7, "recipe": vpt.Recipe(epochs=1)},
        {"recipe": vpt.Recipe(epochs=1)},
    ):
        outcome = run("coda", tasks, backbone, progress=False, **said)
        outcome.model.close()
        rows.append(torch.cat([p.detach().flatten() for p in outcome.model.prompt.parameters()]))
    assert torch.equal(rows[0], rows[1])
    assert not torch.equal(rows[0], rows[2])


def test_labels_are_matched_by_name() -> None:
    """Test examples that number the classes in another order."""
    backbone, tasks = open_tiny("timm ViT"), six_in_three(4)
    needed = run("nearest-mean", tasks, backbone, progress=False)
    needed.model.close()
    for task in tasks:
        task.test = task.test.renamed(
            task.classes[::-1], [1 - y if y >= 0 else y for y in task.test.labels]
        )
    found = run("nearest-mean", tasks, backbone, progress=False)
    found.model.close()
    assert found.accuracy == needed.accuracy


def test_precision_is_the_recipes_whatever_ran_before(tmp_path: Path) -> None:
    rows = []
    for precision in ("no", "bf16", "no"):
        outcome = run("coda", six_in_three(4), open_tiny("timm ViT"), precision=precision, **QUICK)
        outcome.model.close()
        rows.append(torch.cat([p.detach().flatten() for p in outcome.model.prompt.parameters()]))
    assert torch.equal(rows[0], rows[2])
    assert not torch.equal(rows[0], rows[1])


def test_split() -> None:
    data = Data(*(six_classes(12, s) for s in range(3)), six_classes(6).classes, [])
    tasks = split(data, 3, seed=None)
    assert [task.classes for task in tasks] == [data.classes[:3], data.classes[3:]]
    assert all(
        len(part) == 6 and part.classes == task.classes
        for task in tasks
        for part in (task.train, task.val, task.test)
    )
    assert {n for task in split(data, 2, seed=1) for n in task.classes} == set(data.classes)
    for size in (0, 4):
        with pytest.raises(DataError, match="divides"):
            split(data, size)


def test_wrong_input(tmp_path: Path) -> None:
    backbone, tasks = open_tiny("timm ViT"), six_in_three(3)
    whole = Data(*(six_classes(12, s) for s in range(3)), six_classes(6).classes, [])
    empty = Data(tasks[0].train.subset([]), tasks[0].val, tasks[0].test, tasks[0].classes, [])
    untested = Data(tasks[0].train, tasks[0].val, None, tasks[0].classes, [])
    for method, sequence, more, error, message in (
        ("coda", [], {}, DataError, "no tasks"),
        ("coda", [tasks[0], tasks[0]], {}, DataError, "appears in the tasks task 1, task 2"),
        ("coda", [tasks[0], empty], {}, DataError, "'task 2' has no examples"),
        ("coda", [untested], {}, DataError, "Task 1 has no test examples"),
        ("coda", tasks, {"part": "train"}, DataError, "'test' or 'val'"),
        ("coda", tasks, {"start": "ones"}, TrainingError, "'means' or 'zeros'"),
        ("coda", tasks, {"epoch": 3}, TrainingError, "Found settings epoch"),
        ("coda", split(whole, 1), {}, DataError, "Task 1 has one class"),
        ("nothing", tasks, {}, PromptError, "Found prompt 'nothing'"),
    ):
        with pytest.raises(error, match=message):
            run(method, sequence, backbone, progress=False, **more)
        assert backbone.attachment is None
    for odd in (None, "signdigits", tasks[0], [None]):
        with pytest.raises(DataError, match=r"a list of vpt\.Data"):
            run("coda", odd, backbone, progress=False)
    run("sequential", tasks, backbone, out=tmp_path, **QUICK).model.close()
    with pytest.raises(TrainingError, match="holds a run already"):
        run("sequential", tasks, backbone, out=tmp_path, **QUICK)
    with pytest.raises(TrainingError, match="other tasks or settings"):
        run("coda", tasks, backbone, out=tmp_path, resume=True, **QUICK)
    with pytest.raises(TrainingError, match="holds a run"):
        run("ridge", tasks, backbone, out=tmp_path, progress=False)
    assert backbone.attachment is None
