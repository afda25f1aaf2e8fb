"""The short form, end to end on tiny models: folders of images and sounds, own modules, bad input,
resuming.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import transformers
from families import HF_AST, SOUND, KeywordTransformer, make, open_tiny
from helpers import colours, stop_at, write_images, write_sounds

import vpt
from vpt.errors import DataError, PromptFileError, TrainingError, VptError
from vpt.training.evaluation import scores

FAST = {"epochs": 2, "batch_size": 8, "progress": False}


@pytest.mark.parametrize(
    "prompt",
    [
        "shallow:2",
        "border:3+deep:2",
        *(pytest.param(form, marks=pytest.mark.long) for form in ("prefix:2", "patch:5")),
    ],
)
def test_image_folder_end_to_end(tmp_path: Path, prompt: str) -> None:
    data, out = write_images(tmp_path / "data"), tmp_path / "run"
    backbone = open_tiny("timm ViT")
    result = vpt.adapt(data, backbone, prompt, out=out, **FAST)
    report = json.loads((out / "metrics.json").read_text())
    assert report["test_n"] == 6
    assert report["train_n"] == 18
    assert 0 <= report["test_accuracy"] <= 1
    assert set(report["baselines"]) == {"nearest_mean", "linear_probe"}
    assert report["classes"] == ["blue", "green", "red"]
    assert report["seed"] == 0
    assert report["seconds"] > 0
    assert report["parameters_trained"]["prompt"] == sum(
        p.numel() for p in result.model.prompt.parameters()
    )
    pictures = {"curves.png"} | (
        {"border.png", "reprogrammed.png"} if "border" in prompt else set()
    )
    assert pictures <= {p.name for p in out.iterdir()}
    assert not (out / "checkpoint.safetensors").exists()
    x = backbone.inputs.example(4)
    expected = result.model(x)
    result.model.close()
    assert torch.equal(vpt.load(out / "prompt.vpt", backbone)(x), expected)


def test_sound_folder_with_an_ast(tmp_path: Path) -> None:
    transformers.ASTForAudioClassification(transformers.ASTConfig(**HF_AST)).save_pretrained(
        tmp_path / "ast"
    )
    backbone = vpt.load_backbone(tmp_path / "ast", seconds=0.4)
    result = vpt.adapt(
        write_sounds(tmp_path / "data", per_class=16),
        backbone,
        "border:2+deep:2",
        out=tmp_path / "run",
        **FAST,
    )
    assert result.metrics["baselines"]["linear_probe"]["test"] >= 0.75  # a low tone and a high one
    assert (tmp_path / "run" / "border.png").exists()


def test_own_module_in_a_new_process_predicts_the_same_bits(tmp_path: Path) -> None:
    torch.manual_seed(0)
    module = KeywordTransformer()
    torch.save(module.state_dict(), tmp_path / "own.pt")
    backbone = vpt.load_backbone(module, inputs=SOUND)
    result = vpt.adapt(
        write_sounds(tmp_path / "data"), backbone, "deep:2", out=tmp_path / "run", **FAST
    )
    data = vpt.load_data(tmp_path / "data", SOUND, progress=False)
    torch.save(scores(result.model, data.test)[0], tmp_path / "expected.pt")
    program = f"""
