"""How each method learns: statistics in any order, a ridge without validation data, one task."""

from __future__ import annotations

import pytest
import torch
from families import open_tiny
from helpers import six_in_three

import vpt
from vpt.errors import DataError
from vpt.readouts.ridge import STRENGTHS
from vpt.tasks.sequence import run
from vpt.tasks.sequence.journal import Journal
from vpt.tasks.sequence.methods import Tuning, count_statistics
from vpt.tasks.sequence.trial import Trial
from vpt.training.evaluation import scores

QUICK = {"epochs": 2, "batch_size": 6, "lr": 0.02, "progress": False}


def test_the_ridge_without_validation_data_chooses_on_a_fifth_and_then_learns_from_all() -> None:
    """On the data that it was fitted to, the least λ always looked best."""
    backbone, tasks = open_tiny("timm ViT"), six_in_three()
    for task in tasks:  # no class can be told from another: the strongest λ is the best guess
        labels, turn = list(task.train.labels), torch.randperm(len(task.train)).tolist()
        for i, j in zip(task.train.indices, turn, strict=True):
            labels[i] = task.train.targets[j]
        task.train = task.train.renamed(task.classes, labels)
        task.val = None
    readout = run("ridge", tasks, backbone, progress=False).model.readout
    assert readout.strength > min(STRENGTHS)
    assert int(readout.counts.sum()) == sum(len(task.train) for task in tasks)


def test_statistics_do_not_care_for_order() -> None:
    """Learned task by task, class means and ridge are what all data at once give."""
    backbone, tasks = open_tiny("timm ViT"), six_in_three()
    found = run("nearest-mean", tasks, backbone, progress=False).model
    names = found.classes
    with torch.no_grad():
        means = found.readout.sums / found.readout.counts[:, None]
        found.close()
        bare = vpt.PromptedModel(backbone, None, vpt.NearestMean(backbone.out_features, names))
        for task in tasks:
            x, y = scores(bare, task.train, outputs=True)
            for c, name in enumerate(task.classes):
                assert torch.allclose(means[names.index(name)], x[y == c].mean(0), atol=1e-5)
        bare.close()


def test_no_training_example_of_an_earlier_task_is_read_again() -> None:
    tasks, read = six_in_three(3), []
    for t, task in enumerate(tasks):
        real = task.train.get
        task.train.get = lambda i, t=t, real=real: (read.append(t), real(i))[1]
    run("coda", tasks, open_tiny("timm ViT"), **QUICK).model.close()
    assert read == sorted(read)
    assert set(read) == {0, 1, 2}


def test_zero_start_and_validation_part() -> None:
    backbone, tasks = open_tiny("timm ViT"), six_in_three(3)
    one = run("sequential", tasks, backbone, start="zeros", part="val", **QUICK)
    one.model.close()
    two = run("sequential", tasks, backbone, **QUICK)
    two.model.close()
    assert one.accuracy != two.accuracy
    assert not one.model.readout.spread


def test_a_task_of_one_class_is_told_from_nothing_but_by_statistics() -> None:
    tasks, backbone = six_in_three(3), open_tiny("timm ViT")
    for task in tasks:
        task.train = vpt.data.with_classes(task.train, task.classes[:1])
        task.test = vpt.data.with_classes(task.test, task.classes[:1])
    trial = Trial(tasks, backbone, "test", 0, "no", progress=False)
    journal = Journal(None, "x", resume=False, overwrite=False, main=True)
    tuning = Tuning(trial, journal, "deep", vpt.DeepTokens.like(backbone, 1), vpt.Recipe(), "means")
    with pytest.raises(DataError, match="Task 1 has one class"):
        tuning.one_after_another()
    outcome = count_statistics(trial, journal, "nearest-mean")
    assert [len(row) for row in outcome.accuracy] == [1, 2, 3]
    outcome.model.close()
