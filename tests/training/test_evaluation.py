"""Scores of clips longer than what the model hears: the mean over their windows, everywhere
alike.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from families import make, open_tiny
from helpers import colours, tiny_model

import vpt
from vpt.data import load_data
from vpt.data.joining import joined
from vpt.data.sounds import decode_sound, starts_of
from vpt.errors import BackboneError
from vpt.runs.predicting import predict
from vpt.training.evaluation import evaluate, scores

RATE = 16000
SECONDS = {"short": 0.5, "two": 1.2, "long": 2.0}


def sounds(root: Path, count: int = 6) -> Path:
    """Two classes of noise, low and high, of several lengths; one clip begins with silence."""
    draw = np.random.default_rng(0)
    for label, hertz in (("low", 300), ("high", 2000)):
        (root / label).mkdir(parents=True)
        for k in range(count):
            seconds = list(SECONDS.values())[k % 3]
            t = np.arange(round(seconds * RATE)) / RATE
            wave = 0.3 * np.sin(2 * np.pi * hertz * t + k) + 0.05 * draw.standard_normal(len(t))
            wave[: RATE if k == 2 else 0] = 0  # of the long ones
            soundfile.write(root / label / f"{k}.wav", wave, RATE)
    return root


@pytest.fixture
def model() -> vpt.PromptedModel:
    backbone = open_tiny("transformers AST base")
    made = vpt.PromptedModel(
        backbone,
        vpt.DeepTokens.like(backbone, 2),
        vpt.Linear(backbone.out_features, ["high", "low"]),
    )
    torch.nn.init.normal_(made.readout.weight)
    return made.eval()


def by_hand(model: vpt.PromptedModel, path: Path) -> torch.Tensor:
    """The mean of the scores of all windows that are not silent."""
    inputs, found = model.backbone.inputs, []
    for start in starts_of(soundfile.info(path).duration, inputs.samples / RATE):
        try:
            wave, length = decode_sound(path, RATE, inputs.samples, start)
        except vpt.errors.DataError:
            continue
        found.append(model((wave[None], torch.tensor([length])))[0])
    return torch.stack(found).mean(0)


def test_scores_of_a_long_clip_are_the_mean_over_its_windows(
    model: vpt.PromptedModel, tmp_path: Path
) -> None:
    data = load_data(sounds(tmp_path / "d"), model.backbone.inputs, progress=False)
    part = data.train
    found, y = scores(model, part)
    assert (len(found), y.tolist()) == (len(part), part.targets)
    expected = torch.stack([by_hand(model, Path(part.name(i))) for i in range(len(part))]).detach()
    assert torch.allclose(found, expected, atol=1e-5)
    features, _ = scores(model, part, outputs=True, batch_size=3)
    # a linear readout of the mean
    assert torch.allclose(model.readout(features), expected, atol=1e-5)
    assert evaluate(model, part)["n"] == len(part)
    heard, clips = part.windows()
    assert len(heard) > len(part)
    assert sorted(set(clips)) == list(range(len(part)))


def test_predictions_too(model: vpt.PromptedModel, tmp_path: Path) -> None:
    files = sorted(sounds(tmp_path / "d").rglob("*.wav"))
    rows = predict(model, files)
    for row, file in zip(rows, files, strict=True):
        assert row.probability == pytest.approx(
            float(by_hand(model, file).detach().softmax(0).max()), abs=1e-5
        )


def test_windows_stay_when_tasks_are_joined(model: vpt.PromptedModel, tmp_path: Path) -> None:
    parts = {}
    for task in ("a", "b"):
        found = load_data(sounds(tmp_path / task), model.backbone.inputs, progress=False).train
        parts[task] = found.renamed([f"{task} high", f"{task} low"], found.labels)
    both = joined(parts)
    assert len(both.windows()[0]) == sum(len(part.windows()[0]) for part in parts.values())
    i = len(parts["a"]) + 1
    assert torch.equal(both[i][0][0], parts["b"][1][0][0])
    assert both.windows()[0].name(0) == parts["a"].name(0)


def test_training_hears_another_window_in_each_epoch(
    model: vpt.PromptedModel, tmp_path: Path
) -> None:
    data = load_data(sounds(tmp_path / "d"), model.backbone.inputs, progress=False)
    heard = [
        [wave.sum().item() for (wave, _), _ in data.train.drawn(0, epoch)] for epoch in range(12)
    ]
    assert heard == [
        [wave.sum().item() for (wave, _), _ in data.train.drawn(0, epoch)] for epoch in range(12)
    ]
    for i in range(len(data.train)):
        assert len({epoch[i] for epoch in heard}) == len(
            data.train.get.windows(data.train.indices[i])
        )
    history = vpt.fit(model, data.train, data.val, epochs=2, batch_size=4, lr=1e-3, progress=False)
    assert len(history.rows) == 3


def test_answers_that_are_no_numbers_are_refused() -> None:
    """An audit of a model that gives NaN looked like any other, and a probe of it ended in a
    foreign error.
    """
    module = make("timm ViT")
    module.norm.weight.data[0] = float("nan")
    data = {"train": colours(12), "val": colours(6, 1)}
    with pytest.raises(
        BackboneError, match=r"VisionTransformer gives NaN for \d+ of \d+ examples.*dtype='fp32'"
    ):
        vpt.adapt(data, module, "deep:1", epochs=1, progress=False)
    backbone = vpt.load_backbone(module)
    with (
        vpt.PromptedModel(backbone, None, vpt.Linear(backbone.out_features, 3)) as model,
        pytest.raises(BackboneError, match="NaN for 6 of 6"),
    ):
        vpt.evaluate(model, colours(6))


def test_scores_are_in_fp32_whatever_ran_before() -> None:
    """A run in bf16 left its precision to everything that came after it in the process."""
    model = tiny_model()
    before = scores(model, colours(12))[0]
    vpt.fit(tiny_model(), colours(12), epochs=1, precision="bf16", progress=False)
    assert torch.equal(scores(model, colours(12))[0], before)
