"""Distilling a bundled backbone: a pass that was stopped goes on, a run resumes exactly, and what
comes out opens.
"""

from __future__ import annotations

import importlib
import io
import zipfile
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch
from accelerate.state import AcceleratorState
from PIL import Image
from safetensors.torch import load_file, save_file
from transformers import (
    CLIPImageProcessor,
    CLIPVisionConfig,
    CLIPVisionModel,
    WhisperConfig,
    WhisperFeatureExtractor,
    WhisperModel,
)

import vpt

PRETRAIN = Path(__file__).parents[1] / "examples" / "pretrain"
EACH, BATCH = 8, 4


@pytest.fixture
def distil(monkeypatch: pytest.MonkeyPatch):
    """The recipe, imported as its command does, with a small pupil and small pieces."""
    monkeypatch.syspath_prepend(PRETRAIN)
    for name in (p.stem for p in PRETRAIN.glob("*.py")):
        monkeypatch.delitem(importlib.sys.modules, name, raising=False)
    AcceleratorState._reset_state()  # a recipe is a process of its own
    module = importlib.import_module("distil")
    module.lessons = importlib.import_module("lessons")
    image = module.lessons.image
    monkeypatch.setattr(image, "MODEL", {**image.MODEL, "depth": 1})
    monkeypatch.setattr(module.lessons.Pictures, "size", 48)
    monkeypatch.setattr(module, "PIECE", 6)
    monkeypatch.setattr(module, "AT_ONCE", 4)
    yield module
    AcceleratorState._reset_state()


@pytest.fixture
def words(distil: ModuleType, tmp_path: Path) -> list[str]:
    """The command on two classes of coloured noise, with a tiny random teacher and start."""
    data, teacher = tmp_path / "data", tmp_path / "teacher"
    data.mkdir()
    (data / "classes.tsv").write_text("n1\tred things\nn2\tblue things\n")
    rng = np.random.default_rng(0)
    for name in ("train-0", "train-1", "val"):
        with zipfile.ZipFile(data / f"{name}.zip", "w") as archive:
            for i in range(EACH):
                array = rng.integers(0, 100, (64, 64, 3), np.uint8)
                array[..., 2 * (i % 2)] += 100
                file = io.BytesIO()
                Image.fromarray(array).save(file, "WEBP", lossless=True)
                archive.writestr(f"n{i % 2 + 1}/{i:05}.webp", file.getvalue())
    torch.manual_seed(0)
    shape = {"hidden_size": 32, "intermediate_size": 32, "num_hidden_layers": 1, "image_size": 64}
    tower = CLIPVisionModel(CLIPVisionConfig(**shape, num_attention_heads=2, patch_size=16))
    tower.save_pretrained(teacher)
    CLIPImageProcessor(size=64, crop_size=64).save_pretrained(teacher)
    save_file(distil.lessons.image.build(2).state_dict(), tmp_path / "start.safetensors")
    told = {"--teacher": teacher, "--start": tmp_path / "start.safetensors", "--batch": BATCH}
    told |= {"--pieces": tmp_path / "pieces", "--save-every": 2}
    return ["image", str(data), *(str(part) for item in told.items() for part in item)]


def stopped_at(call: int, inner):
    """`inner`, until it was called so often; then the run is stopped."""
    calls = 0

    def outer(*args):
        nonlocal calls
        calls += 1
        if calls == call:
            raise KeyboardInterrupt
        return inner(*args)

    return outer


def test_a_run_stopped_halfway_makes_the_same_weights(
    distil: ModuleType, words: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys
) -> None:
    words = [*words, "--steps", "4"]
    distil.main([*words, "--out", str(tmp_path / "whole")])
    assert "top-1 on all held-out examples" in capsys.readouterr().out
    again = [*words, "--out", str(tmp_path / "parts")]
    whole_losses = distil.losses
    monkeypatch.setattr(distil, "losses", stopped_at(4, whole_losses))
    with pytest.raises(KeyboardInterrupt):
        distil.main(again)
    monkeypatch.setattr(distil, "losses", whole_losses)
    assert not (tmp_path / "parts" / "model").exists()
    AcceleratorState._reset_state()
    distil.main(again)
    files = [tmp_path / name / "model" / "model.safetensors" for name in ("whole", "parts")]
    whole, parts, start = (load_file(f) for f in [*files, tmp_path / "start.safetensors"])
    assert all(torch.equal(whole[name], parts[name]) for name in whole)
    assert whole.keys() == start.keys()  # the heads that spoke to the teacher are gone
    assert not torch.equal(whole["head.weight"], start["head.weight"].half())
    model = vpt.load_backbone(tmp_path / "whole" / "model")
    assert model.class_names == ["red things", "blue things"]