import sys; sys.path.insert(0, {str(Path(__file__).parents[1])!r})
import torch, vpt
from families import SOUND, KeywordTransformer
from vpt.training.evaluation import scores
torch.set_num_threads({torch.get_num_threads()})
module = KeywordTransformer()
module.load_state_dict(torch.load({str(tmp_path / "own.pt")!r}))
model = vpt.load({str(tmp_path / "run" / "prompt.vpt")!r}, vpt.load_backbone(module, inputs=SOUND))
data = vpt.load_data({str(tmp_path / "data")!r}, SOUND, progress=False)
assert torch.equal(scores(model, data.test)[0], torch.load({str(tmp_path / "expected.pt")!r}))
"""
    subprocess.run([sys.executable, "-W", "ignore", "-c", program], check=True)


def test_it_starts_from_the_probe_of_prompted_features() -> None:
    backbone = open_tiny("timm ViT")
    data = {"train": colours(60), "val": colours(30, 1), "test": colours(30, 2)}
    result = vpt.adapt(data, backbone, "deep:2", augment="none", **FAST)
    assert result.history.rows[0]["val_accuracy"] > 0.9
    assert "linear probe" in result.metrics["verdict"]
    assert result.file is None


def test_a_prompt_by_name_starts_in_the_midst_of_the_models_own_tokens() -> None:
    """Random tokens blinded a real model: a probe under them was 24 points below the bare one. A
    prompt in hand stays.
    """
    data = {"train": colours(30), "val": colours(6, 1)}
    began: dict[str, torch.Tensor] = {}
    for prompt in ("deep:3", lambda backbone: vpt.DeepTokens.like(backbone, 3)):
        result = vpt.adapt(
            data, open_tiny("timm ViT"), prompt, augment="none", epochs=1, lr=1e-9, progress=False
        )
        began[str(type(prompt))] = result.model.prompt.tokens.detach()
        result.model.close()
    backbone = open_tiny("timm ViT")
    # classes come in turn here
    own = backbone.record(torch.stack([data["train"][i][0] for i in range(16)]))
    named, held = began.values()
    for i, rows in enumerate(named):
        tokens = own[i]["tokens"].flatten(0, 1)
        assert ((rows - tokens.mean(0)) / tokens.std(0).clamp(min=1e-3)).square().mean() < 0.25**2
    assert torch.allclose(held, vpt.DeepTokens.like(backbone, 3).tokens, atol=1e-6)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"prompt": 5}, "Found int as prompt"),
        ({"prompt": None}, "Found NoneType as prompt"),
        ({"prompt": lambda backbone: None}, "Found NoneType as prompt"),
        ({"recipe": {"lr": 1}}, "Found dict as recipe"),
        ({"augment": "foo"}, "Found augment='foo'; needed is one of auto"),
    ],
)
def test_settings_of_another_kind_are_said_at_once(given: dict, message: str) -> None:
    with pytest.raises(VptError, match=message):
        vpt.adapt(
            {"train": colours(12), "val": colours(6, 1)},
            open_tiny("timm ViT"),
            progress=False,
            **given,
        )


def test_examples_of_several_shapes_are_said() -> None:
    train = colours(12)
    shapes = vpt.data.Examples(
        lambda i: torch.rand(3, 32, 32 + i % 2), train.targets, train.classes
    )
    with pytest.raises(DataError, match="cannot be put into one batch"):
        vpt.adapt({"train": shapes, "val": colours(6, 1)}, open_tiny("timm ViT"), progress=False)


def test_training_that_made_nothing_better_says_so() -> None:
    data = {"train": colours(30), "val": colours(30, 1)}
    found = vpt.adapt(
        data, open_tiny("timm ViT"), "deep:1", augment="none", epochs=3, lr=1000.0, progress=False
    )
    assert found.metrics["best_epoch"] == 0
    assert (
        "training never had less loss on validation than its start, which is kept"
        in found.metrics["verdict"]
    )


def test_a_passed_recipe_wins_and_what_is_said_beside_it_goes_over_it() -> None:
    """A recipe's seed and augmentation gave way to defaults that nobody had asked for."""
    data = {"train": colours(12), "val": colours(6, 1)}
    recipe = vpt.Recipe(seed=7, augment="none", epochs=1, lr=0.01)

    def used(**said: object) -> tuple:
        result = vpt.adapt(data, open_tiny("timm ViT"), "deep:1", progress=False, **said)
        result.model.close()
        found = result.metrics["recipe"]
        return result.metrics["seed"], found["augment"], found["lr"]

    assert used(recipe=recipe) == (7, "none", 0.01)
    assert used(recipe=recipe, seed=3, lr=0.02) == (3, "none", 0.02)
    assert used(recipe=recipe, augment="crop") == (7, "crop", 0.01)
    assert used(epochs=1)[0] == 0
    assert used(epochs=1)[1] in ("crop", "flip-crop")  # without a recipe it is chosen


@pytest.mark.parametrize("trouble", [KeyboardInterrupt, OSError("the disk went away")])
def test_a_module_that_someone_holds_is_given_back_after_any_interruption(
    trouble: BaseException,
) -> None:
    """Eleven hooks stayed on it, and its weights stayed frozen."""
    module, calls = make("timm ViT"), [0]
    data = colours(24)
    get = data.get

    def failing(index: int) -> torch.Tensor:
        calls[0] += 1
        if calls[0] > 150:
            raise trouble
        return get(index)

    data.get = failing
    with pytest.raises(type(trouble) if isinstance(trouble, Exception) else trouble):
        vpt.adapt(
            {"train": data, "val": data},
            module,
            "deep:2",
            augment="none",
            epochs=30,
            progress=False,
        )
    assert vpt.backbones.count_hooks(module) == {}
    assert all(p.requires_grad for p in module.parameters())
    data.get = get
    vpt.adapt(
        {"train": data, "val": data}, module, "deep:2", augment="none", epochs=1, progress=False
    ).model.close()


