"""The recipes of the bundled backbones run for a few steps, resume exactly, and judge backbones by
transfer.
"""

from __future__ import annotations

import csv
import importlib
import io
import json
import os
import re
import shutil
import subprocess
import sys
import zipfile
from functools import partial
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from helpers import write_images, write_sounds
from PIL import Image
from torch import nn

import vpt

EXAMPLES = Path(__file__).parents[1] / "examples"
PRETRAIN = EXAMPLES / "pretrain"
FOLDERS = [PRETRAIN, EXAMPLES / "measure", EXAMPLES / "biased_model"]


@pytest.fixture
def recipe(monkeypatch: pytest.MonkeyPatch):
    """Import a recipe, or a script that measures, as its command does, from its own folder."""
    for folder in FOLDERS:
        monkeypatch.syspath_prepend(folder)
    for name in (p.stem for folder in FOLDERS for p in folder.glob("*.py")):
        monkeypatch.delitem(importlib.sys.modules, name, raising=False)
    AcceleratorState._reset_state()  # a recipe is a process of its own
    yield importlib.import_module
    AcceleratorState._reset_state()


def write_pictures(folder: Path, each: int = 8) -> Path:
    """A data set as the image recipe reads it: two classes of coloured noise, 64 × 64 pixels."""
    folder.mkdir()
    (folder / "classes.tsv").write_text("n1\tred things\nn2\tblue things\nn3\tnothing\n")
    rng = np.random.default_rng(0)
    for name in ("train-0", "train-1", "val"):
        with zipfile.ZipFile(folder / f"{name}.zip", "w") as archive:
            for i in range(each):
                label = i % 2
                array = rng.integers(0, 100, (64, 64, 3), np.uint8)
                array[..., 2 * label] += 100
                file = io.BytesIO()
                Image.fromarray(array).save(file, "WEBP", lossless=True)
                archive.writestr(f"n{label + 1}/{i:05}.webp", file.getvalue())
    return folder