def test_pieces_that_are_there_are_not_asked_for_again(
    distil: ModuleType, words: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[int] = []
    opened = distil.Pictures.teacher
    calls = 3  # then it is stopped

    def counted(lesson):
        answer = opened(lesson)

        def look(chosen):
            if len(seen) == calls:
                raise KeyboardInterrupt
            seen.append(len(chosen))
            return answer(chosen)

        return look

    words = [*words, "--out", str(tmp_path / "run"), "--steps", "0"]
    monkeypatch.setattr(distil.Pictures, "teacher", counted)
    with pytest.raises(KeyboardInterrupt):  # at the end of the second piece
        distil.main(words)
    assert seen == [4, 2, 4]
    first = (tmp_path / "pieces" / "0000.npy").read_bytes()
    assert not (tmp_path / "pieces" / "0001.npy").exists()
    calls = 9
    for count, asked in ((8, [4, 2]), (8, []), (100, [4])):
        seen.clear()
        AcceleratorState._reset_state()
        distil.main([*words, "--pictures", str(count)])
        assert seen == asked
    assert (tmp_path / "pieces" / "0000.npy").read_bytes() == first
    assert not (tmp_path / "run" / "model").exists()
    assert [np.load(tmp_path / "pieces" / f"{i:04}.npy").shape for i in range(3)] == [
        (6, 65, 32),
        (6, 65, 32),
        (4, 65, 32),
    ]


def test_answers_of_another_teacher_are_refused(
    distil: ModuleType, words: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    words = [*words, "--out", str(tmp_path / "run"), "--steps", "0"]
    distil.main(words)
    AcceleratorState._reset_state()
    monkeypatch.setattr(distil.Pictures, "size", 64)
    with pytest.raises(SystemExit, match=r"'size': 48.*'size': 64.*name another folder"):
        distil.main(words)


def test_too_few_pictures_for_a_batch_are_said(
    distil: ModuleType, words: list[str], tmp_path: Path
) -> None:
    with pytest.raises(SystemExit, match="Found 3 examples to train on; needed is at least"):
        distil.main([*words, "--out", str(tmp_path / "run"), "--pictures", "3"])


def test_each_first_part_holds_all_classes_alike(distil: ModuleType) -> None:
    targets = torch.arange(90) // 30
    order = distil.balanced(targets, 0)
    assert sorted(order.tolist()) == list(range(90))
    assert torch.equal(targets[order[:12]].bincount(), torch.full((3,), 4))
    assert not torch.equal(order, distil.balanced(targets, 1))


def test_the_answers_move_with_the_picture(
    distil: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    moved = distil.lessons.moved
    torch.manual_seed(0)
    coarse = torch.rand(16, 3, 8, 8)
    x = torch.nn.functional.interpolate(coarse, (64, 64), mode="bilinear", align_corners=False)
    flat = coarse.flatten(2).transpose(1, 2)
    mean = lambda y: torch.nn.functional.avg_pool2d(y, 8).flatten(2).transpose(1, 2)  # noqa: E731
    seen, parts = moved(x, flat, 8)
    with_them, without = ((mean(seen) - y).abs().mean() for y in (parts, flat))
    assert with_them < 0.4 * without
    monkeypatch.setattr(distil.lessons, "ZOOM", (1.0, 1.0))
    seen, parts = moved(x, flat, 8)
    mirrored = [
        (one.flip(2) - other).abs().max() < 1e-4 for one, other in zip(x, seen, strict=True)
    ]
    assert 0 < sum(mirrored) < 16
    for i, flipped in enumerate(mirrored):
        assert flipped or (x[i] - seen[i]).abs().max() < 1e-4
        expected = coarse[i].flip(2) if flipped else coarse[i]
        torch.testing.assert_close(parts[i], expected.flatten(1).T)


def test_light_and_colour_keep_their_range_and_differ(
    distil: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    x = torch.rand(3, 8, 8).expand(6, 3, 8, 8)
    y = distil.lessons.lit(x)
    assert (float(y.min()), float(y.max())) >= (0, 0)
    assert float(y.max()) <= 1
    assert all((y[i] - y[j]).abs().mean() > 0.01 for i in range(6) for j in range(i))
    for name in ("LIGHT", "COLOUR", "GREY", "NEGATIVE"):
        monkeypatch.setattr(distil.lessons, name, 0.0)
    torch.testing.assert_close(distil.lessons.lit(x), x)


def test_a_pupil_leaves_patches_out_in_training_only(
    distil: ModuleType, words: list[str], tmp_path: Path
) -> None:
    options = distil.parsed([*words, "--out", str(tmp_path)])
    pupil = distil.Pupil(distil.Pictures(options), 16, parts=True)
    x = torch.randn(2, 3, 64, 64)
    pupil.drop = 0.75
    said = pupil.train()(x)
    assert said["parts"].shape == (2, 16, 16)
    marked = torch.arange(64.0).expand(2, 64)[:, :, None]
    assert torch.equal(distil.rows(marked, said["kept"])[..., 0].long(), said["kept"])
    whole = pupil.eval()(x)
    assert torch.equal(whole["kept"], torch.arange(64).expand(2, 64))
    torch.testing.assert_close(whole["labels"], pupil.model(x))


def test_a_loss_is_the_weighted_sum(distil: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    whole, parts, labels = torch.randn(4, 8), torch.randn(4, 6, 8), torch.arange(4)
    kept = torch.rand(4, 6).argsort(1)[:, :3]
    said = {"whole": whole + 1, "parts": distil.rows(parts, kept) + 2, "kept": kept}
    said |= {"labels": torch.eye(4) * 50}
    for name, value in {"WHOLE": 3, "PARTS": 5, "LABEL_SMOOTHING": 0.0}.items():
        monkeypatch.setattr(distil, name, value)
    assert float(distil.losses(said, whole, parts, labels)) == pytest.approx(3 + 5 * 4, abs=1e-4)
    del said["parts"]  # of sound
    assert float(distil.losses(said, whole, parts, labels)) == pytest.approx(3, abs=1e-4)


def test_words_are_taught_by_a_whisper_encoder(
    distil: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    audio = distil.lessons.audio
    small = {"hidden_size": 24, "num_hidden_layers": 1, "intermediate_size": 24}
    monkeypatch.setattr(audio, "MODEL", {**audio.MODEL, **small})
    monkeypatch.setattr(audio, "vocabulary", lambda: [("en", "one"), ("de", "drei")])
    for name, value in {"UTTERANCES": 5, "HELD_OUT": 1}.items():
        monkeypatch.setattr(audio, name, value)
    torch.manual_seed(0)
    samples = audio.sound().samples
    waves = torch.sin(torch.arange(samples) * torch.linspace(0.05, 0.5, 10)[:, None]) * 0.5
    (tmp_path / "spoken").mkdir()
    np.save(tmp_path / "spoken" / "clips.npy", (waves * 32767).short().numpy())
    np.save(tmp_path / "spoken" / "lengths.npy", np.linspace(3000, samples, 10).astype(int))
    shape = {"d_model": 16, "encoder_layers": 1, "decoder_layers": 1, "vocab_size": 64}
    heads = {"encoder_attention_heads": 2, "decoder_attention_heads": 2}
    tokens = {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2, "decoder_start_token_id": 1}
    WhisperModel(WhisperConfig(**shape, **heads, **tokens)).save_pretrained(tmp_path / "teacher")
    WhisperFeatureExtractor().save_pretrained(tmp_path / "teacher")
    save_file(audio.build(audio.names()).state_dict(), tmp_path / "start.safetensors")
    told = {"--teacher": tmp_path / "teacher", "--start": tmp_path / "start.safetensors"}
    told |= {"--out": tmp_path / "run", "--steps": 2, "--batch": BATCH}
    distil.main(["audio", str(tmp_path), *(str(part) for item in told.items() for part in item)])
    answers = np.load(tmp_path / "run" / "pieces" / "0000.npy")
    assert answers.shape == (6, 1, 16)
    assert np.isfinite(answers).all()
    assert np.unique(answers, axis=0).shape == answers.shape  # each clip has its own
    assert vpt.load_backbone(tmp_path / "run" / "model").class_names == ["one", "drei (de)"]
