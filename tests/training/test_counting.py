"""Statistics that a readout learns during a run: when, and on what."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
from families import open_tiny
from helpers import colours

import vpt
from vpt.training.counting import adding_up, average_buffers, learn_statistics

NAMES = ["red", "green", "blue"]


@pytest.mark.parametrize(
    ("how", "refresh", "first", "later"),
    [
        ("random", None, 0, 0),
        ("frequency", None, 48, 0),
        ("iterative", None, 48, 48),
        ("bayes", "epoch", 48, 48),
        ("bayes", "reuse", 48, 0),
    ],
)
def test_when_the_training_data_are_passed_over(
    how: str, refresh: str | None, first: int, later: int
) -> None:
    backbone = open_tiny("timm ViT")
    model = vpt.PromptedModel(
        backbone, vpt.Border.like(backbone, 2), vpt.LabelMap(NAMES, how, refresh=refresh)
    )
    seen: list[int] = []
    inner = model.readout.update
    model.readout.update = lambda out, y: seen.append(len(y)) or inner(out, y)
    learn_statistics(model, colours(), first=True)
    assert sum(seen) == first
    if refresh == "reuse":
        assert not model.readout.counts.any()  # emptied for the epoch's own outputs
        model.readout.update(torch.eye(5)[[1, 2, 3]], torch.arange(3))
    learn_statistics(model, colours())
    assert sum(seen) == first + later + (3 if refresh == "reuse" else 0)
    if refresh == "reuse":
        assert model.readout.mapping()["green"][0][0] == "2"


def test_class_means_are_those_of_the_training_data() -> None:
    backbone = open_tiny("timm ViT")
    model = vpt.PromptedModel(backbone, None, vpt.NearestMean(32, NAMES))
    data = colours()
    learn_statistics(model, data, first=True)
    x = torch.stack([data[i][0] for i in range(48)])
    features = backbone.features(x)
    for label in range(3):
        mean = features[torch.tensor(data.targets) == label].mean(0)
        assert torch.allclose(model.readout.sums[label] / 16, mean, atol=1e-5)


def test_processes_add_what_each_of_them_counted() -> None:
    readout = vpt.LabelMap(2, "bayes", refresh="reuse", source_classes=3)
    readout.counts.fill_(1.0)
    # the other process counted the same
    two = SimpleNamespace(num_processes=2, reduce=lambda value, how: value * 2)
    with adding_up(readout, vpt.Classification(), two):
        readout.update(torch.eye(3), torch.tensor([0, 1, 1]))
    assert readout.counts.tolist() == [[3, 1], [1, 3], [1, 3]]


def test_running_statistics_are_averaged_over_processes_only() -> None:
    prompt = vpt.SampleMask([3, 32, 32])
    norm = prompt.network[1]
    norm.running_mean.fill_(2.0)
    average_buffers(prompt, SimpleNamespace(num_processes=1, reduce=lambda value, how: value * 0))
    assert norm.running_mean[0] == 2
    average_buffers(prompt, SimpleNamespace(num_processes=2, reduce=lambda value, how: value / 2))
    assert norm.running_mean[0] == 1
    assert norm.num_batches_tracked == 0
