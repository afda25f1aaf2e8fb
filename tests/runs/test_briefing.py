"""What is said before a run: the data as it was understood, the model as it was opened, and the
time.
"""

from __future__ import annotations

import re
import time
from pathlib import Path

import pytest
from families import make, open_tiny
from helpers import colours, tiny_model, write_images, write_sounds
from PIL import Image

import vpt
from vpt.runs.briefing import data_facts, say_before, seconds_of_run, seconds_of_runs


def said(capsys: pytest.CaptureFixture) -> str:
    return " ".join(capsys.readouterr().err.split())


def test_pictures(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    root = write_images(tmp_path / "data", 10)
    (root / "red" / "notes.txt").write_bytes(b"x")
    Image.open(root / "red" / "0.png").save(root / "blue" / "copy.png")
    backbone = open_tiny("timm ViT")
    vpt.adapt(root, backbone, "deep:2", epochs=1).model.close()
    text = said(capsys)
    for words in (
        "classes 3: blue, green, red",
        r"training 19 \(blue 7, green 6, red 6\); what is left",
        r"validation \d \(.*\); 20% of",
        r"test \d \(.*\); 20% of",
        r"1 file \(notes.txt\) left out",
        r"model timm.models.vision_transformer.VisionTransformer \(VisionTransformer, fp32\)",
        r"input 32 × 32 pixels .*mean 0, std 1",
        "prompt 2 fresh tokens in front of each of 3 blocks",
        r"time about \d+ s here",
        "Careful: .*cop",
    ):
        assert re.search(words, text), (words, text)


def test_sounds(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    root = write_sounds(tmp_path / "data")
    backbone = vpt.load_backbone(make("transformers AST"), seconds=0.3)
    data = vpt.load_data(root, backbone.inputs, progress=False)
    say_before(data, backbone, "a prompt", None)
    text = said(capsys)
    assert re.search(
        r"clips 0\.1\d* to 0\.[34]\d* s; the model hears 0\.3 s at a time; \d+ are longer, and are"
        r" heard in windows",
        text,
    )
    assert "time" not in text.replace("at a time", "")
    facts = data_facts(data)
    assert facts["classes"]["high"].keys() == {"train", "val", "test"}
    assert sum(facts["classes"]["high"].values()) == 8
    assert facts["in_windows"] > 0
    assert facts["clip_seconds"][0] < facts["clip_seconds"][1] < 0.41


def test_how_much_of_a_long_clip_is_heard(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    backbone = vpt.load_backbone(make("transformers AST"), seconds=0.3)
    data = vpt.load_data(write_sounds(tmp_path / "data"), backbone.inputs, progress=False)
    data.lengths[0] = 6.0
    say_before(data, backbone, "a prompt", None)
    assert "(40% of the longest)" in said(capsys)


def test_names_give_the_terminal_no_orders(capsys: pytest.CaptureFixture) -> None:
    examples = colours(12).renamed(["a\x1b[2J", "b\u202e", "c"], colours(12).labels)
    say_before(
        vpt.load_data({"train": examples, "val": examples}, open_tiny("timm ViT").inputs),
        open_tiny("timm ViT"),
        "p",
        61.0,
    )
    text = capsys.readouterr().err
    assert "\x1b[2J" not in text
    assert "\u202e" not in text


def test_the_time_is_of_the_right_size_and_leaves_no_trace() -> None:
    import torch

    model = tiny_model()
    data = vpt.load_data({"train": colours(48), "val": colours(24, 1)}, model.backbone.inputs)
    recipe = vpt.Recipe(epochs=10)
    before, state = [p.clone() for p in model.prompt.parameters()], torch.random.get_rng_state()
    told = min(seconds_of_run(model, data, recipe, 1, False) for _ in range(3))
    longer = min(seconds_of_run(model, data, vpt.Recipe(epochs=100), 1, False) for _ in range(3))
    assert longer > 3 * told
    assert seconds_of_runs(model, data, recipe, 6) > told
    assert all(torch.equal(a, b) for a, b in zip(before, model.prompt.parameters(), strict=True))
    assert all(p.grad is None for p in model.parameters())
    assert torch.equal(state, torch.random.get_rng_state())
    assert model.backbone.cache is None
    start = time.perf_counter()
    vpt.fit(model, data.train, data.val, recipe=recipe, progress=False)
    assert 0.1 < (time.perf_counter() - start) / told < 10