def test_digits_like_data_is_not_mirrored() -> None:
    """Left and right halves: mirrored images change their class, and the probe notices."""
    x = torch.rand(80, 3, 32, 32) * 0.3
    y = torch.arange(80) % 2
    x[y == 0, :, :, :16] += 0.6
    x[y == 1, :, :, 16:] += 0.6
    sided = vpt.data.Examples(list(x).__getitem__, y.tolist(), ["left", "right"])
    backbone = open_tiny("timm ViT mean-pooled")
    assert vpt.adapt(sided, backbone, "deep:1", **FAST).metrics["recipe"]["augment"] == "crop"
    other = vpt.load_backbone(make("timm ViT"))
    assert (
        vpt.adapt(colours(90), other, "deep:1", **FAST).metrics["recipe"]["augment"] == "flip-crop"
    )


def test_identity_by_name(tmp_path: Path) -> None:
    backbone = vpt.load_backbone(make("timm ViT"), classes=["green", "x", "red", "blue", "y"])
    result = vpt.adapt(
        write_images(tmp_path / "data"), backbone, "border:3", readout="identity", **FAST
    )
    assert result.model.readout.index == [3, 0, 2]
    result.model.close()
    stranger = vpt.load_backbone(make("timm ViT"), classes=list("abcde"))
    with pytest.raises(
        vpt.errors.PromptError,
        match=r"3 of 3 classes are not among the model's own: blue, green, red",
    ):
        vpt.adapt(tmp_path / "data", stranger, "border:3", readout="identity", **FAST)


def test_bad_files_are_listed_before_training_or_left_out(tmp_path: Path) -> None:
    data = write_images(tmp_path / "data")
    (data / "red" / "broken.png").write_bytes((data / "red" / "0.png").read_bytes()[:80])
    (data / "red" / "empty.jpg").write_bytes(b"")
    (data / "blue" / "notes.txt").write_text("hello")
    with pytest.raises(
        vpt.errors.BadFilesError, match=r"2 of 32 files cannot be used(.|\n)*--skip-bad"
    ) as caught:
        vpt.adapt(data, open_tiny("timm ViT"), "deep:1", out=tmp_path / "run", **FAST)
    assert len(caught.value.bad) == 2
    result = vpt.adapt(
        data, open_tiny("timm ViT"), "deep:1", out=tmp_path / "run", skip_bad=True, **FAST
    )
    assert len(result.metrics["skipped"]) == 2


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"prompt": "lora:4"}, vpt.errors.PromptError, "needed is one of"),
        ({"readout": "svm"}, TrainingError, "linear, identity, map:HOW"),
        ({"lr": -1.0}, TrainingError, "lr=-1"),
        ({"momentum": 0.9}, TrainingError, "known are epochs"),
        ({"shots": 99}, DataError, "99"),
        ({"data": "nowhere"}, DataError, "Found nothing at"),
        ({"augment": "mixup"}, TrainingError, "augment"),
        ({"prompt": "border:99"}, vpt.errors.PromptError, "leaves nothing"),
    ],
)
def test_mistakes_are_said_before_training(
    tmp_path: Path, change: dict, error: type, message: str
) -> None:
    call = (
        {
            "data": colours(30),
            "backbone": open_tiny("timm ViT"),
            "prompt": "deep:1",
            "out": tmp_path / "run",
        }
        | FAST
        | change
    )
    with pytest.raises(error, match=message):
        vpt.adapt(**call)
    assert call["backbone"].attachment is None
    assert not (tmp_path / "run" / "history.jsonl").exists()


def test_a_place_that_no_file_can_have_is_said(tmp_path: Path) -> None:
    with pytest.raises(PromptFileError, match="cannot be written"):
        vpt.adapt(write_images(tmp_path, 2), open_tiny("timm ViT"), out="a\0b", progress=False)