def small_image(module: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MODEL", {**module.MODEL, "depth": 1})


def test_the_image_recipe_runs_and_makes_a_backbone(
    recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys
) -> None:
    image = recipe("image")
    small_image(image, monkeypatch)
    data, out = write_pictures(tmp_path / "data"), tmp_path / "run"
    words = [str(data), "--out", str(out), "--batch", "4", "--save-every", "2", "--without", "1"]
    image.main([*words, "--steps", "4"])
    assert "top-1 on 8 held-out pictures" in capsys.readouterr().out
    rows = list(csv.DictReader((out / "log.csv").read_text().splitlines()))
    assert [row["step"] for row in rows] == ["2", "4"]
    model = vpt.load_backbone(out / "model")
    assert model.class_names == ["red things", "blue things"]
    assert model.inputs.size == (64, 64)
    start = ["--start", str(out / "model" / "model.safetensors")]
    # its second class is left out
    image.main([*words[:2], str(tmp_path / "next"), *words[3:-1], "2", "--steps", "1", *start])
    image.main([*words, "--steps", "4"])  # finished: nothing more is trained
    assert len((out / "log.csv").read_text().splitlines()) == 3


@pytest.mark.long
def test_two_processes_share_the_work(tmp_path: Path) -> None:
    data, out = write_pictures(tmp_path / "data"), tmp_path / "run"
    launch = [
        "-m",
        "torch.distributed.run",
        "--nproc_per_node",
        "2",
        "--master_port",
        str(20000 + os.getpid() % 20000),
    ]
    words = [str(data), "--out", str(out), "--steps", "2", "--batch", "4", "--save-every", "1"]
    command = [sys.executable, *launch, str(PRETRAIN / "image.py"), *words]
    done = subprocess.run(
        command,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stdout.count("held-out pictures") == 1
    assert [row["step"] for row in csv.DictReader((out / "log.csv").read_text().splitlines())] == [
        "1",
        "2",
    ]
    assert {p.name for p in out.iterdir()} == {
        "log.csv",
        "model",
        "state",
        "state.old",
        "train.npy",
        "val.npy",
    }
    assert {p.name for p in (out / "state").iterdir()} >= {
        "random_states_0.pkl",
        "random_states_1.pkl",
    }


def test_too_few_pictures_for_a_batch_are_said(recipe, tmp_path: Path) -> None:
    with pytest.raises(
        SystemExit, match="holds 16 training pictures; needed is at least a batch, 256"
    ):
        recipe("image").main(
            [
                str(write_pictures(tmp_path / "data")),
                "--out",
                str(tmp_path / "run"),
                "--batch",
                "256",
            ]
        )


def test_a_crop_shows_its_share(recipe, monkeypatch: pytest.MonkeyPatch) -> None:
    image = recipe("image")
    plain = {
        "AREA": (0.25, 0.25),
        "ASPECT": (1, 1),
        "ROTATION": 0.0,
        "LIGHT": 0.0,
        "COLOUR": 0.0,
        "GREY": 0.0,
        "NEGATIVE": 0.0,
    }
    for name, value in plain.items():
        monkeypatch.setattr(image, name, value)
    ramp = torch.linspace(0, 1, 64)
    x = torch.stack(
        [ramp.expand(64, 64), ramp[:, None].expand(64, 64), torch.zeros(64, 64)]
    ).expand(8, 3, 64, 64)
    y = image.augmented(x)
    span = y.amax((2, 3)) - y.amin((2, 3))
    assert span[:, :2] == pytest.approx(torch.full((8, 2), 0.5), abs=0.02)


def test_views_keep_their_range_and_differ(recipe) -> None:
    image = recipe("image")
    x = torch.rand(3, 64, 64).expand(6, 3, 64, 64)
    y = image.augmented(x)
    assert y.shape == x.shape
    assert float(y.min()) >= 0
    assert float(y.max()) <= 1
    assert all((y[i] - y[j]).abs().mean() > 0.01 for i in range(6) for j in range(i))


@pytest.mark.parametrize("chance", [0.0, 1.0])
def test_what_is_mixed_is_what_the_targets_say(
    recipe, monkeypatch: pytest.MonkeyPatch, chance: float
) -> None:
    image = recipe("image")
    monkeypatch.setattr(image, "MIX", chance)
    y = torch.arange(8)
    for seed in range(20):
        torch.manual_seed(seed)
        pictures, targets = image.mixed(
            y.float().view(8, 1, 1, 1).expand(8, 3, 64, 64).clone(), y, 8
        )
        shares = targets if targets.ndim == 2 else torch.nn.functional.one_hot(targets, 8)
        torch.testing.assert_close(
            pictures.mean((1, 2, 3)), shares.float() @ y.float(), atol=1e-4, rtol=0
        )
        # each picture has its share once
        torch.testing.assert_close(shares.sum(0).float(), torch.ones(8))
        assert (targets.ndim == 2) == bool(chance)


def test_a_view_without_chance_is_the_picture(recipe, monkeypatch: pytest.MonkeyPatch) -> None:
    image = recipe("image")
    plain = {
        "AREA": (1, 1),
        "ASPECT": (1, 1),
        "ROTATION": 0.0,
        "LIGHT": 0.0,
        "COLOUR": 0.0,
        "GREY": 0.0,
        "NEGATIVE": 0.0,
    }
    for name, value in plain.items():
        monkeypatch.setattr(image, name, value)
    x = torch.rand(16, 3, 64, 64)
    y = image.augmented(x)
    mirrored = [(a - b.flip(2)).abs().max() < 1e-4 for a, b in zip(y, x, strict=True)]
    assert all(m or (a - b).abs().max() < 1e-4 for m, a, b in zip(mirrored, y, x, strict=True))
    assert 0 < sum(mirrored) < 16


def quiet(model: nn.Module) -> float:
    return 0.0


def squares(model: nn.Module, step: int, rank: int, processes: int) -> torch.Tensor:
    x = torch.randn(8, 4)
    return (model(x) - x.sum(1, keepdim=True)).square().mean()


class Tiny(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(1)
        self.blocks, self.head = nn.ModuleList([nn.Linear(4, 4)]), nn.Linear(4, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.blocks[0](x).relu())


def test_a_stopped_run_goes_on_as_if_it_had_not_been(recipe, tmp_path: Path) -> None:
    loop = recipe("loop")
    schedule = loop.Schedule(
        steps=9, batch=8, lr=1e-2, weight_decay=0.1, warmup=2, decay=0.5, seed=3, save_every=3
    )
    whole = loop.train(Accelerator(), Tiny(), squares, schedule, tmp_path / "whole", quiet)
    loop.train(Accelerator(), Tiny(), squares, schedule, tmp_path / "parts", quiet, until=3)
    # killed while it saved
    shutil.copytree(tmp_path / "parts" / "state", tmp_path / "parts" / "state.part")
    loop.train(Accelerator(), Tiny(), squares, schedule, tmp_path / "parts", quiet, until=6)
    shutil.rmtree(tmp_path / "parts" / "state.old")
    # killed between the two renames
    (tmp_path / "parts" / "state").rename(tmp_path / "parts" / "state.old")
    parts = loop.train(Accelerator(), Tiny(), squares, schedule, tmp_path / "parts", quiet)
    for a, b in zip(whole.parameters(), parts.parameters(), strict=True):
        assert torch.equal(a, b)
    assert not torch.equal(parts.head.weight, Tiny().head.weight)


def test_other_settings_do_not_resume(recipe, tmp_path: Path) -> None:
    loop = recipe("loop")
    schedule = loop.Schedule(
        steps=2, batch=8, lr=1e-2, weight_decay=0.1, warmup=1, decay=0.5, seed=3
    )
    loop.train(Accelerator(), Tiny(), squares, schedule, tmp_path, quiet)
    schedule.lr = 1.0
    with pytest.raises(SystemExit, match=r"'lr': 0\.01"):
        loop.train(Accelerator(), Tiny(), squares, schedule, tmp_path, quiet)


def test_a_loss_that_is_not_a_number_stops_and_keeps_the_last_state(recipe, tmp_path: Path) -> None:
    loop = recipe("loop")
    schedule = loop.Schedule(
        steps=4, batch=8, lr=1e-2, weight_decay=0.1, warmup=1, decay=0.5, seed=3, save_every=2
    )
    spoilt = lambda m, step, r, p: squares(m, step, r, p) * (float("nan") if step == 2 else 1)  # noqa: E731
    with pytest.raises(SystemExit, match="not finite after step 4"):
        loop.train(Accelerator(), Tiny(), spoilt, schedule, tmp_path, quiet)
    assert json.loads((tmp_path / "state" / "progress.json").read_text())["step"] == 2


def test_the_rate_rises_stays_and_falls_to_zero(recipe) -> None:
    loop = recipe("loop")
    schedule = loop.Schedule(
        steps=100, batch=1, lr=1.0, weight_decay=0.0, warmup=10, decay=0.4, seed=0
    )
    assert [schedule.rate(step) for step in (0, 4, 9, 30, 59, 60, 80, 99)] == pytest.approx(
        [0.1, 0.5, 1, 1, 1, 1, 0.5, 0.025]
    )


# sound ----------------------------------------------------------------------------------
WORDS = [("en", "one"), ("en", "two"), ("de", "drei")]


@pytest.fixture
def audio(recipe, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The audio recipe with a small model, for three words."""
    module = recipe("audio")
    monkeypatch.setattr(
        module,
        "MODEL",
        {**module.MODEL, "hidden_size": 24, "num_hidden_layers": 1, "intermediate_size": 24},
    )
    monkeypatch.setattr(module, "vocabulary", lambda: WORDS)
    return module


def tones(module: ModuleType, each: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Clips `[3·each,T]` whose words are tones, and their lengths."""
    samples = module.sound().samples
    lengths = torch.linspace(3000, samples, 3 * each).long()
    pitch = torch.arange(3 * each).div(each, rounding_mode="floor")[:, None] * 400 + 300
    time = torch.arange(samples) / 16000
    return (
        torch.sin(2 * torch.pi * pitch * time) * 0.5 * (torch.arange(samples) < lengths[:, None]),
        lengths,
    )


def test_the_audio_recipe_runs_and_makes_a_backbone(audio: ModuleType, tmp_path: Path) -> None:
    (tmp_path / "spoken").mkdir()
    waves, lengths = tones(audio, 6)
    np.save(tmp_path / "spoken" / "clips.npy", (waves * 32767).short().numpy())
    np.save(tmp_path / "spoken" / "lengths.npy", lengths.numpy())
    audio.main(["--out", str(tmp_path), "--utterances", "6", "--steps", "3", "--batch", "4"])
    backbone = vpt.load_backbone(tmp_path / "model")
    assert backbone.class_names == ["one", "two", "drei (de)"]
    assert {p.dtype for p in backbone.model.parameters()} == {torch.float32}
    assert (backbone.inputs.mean, backbone.inputs.std, backbone.inputs.samples) == (
        audio.MEAN,
        audio.STD,
        waves.shape[1],
    )
    assert backbone((waves[:2], lengths[:2])).logits.shape == (2, 3)
    with pytest.raises(SystemExit, match="delete it"):
        audio.main(["--out", str(tmp_path), "--utterances", "7", "--steps", "3"])


def test_what_a_microphone_hears(audio: ModuleType) -> None:
    torch.manual_seed(0)
    waves, lengths = tones(audio, 4)
    heard, kept = audio.heard(waves, lengths, 16000)
    assert heard.shape == waves.shape
    assert float(heard.abs().max()) <= 1
    assert (kept <= waves.shape[1]).all()
    assert (kept >= (lengths / audio.SPEED[1]).long().clamp(max=waves.shape[1])).all()
    silent, _ = audio.heard(torch.zeros_like(waves), lengths, 16000)
    assert silent.isfinite().all()


def test_without_strength_a_clip_is_as_it_was(audio: ModuleType) -> None:
    waves, lengths = tones(audio, 2)
    heard, kept = audio.heard(waves, lengths, 16000, 0.0)
    assert torch.equal(kept, lengths)
    assert (heard - waves / waves.abs().amax(1, keepdim=True)).abs().max() < 1e-4
    assert torch.equal(audio.masked(waves[:, None], 0.0)[:, 0], waves)


def test_a_clip_is_moved_and_resampled_by_what_was_drawn(
    audio: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(audio, "SPEED", (1.0, 1.0))
    waves, lengths = tones(audio, 2)
    moved, kept = audio.placed(waves, lengths)
    for wave, length, other, window in zip(waves, lengths, moved, kept, strict=True):
        spectra = [torch.fft.rfft(x, 1 << 15).abs() for x in (wave[:length], other[:window])]
        assert (spectra[0] - spectra[1]).norm() < 0.05 * spectra[0].norm()


def test_patches_are_dropped_in_training_only(audio: ModuleType) -> None:
    model = audio.build(audio.names())
    drop = audio.PatchDrop(model)
    seen: list[int] = []
    model.audio_spectrogram_transformer.layers[0].register_forward_pre_hook(
        lambda m, args: seen.append(args[0].shape[1])
    )
    x = torch.randn(2, 104, 128)
    for share, training in ((0.5, True), (0.0, True), (0.5, False)):
        drop.share = share
        model.train(training)(x)
    assert seen == [50, 98, 98]


def test_masks_cover_bands_of_bins_and_frames(audio: ModuleType) -> None:
    torch.manual_seed(0)
    masked = audio.masked(torch.ones(20, 104, 128))
    rows, columns = (masked.sum(2) == 0).sum(1), (masked.sum(1) == 0).sum(1)
    assert 0 < int(rows.max()) <= audio.MASKS * audio.MASK_FRAMES
    assert 0 < int(columns.max()) <= audio.MASKS * audio.MASK_BINS


def test_words_are_classes_once_and_none_is_judged_on(recipe) -> None:
    speech, commands = recipe("speech"), recipe("spoken_commands")
    words = speech.vocabulary()
    assert len(words) == len(set(words))
    judged = (
        "zero one two three four five six seven eight nine bed bird cat dog down go happy house"
        " left marvin no off on right sheila stop tree up wow yes"
    )
    assert not {word for _, word in words} & {*judged.split(), *commands.WORDS}
    assert not set(speech.VARIANTS) & set(speech.KEPT_APART)
    voices = [voice for part in commands.VOICES.values() for voice in part]
    assert sorted(voices) == sorted(set(voices)) == sorted(speech.KEPT_APART)


def test_without_espeak_it_is_said(recipe, monkeypatch: pytest.MonkeyPatch) -> None:
    speech = recipe("speech")
    monkeypatch.setattr(speech.ctypes.util, "find_library", lambda name: None)
    with pytest.raises(SystemExit, match="apt-get install espeak-ng"):
        speech.Speaker()


def test_espeak_speaks_and_the_examples_are_made(
    recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    speech = recipe("speech")
    if speech.ctypes.util.find_library("espeak-ng") is None:
        pytest.skip("espeak-ng is not installed")
    speaker = speech.Speaker()
    clips = [
        speaker.say(speech.Utterance("library", f"en-us+{v}", 160, p, 50))
        for v, p in (("m1", 50), ("m1", 50), ("f2", 80))
    ]
    assert abs(len(clips[0]) - len(clips[1])) < 100  # its noise is drawn anew
    assert not torch.equal(clips[0][:3000], clips[2][:3000])
    assert all(4000 < len(clip) < 20000 and 0.1 < clip.abs().max() <= 1 for clip in clips)
    with pytest.raises(ValueError, match="no voice 'xx'"):
        speaker.say(speech.Utterance("a", "xx", 160, 50, 50))
    commands = recipe("spoken_commands")
    monkeypatch.setattr(commands, "EACH", {"train": 2, "val": 1, "test": 1})
    commands.main([str(tmp_path / "a.zip")])
    with zipfile.ZipFile(tmp_path / "a.zip") as archive:
        assert len(archive.namelist()) == 40


# transfer -------------------------------------------------------------------------------
@pytest.mark.long
def test_transfer_prints_a_table_and_goes_on(recipe, tmp_path: Path, capsys) -> None:
    transfer = recipe("transfer")
    write_images(tmp_path / "images", per_class=8)
    words = [
        str(tmp_path / "images"),
        "--shots",
        "4",
        "--epochs",
        "1",
        "--prompt",
        "deep:1",
        "--out",
        str(tmp_path / "t.jsonl"),
    ]
    transfer.main([*words, "--seeds", "1", "--precision", "no"])
    transfer.main([*words, "--seeds", "2", "--precision", "no"])
    assert "±" in capsys.readouterr().out
    rows = [json.loads(line) for line in (tmp_path / "t.jsonl").read_text().splitlines()]
    assert [row["seed"] for row in rows] == [0, 1]
    assert all(0 <= row[method] <= 1 for row in rows for method in transfer.METHODS)


def test_transfer_of_a_sound_model_with_prompts(recipe, tmp_path: Path) -> None:
    """Its attention was made eager, where no recorded prompt acts."""
    transfer = recipe("transfer")
    words = [
        str(write_sounds(tmp_path / "sounds", per_class=4)),
        "--backbones",
        "vpt:ast-tiny",
        "--shots",
        "2",
    ]
    transfer.main(
        [
            *words,
            "--seeds",
            "1",
            "--epochs",
            "1",
            "--prompt",
            "deep:1",
            "--out",
            str(tmp_path / "t.jsonl"),
        ]
    )
    (row,) = [json.loads(line) for line in (tmp_path / "t.jsonl").read_text().splitlines()]
    assert all(0 <= row[method] <= 1 for method in transfer.METHODS)


def test_speakers_stay_on_one_side(recipe, tmp_path: Path) -> None:
    transfer = recipe("transfer")
    backbone = transfer.open_backbone("vpt:ast-tiny@random")
    folder = write_sounds(tmp_path / "sounds", per_class=12)
    for i, file in enumerate(sorted(folder.rglob("*.flac"))):
        file.rename(file.with_name(f"{i}_{'abc'[i % 3]}_.flac"))
    parts = transfer.open_data(str(folder), backbone.inputs)
    data = transfer.split(parts, 4, 0, r"_([a-z])_", None, 100)
    speakers = [
        {re.search(r"_([a-z])_", part.name(i))[1] for i in range(len(part))}
        for part in (data.train, data.val, data.test)
    ]
    assert len(speakers[2]) == 1
    assert not (speakers[0] | speakers[1]) & speakers[2]
    turns = [
        transfer.split(parts, 4, seed, r"_([a-z])_", None, 100).test.name(0) for seed in range(3)
    ]
    assert len({re.search(r"_([a-z])_", name)[1] for name in turns}) == 3
    with pytest.raises(SystemExit, match="finds no group in"):
        transfer.split(parts, 4, 0, r"_[a-z]_", None, 100)


def test_the_last_classes_and_the_rest_for_testing(recipe, tmp_path: Path) -> None:
    transfer = recipe("transfer")
    backbone = transfer.open_backbone("vpt:vit-p8-64")
    folder = write_images(tmp_path / "images", per_class=8)
    data = transfer.split(transfer.open_data(str(folder), backbone.inputs), 5, 0, None, 2, 4)
    assert data.classes == ["green", "red"]
    assert (len(data.train), len(data.val), len(data.test)) == (8, 2, 4)
    every = [
        part.indices[i] for part in (data.train, data.val, data.test) for i in range(len(part))
    ]
    assert len(every) == len(set(every)) == 14


def test_the_keyword_transformer_is_opened_and_takes_prompts(recipe, tmp_path: Path) -> None:
    kwt = recipe("kwt")
    model, front = kwt.KeywordTransformer(), kwt.FrontEnd()
    torch.manual_seed(0)
    tensors = {
        f"frontend.{k}": torch.rand_like(v) + 0.1 for k, v in front.state_dict().items()
    } | model.state_dict()
    np.savez(tmp_path / "kwt1_v2-12.npz", **{k: v.numpy() for k, v in tensors.items()})
    (tmp_path / "labels.txt").write_text("\n".join(f"word{i}" for i in range(12)))
    backbone = kwt.load(tmp_path)
    assert backbone.class_names[-1] == "word11"
    wave, lengths = torch.rand(2, 16000), torch.tensor([16000, 16000])
    front.load_state_dict({k: tensors[f"frontend.{k}"] for k in front.state_dict()})
    assert front(wave, lengths).shape == (2, 98, 40)
    with vpt.PromptedModel(
        backbone, vpt.DeepTokens.like(backbone, count=2), vpt.Identity(12)
    ) as prompted:
        assert prompted((wave, lengths)).shape == (2, 12)


def test_a_keyword_block_is_a_post_norm_encoder_layer(recipe) -> None:
    block = recipe("kwt").Block(64)
    gelu = partial(torch.nn.functional.gelu, approximate="tanh")
    other = torch.nn.TransformerEncoderLayer(
        64, 1, 256, 0.0, gelu, layer_norm_eps=1e-6, batch_first=True
    )
    own = block.state_dict()
    names = {
        "self_attn.out_proj": "attn.proj",
        "linear1": "mlp.fc1",
        "linear2": "mlp.fc2",
        "norm1": "norm1",
        "norm2": "norm2",
    }
    state = {
        f"{a}.{kind}": own[f"{b}.{kind}"] for a, b in names.items() for kind in ("weight", "bias")
    }
    state["self_attn.in_proj_weight"] = torch.cat([own[f"attn.{n}.weight"] for n in "qkv"])
    state["self_attn.in_proj_bias"] = torch.zeros(192)
    other.load_state_dict(state)
    x = torch.randn(2, 9, 64)
    torch.testing.assert_close(block(x), other(x), atol=1e-5, rtol=1e-5)


# models with a planted bias -------------------------------------------------------------
def test_biased_models_are_trained_and_opened_by_name(recipe, tmp_path: Path, capsys) -> None:
    biased = recipe("biased")
    biased.main(["--out", str(tmp_path), "--pictures", "16", "--steps", "2", "--batch", "8"])
    assert "worst_group_accuracy" in capsys.readouterr().out
    digits, faces = (
        vpt.load_backbone(tmp_path / name / "model") for name in ("digits", "portraits")
    )
    assert digits.class_names == ["less than five", "five or more"]
    assert faces.class_names == ["dark", "blond"]
    assert faces.inputs.size == (64, 64)


def write_digits(folder: Path) -> Path:
    """Two hundred digits as a folder of train/digit/file."""
    for i in range(200):
        file = folder / "train" / str(i % 10) / f"{i}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.random.default_rng(i).integers(0, 255, (28, 28), dtype=np.uint8)).save(
            file
        )
    return folder


@pytest.mark.long
def test_the_table_of_a_biased_model(recipe, tmp_path: Path, capsys) -> None:
    digits = write_digits(tmp_path / "digits")
    tiny = [
        "--out",
        str(tmp_path),
        "--pictures",
        "16",
        "--steps",
        "2",
        "--batch",
        "8",
        "--cases",
        "mnist",
    ]
    with pytest.raises(SystemExit, match="needs --digits"):
        recipe("biased").main(tiny)
    recipe("biased").main([*tiny, "--digits", str(digits)])
    fairness, model = recipe("fairness"), str(tmp_path / "mnist/model")
    given = [
        "--model",
        model,
        "--seeds",
        "1",
        "--tuned",
        "40",
        "--tested",
        "60",
        "--epochs",
        "1",
        "--strengths",
        "1",
    ]
    with pytest.raises(SystemExit, match="needs --digits"):
        fairness.main(["mnist", *given])
    given += ["--digits", str(digits), "--out", str(tmp_path / "kept.jsonl")]
    capsys.readouterr()
    fairness.main(["mnist", *given])
    first, kept = capsys.readouterr().out, (tmp_path / "kept.jsonl").read_text()
    assert all(row in first for row in ("bare model", "a quarter", "within 5", "thresholds"))
    fairness.main(["mnist", *given])  # nothing is measured twice
    assert (tmp_path / "kept.jsonl").read_text() == kept
    assert capsys.readouterr().out[-200:] == first[-200:]


def test_a_view_is_zoomed_within_its_bounds(recipe, monkeypatch: pytest.MonkeyPatch) -> None:
    biased = recipe("biased")
    x = torch.rand(8, 3, 64, 64)
    monkeypatch.setattr(biased, "ZOOM", (1.0, 1.0))
    torch.testing.assert_close(biased.moved(x), x, atol=1e-5, rtol=0)
    monkeypatch.setattr(biased, "ZOOM", (1.5, 1.5))
    seen = biased.moved(torch.ones(64, 3, 64, 64)).mean((1, 2, 3))
    # whole, on black or on its own edge
    assert all(abs(float(v) - 1 / 2.25) < 0.03 or float(v) > 0.999 for v in seen)
