"""Label maps against a case worked by hand and an independent slow version, and in training."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
from families import open_tiny

import vpt
from vpt.errors import DataError, PromptError
from vpt.readouts.label_map import bayesian, one_to_one

# four source classes, two wanted; examples (likeliest source class, class): counts below
BACKBONE = SimpleNamespace(class_names=["ant", "bee", "cat", "dog"], classes=4, out_features=8)
SEEN = [(0, 0), (0, 0), (0, 0), (0, 1), (2, 1), (2, 0), (3, 1), (3, 1)]
COUNTS = torch.tensor([[3.0, 1.0], [0.0, 0.0], [1.0, 1.0], [0.0, 2.0]])
# BLM by hand: n / (row sum + 1): rows /5, /1, /3, /3 → columns (0.6, 0, 1/3, 0) and (0.2, 0, 1/3,
# 2/3), then each sums to 1
BAYES = torch.tensor(
    [[0.6 / (14 / 15), 0.2 / 1.2], [0, 0], [1 / 3 / (14 / 15), 1 / 3 / 1.2], [0, 2 / 3 / 1.2]]
)


def logits(places: list[int], classes: int = 4) -> torch.Tensor:
    return torch.nn.functional.one_hot(torch.tensor(places), classes).float() * 3


def fitted(how: str, **options: object) -> vpt.LabelMap:
    readout = vpt.LabelMap(["x", "y"], how, **options)
    readout.bind(BACKBONE)
    readout.update(logits([s for s, _ in SEEN]), torch.tensor([t for _, t in SEEN]))
    readout.settle()
    return readout


def test_a_case_worked_by_hand() -> None:
    for how in ("frequency", "iterative"):
        readout = fitted(how)
        assert torch.equal(readout.counts, COUNTS)
        # 3 is the largest: ant → x; then dog → y
        assert readout.mapping() == {"x": [("ant", 1.0)], "y": [("dog", 1.0)]}
        assert readout(torch.tensor([[1.0, 2.0, 3.0, 4.0]])).tolist() == [[1.0, 4.0]]
    readout = fitted("bayes")
    assert torch.allclose(readout.weights, BAYES)
    given = torch.randn(5, 4)
    assert torch.allclose(readout(given), given @ BAYES)
    assert [name for name, _ in readout.mapping()["y"]] == ["dog", "cat", "ant"]


def test_several_sources_per_class_are_averaged() -> None:
    # ant → x (3), dog → y (2), then cat → x (1, before cat → y), then bee → y (nothing left but
    # zeros)
    weights = fitted("iterative", sources=2).weights
    assert weights.tolist() == [[0.5, 0], [0, 0.5], [0.5, 0], [0, 0.5]]


def slow(
    outputs: torch.Tensor, y: torch.Tensor, classes: int, how: str, smoothing: float, top: float
) -> torch.Tensor:
    """Weights with loops only."""
    number = outputs.shape[1]
    counts = [[0.0] * classes for _ in range(number)]
    kept = max(1, int(top * classes)) if how == "bayes+" else 1
    for row, target in zip(outputs.softmax(1).tolist(), y.tolist(), strict=True):
        best = sorted(range(number), key=lambda s: -row[s])[:kept]
        for s in best:
            counts[s][target] += row[s] if how == "bayes+" else 1
    weights = torch.zeros(number, classes)
    if how.startswith("bayes"):
        for t in range(classes):
            column = [counts[s][t] / (sum(counts[s]) + smoothing) for s in range(number)]
            for s in range(number):
                weights[s, t] = column[s] / sum(column)
        return weights
    pairs = sorted((-counts[s][t], s, t) for s in range(number) for t in range(classes))
    sources: set[int] = set()
    targets: set[int] = set()
    for _, s, t in pairs:
        if s not in sources and t not in targets:
            weights[s, t] = 1
            sources.add(s)
            targets.add(t)
    return weights


@pytest.mark.parametrize("how", ["frequency", "iterative", "bayes", "bayes+"])
@pytest.mark.parametrize("seed", range(5))
def test_equals_an_independent_slow_version(how: str, seed: int) -> None:
    torch.manual_seed(seed)
    outputs, y = torch.randn(200, 30), torch.randint(12, (200,))
    y[:12] = torch.arange(12)
    outputs += 2 * torch.randn(12, 30)[y]
    readout = vpt.LabelMap(12, how, smoothing=0.5, top=0.3)
    readout.bind(SimpleNamespace(class_names=None, classes=30))
    for part in range(0, 200, 64):
        readout.update(outputs[part : part + 64], y[part : part + 64])
    readout.settle()
    assert torch.allclose(readout.weights, slow(outputs, y, 12, how, 0.5, 0.3), atol=1e-6)
    assert torch.allclose(readout.weights.sum(0), torch.ones(12))


def test_random_maps_are_distinct_and_seeded() -> None:
    maps = [vpt.LabelMap(10, "random", seed=seed, source_classes=160).weights for seed in (0, 0, 1)]
    assert torch.equal(maps[0], maps[1])
    assert not torch.equal(maps[0], maps[2])
    assert maps[0].sum(0).tolist() == [1.0] * 10
    assert maps[0].sum(1).max() == 1


def test_a_class_that_was_never_counted_gets_the_mean() -> None:
    assert bayesian(torch.tensor([[2.0, 0.0], [0.0, 0.0]])).tolist() == [[1.0, 0.5], [0.0, 0.5]]
    assert one_to_one(torch.zeros(3, 2)).tolist() == [[1, 0], [0, 1], [0, 0]]


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: vpt.LabelMap(3, "best"), "one of random, frequency"),
        (lambda: vpt.LabelMap(3, top=0), "top=0"),
        (lambda: vpt.LabelMap(3, sources=0), "sources=0"),
        (lambda: vpt.LabelMap(3, "frequency", refresh="epoch"), "needed is once"),
        (lambda: vpt.LabelMap(3, "bayes", refresh="never"), "needed is epoch or reuse"),
        (
            lambda: vpt.LabelMap(3, "iterative", sources=2).bind(BACKBONE),
            "The model has 4 classes; 3 classes with 2 each",
        ),
        (
            lambda: vpt.LabelMap(3, source_classes=7).bind(BACKBONE),
            "from 7 classes; this model has 4",
        ),
        (lambda: vpt.LabelMap(3).bind(SimpleNamespace(classes=0)), "has none"),
    ],
)
def test_what_cannot_be_is_refused(make: object, message: str) -> None:
    with pytest.raises(PromptError, match=message):
        make()


def test_nothing_counted_and_labels_out_of_range_are_refused() -> None:
    readout = vpt.LabelMap(2)
    readout.bind(BACKBONE)
    with pytest.raises(PromptError, match="counted no examples"):
        readout(torch.randn(1, 4))
    with pytest.raises(DataError, match="labels from 0 to 2"):
        readout.update(torch.randn(2, 4), torch.tensor([0, 2]))


@pytest.mark.parametrize("how", ["random", "frequency", "iterative", "bayes", "bayes+"])
@pytest.mark.parametrize("form", ["border", "deep"])
def test_fit_learns_the_map_and_the_file_keeps_it(how: str, form: str, tmp_path: object) -> None:
    backbone = open_tiny("timm ViT")
    torch.manual_seed(0)
    x, y = torch.rand(24, 3, 32, 32), torch.arange(24) % 3
    x += 0.3 * torch.rand(3, 3, 32, 32)[y]
    data = list(zip(x.clamp(0, 1), y.tolist(), strict=True))
    prompt = (
        vpt.Border.like(backbone, width=3)
        if form == "border"
        else vpt.DeepTokens.like(backbone, count=2)
    )
    model = vpt.PromptedModel(backbone, prompt, vpt.LabelMap(["a", "b", "c"], how))
    vpt.fit(model, data, data, epochs=2, lr=0.05, progress=False)
    # the map in the model is that of its own best epoch
    if how in ("iterative", "bayes", "bayes+"):
        readout = vpt.LabelMap(["a", "b", "c"], how)
        readout.bind(backbone)
        with torch.no_grad():
            readout.update(model.outputs(x.clamp(0, 1)), y)
        readout.settle()
        assert torch.allclose(readout.weights, model.readout.weights, atol=1e-6)
    scores = model(x.clamp(0, 1))
    vpt.save(tmp_path / "map.vpt", model)
    model.close()
    again = vpt.load(tmp_path / "map.vpt", backbone)
    assert torch.equal(again(x.clamp(0, 1)), scores)
    assert again.readout.mapping() == model.readout.mapping()


def test_reuse_counts_the_epochs_own_outputs_without_another_pass() -> None:
    backbone = open_tiny("timm ViT")
    torch.manual_seed(0)
    x, y = torch.rand(16, 3, 32, 32), torch.arange(16) % 2
    data = list(zip(x, y.tolist(), strict=True))
    model = vpt.PromptedModel(
        backbone, vpt.Border.like(backbone, width=3), vpt.LabelMap(2, "bayes", refresh="reuse")
    )
    seen = []
    inner = model.readout.update
    model.readout.update = lambda out, y: seen.append(len(y)) or inner(out, y)
    vpt.fit(model, data, epochs=2, lr=1e-9, batch_size=5, progress=False)
    assert sum(seen) == 16 * 3  # before training, and the updates of two epochs
    fresh = vpt.LabelMap(2, "bayes")
    fresh.bind(backbone)
    with torch.no_grad():
        # nothing moved, so the epoch's own outputs are those of a pass after it
        fresh.update(model.outputs(x), y)
    fresh.settle()
    assert torch.allclose(model.readout.weights, fresh.weights)