def test_places_that_cannot_be_written_or_are_taken(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    backbone = open_tiny("timm ViT")
    for out in (tmp_path / "file", tmp_path / "file" / "below"):
        with pytest.raises(PromptFileError, match=r"is a file|cannot be written"):
            vpt.adapt(colours(30), backbone, "deep:1", out=out, **FAST)
    vpt.adapt(colours(30), backbone, "deep:1", out=tmp_path / "run", **FAST).model.close()
    before = (tmp_path / "run" / "prompt.vpt").read_bytes()
    with pytest.raises(TrainingError, match="finished run"):
        vpt.adapt(colours(30), backbone, "deep:1", out=tmp_path / "run", **FAST)
    vpt.adapt(colours(30), backbone, "deep:1", out=tmp_path / "run", overwrite=True, **FAST)
    assert (tmp_path / "run" / "prompt.vpt").read_bytes() == before  # the same seed, the same bytes


def test_a_stopped_run_resumes_to_the_same_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    call = {"data": colours(40), "prompt": "deep:1"} | FAST
    vpt.adapt(backbone=open_tiny("timm ViT"), out=tmp_path / "whole", **call)
    stop_at(monkeypatch, "finish_epoch", 3)
    with pytest.raises(KeyboardInterrupt):
        vpt.adapt(backbone=open_tiny("timm ViT"), out=tmp_path / "cut", **call)
    vpt.adapt(backbone=open_tiny("timm ViT"), out=tmp_path / "cut", resume=True, **call)
    assert (tmp_path / "cut" / "prompt.vpt").read_bytes() == (
        tmp_path / "whole" / "prompt.vpt"
    ).read_bytes()


def test_videos_as_a_dataset(tmp_path: Path) -> None:
    torch.manual_seed(0)
    y = torch.arange(24) % 2
    x = torch.rand(24, 4, 3, 32, 32) * 0.5
    x[y == 1, :, 0] += 0.5
    data = torch.utils.data.TensorDataset(x, y)
    result = vpt.adapt(
        data,
        open_tiny("transformers VideoMAE"),
        "border:3+deep:2",
        out=tmp_path / "run",
        epochs=2,
        progress=False,
    )
    assert (tmp_path / "run/reprogrammed.png").is_file()
    scores, backbone = result.model(x), result.model.backbone
    result.model.close()
    assert torch.equal(vpt.load(tmp_path / "run/prompt.vpt", backbone)(x), scores)
    with pytest.raises(vpt.errors.DataError, match="Video files are not read"):
        vpt.load_data(tmp_path, backbone.inputs)


@pytest.mark.parametrize(
    "name", ["transformers wav2vec2", "transformers Whisper encoder", "transformers CLAP audio"]
)
def test_sound_files_for_every_front_end(name: str, tmp_path: Path) -> None:
    backbone = open_tiny(name)
    write_sounds(tmp_path / "clips", per_class=6)
    prompt = "border:8" if "CLAP" in name else "deep:2+border:8"
    result = vpt.adapt(
        tmp_path / "clips", backbone, prompt, out=tmp_path / "run", epochs=1, progress=False
    )
    assert result.metrics["val_n"] > 0
    result.model.close()


def test_a_label_map_is_kept_and_shown(tmp_path: Path) -> None:
    write_images(tmp_path / "photos", per_class=6, size=32)
    call = {"readout": "map:bayes", "out": tmp_path / "run", "epochs": 1, "progress": False}
    result = vpt.adapt(tmp_path / "photos", open_tiny("timm ViT"), "border:3", **call)
    assert set(result.metrics["label_map"]) == {"red", "green", "blue"}
    assert result.metrics["parameters_trained"]["readout"] == 0
    shown = vpt.runs.folder.inspect(tmp_path / "run")["label_map"]
    assert shown == {k: [tuple(pair) for pair in v] for k, v in result.metrics["label_map"].items()}
    with pytest.raises(vpt.errors.PromptError, match="one of random, frequency"):
        vpt.adapt(
            tmp_path / "photos",
            open_tiny("timm ViT"),
            "border:3",
            readout="map:best",
            progress=False,
        )


def test_a_finished_run_is_not_resumed_over_and_a_run_lies_outside_its_data(tmp_path: Path) -> None:
    write_images(tmp_path / "photos", per_class=6, size=32)
    call = {"epochs": 1, "progress": False}
    vpt.adapt(tmp_path / "photos", open_tiny("timm ViT"), "border:3", out=tmp_path / "run", **call)
    kept = (tmp_path / "run/prompt.vpt").read_bytes()
    with pytest.raises(
        TrainingError, match="already holds a finished run; nothing is left to resume"
    ):
        vpt.adapt(
            tmp_path / "photos",
            open_tiny("timm ViT"),
            "deep:2",
            out=tmp_path / "run",
            resume=True,
            **call,
        )
    assert (tmp_path / "run/prompt.vpt").read_bytes() == kept
    with pytest.raises(TrainingError, match="lies inside the data"):
        vpt.adapt(
            tmp_path / "photos",
            open_tiny("timm ViT"),
            "deep:2",
            out=tmp_path / "photos/run",
            **call,
        )
