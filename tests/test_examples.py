"""Every example runs: the short scripts beside data of the names that they use, the scripts that
measure at a tiny setting.
"""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch
from helpers import write_images
from PIL import Image
from transformers import CLIPImageProcessor, CLIPVisionConfig, CLIPVisionModel
from worlds import offline, run, write_world

import vpt
from vpt.data import read_parts

EXAMPLES = Path(__file__).parents[1] / "examples"
# to read and copy: no options, in full in the guide beside it; what it prints at the end
SHORT = {
    "your_folder/adapt_folder": "grey is taken for",
    "your_folder/learn_a_border": "test accuracy",
    "sound/adapt_audio": "noise is taken for",
    "few_labels/few_labels": "chosen:",
    "biased_model/reprogram": "accuracy",
    "many_tasks/library": "torch.Size",
    "many_tasks/share": "test accuracy",
    "classes_in_sequence/sequence": "parts in use",
    "own_module/own_module": "logits",
    "deploy/without_vpt": "it is grey",
    "familiar/lightning_module": "test accuracy",
    "familiar/plain_loop": "test accuracy",
    "familiar/sklearn_pipeline": "chosen:",
    "familiar/trainer": "grey is",
    "label_maps/label_map": "is made of",
    "real_backbones/open_one": "torch.Size",
}
TINY = {
    "serve/load": "--tasks 2 --requests 24 --clients 4",
    "deploy/times": "vpt:vit-p8-64 --prompt queries:1@7 --batches 1 --repeats 2",
    "explained/checks": "--count 4",
    "hard_prompts/gap": "{split} --shots 2 --seeds 1 --out {out}",
    "few_labels/measure": "unlabelled {split} --shots 2 --seeds 0 --out {out}",
    "few_labels/spread": "{split} --shots 2 --draws 2 --epochs 1 --out {out}",
    "real_backbones/few_shot": "{split} --shots 2 --seeds 1 --out {out} --kept {out}",
    "real_backbones/tuned": "{split} --shots 3 --epochs 1 --batch-size 6 --out {out}",
    "label_maps/label_map_table": "{images} --shots 2 --seeds 1 --epochs 1 --prompt border:2",
    "many_tasks/beforehand": "{split} --more {images} --shots 1 2 --seeds 1 --out {out}",
    "many_tasks/many_tasks": "--epochs 1 --per-digit 2 --test 30 --out {out}",
    "many_tasks/mixed_batch_times": "--samples 8 --repeats 1",
    "many_tasks/sweep": "{images} --tasks 2 --classes 2 --shots 2 --out {out}",
    "many_tasks/shared_prompt": "--epochs 1 --per-class 2 --shots 1 --test 1",
    "classes_in_sequence/class_incremental": (
        "{images} --methods ridge coda joint --per-task 3 --epochs 1 --out {out}"
    ),
    "your_folder/few_shot_table": (
        "{images} --shots 2 --seeds 1 --epochs 1 --prompts deep:1 --out {out}"
    ),
}
ELSEWHERE = {  # below, tests/test_pretrain.py, or a part of another
    "biased_model/aside",
    "biased_model/faces",
    "biased_model/fairness",
    "biased_model/plant",
    "explained/measure",
    "measure/kwt",
    "measure/transfer",
    "real_backbones/tables",
    "serve/ray_serve",
    "your_folder/corrections",
}


def loaded(name: str, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name.replace("/", "."), EXAMPLES / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, spec.name, module)  # where dataclasses look
    spec.loader.exec_module(module)
    return module


LENGTHY = ("biased_model/reprogram", "many_tasks/share")  # fairness and tasks have their own tests


# of the machine they run on: workers, pinned memory
THEIRS = pytest.mark.filterwarnings("ignore::UserWarning", "ignore::FutureWarning")
MARKS = {
    **{name: [pytest.mark.long] for name in LENGTHY},
    "familiar/lightning_module": [THEIRS],
    "familiar/trainer": [THEIRS],
}


@pytest.mark.parametrize("name", [pytest.param(name, marks=MARKS.get(name, [])) for name in SHORT])
def test_short_script(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    monkeypatch.chdir(write_world(tmp_path))
    offline(monkeypatch)
    run(EXAMPLES.joinpath(f"{name}.py").read_text(encoding="utf-8"))
    assert SHORT[name] in capsys.readouterr().out


@pytest.mark.long
@pytest.mark.parametrize("name", TINY)
def test_measuring_script(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    places = {name: tmp_path / name for name in ("images", "out", "split")}
    write_images(places["images"], per_class=6)
    for part in ("train", "test"):  # of other bytes
        write_images(places["split"] / part, per_class=3, size=40 + len(part))
    monkeypatch.syspath_prepend(EXAMPLES.joinpath(name).parent)
    loaded(name, monkeypatch).main(TINY[name].format(**places).split())
    out = capsys.readouterr().out
    assert any(words in out for words in ("accuracy", "times as long", "random rows", "requests/s"))


@pytest.mark.parametrize("kind", ["lora", "layernorm", "full", "deep", "attentive"])
def test_dear_ways_do_learn(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(EXAMPLES / "real_backbones")
    tuned = loaded("real_backbones/tuned", monkeypatch)
    forward, learn = tuned.prepared("vpt:vit-p8-64", kind)
    forward(torch.rand(2, 3, 64, 64)).square().sum().backward()
    moved = sum(p.grad is not None and bool(p.grad.any()) for p in learn)
    assert moved >= len(learn) / 2  # not LoRA's A while B is 0, not what the features pass by


def test_explanations_are_measured(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    monkeypatch.syspath_prepend(EXAMPLES / "explained")
    script = loaded("explained/measure", monkeypatch)
    backbone = vpt.load_backbone("vpt:vit-p8-64")
    prompt = vpt.QueryTokens.like(backbone, 1, blocks=[7])
    readout = vpt.Linear(prompt.reads, ["blue", "green", "red"], "queries")
    torch.nn.init.normal_(readout.weight)
    with vpt.PromptedModel(backbone, prompt, readout) as model:
        vpt.save(tmp_path / "run" / "prompt.vpt", model)
    write_images(tmp_path / "data", per_class=1)
    script.main([str(tmp_path / "run"), str(tmp_path / "data"), "--count", "2"])
    out = capsys.readouterr().out
    for words in ("attention rollout", "chance", "2 test pictures", "±"):
        assert words in out


def test_all_are_here_and_short() -> None:
    files = {
        path.relative_to(EXAMPLES).with_suffix("").as_posix(): path.read_text(encoding="utf-8")
        for path in EXAMPLES.glob("*/*.py")
        if path.parent.name != "pretrain"
    }
    assert sorted(files) == sorted({*SHORT, *TINY, *ELSEWHERE})
    assert all(len(files[name].splitlines()) <= 27 for name in SHORT)
    assert not any("argparse" in files[name] for name in SHORT)


def test_a_planted_bias_and_its_correction(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    plant, faces, aside = (
        loaded(f"biased_model/{name}", monkeypatch) for name in ("plant", "faces", "aside")
    )
    counts = {"train": 64, "tune": 60, "test": 60, "balanced": 16}
    monkeypatch.setattr(plant, "COUNTS", counts)
    monkeypatch.setattr(plant, "MODELS", {"cnn": ("test_resnet", 1, 2e-3)})
    rows = ["path,years,sex,race"]
    for i in range(400):
        old, man = i % 2, (i // 2) % 2
        level = (100 + 100 * old, 50 + 100 * man, i % 250)
        Image.new("RGB", (16, 16), level).save(tmp_path / f"{i}.png")
        rows.append(f"{i}.png,{60 if old else 20},{'mf'[man]},{'ab'[i % 3 > 1]}")
    rows.append("0.png,40,m,a")  # between young and old: left out
    (tmp_path / "faces.csv").write_text("\n".join(rows) + "\n")
    out = tmp_path / "out"
    torch.manual_seed(0)
    tiny = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "patch_size": 8}
    tower = CLIPVisionModel(CLIPVisionConfig(**tiny, num_attention_heads=2, image_size=16))
    tower.save_pretrained(tmp_path / "tower")
    CLIPImageProcessor(size={"shortest_edge": 16}, crop_size=16).save_pretrained(tmp_path / "tower")
    options = ["--models", "cnn", "--seeds", "1", "--head", str(tmp_path / "tower")]
    plant.main([str(tmp_path / "faces.csv"), *options, "--out", str(out)])
    for name, count in (("train", 64), ("tune-0", 120), ("balanced-0", 16)):
        found = (out / f"{name}.csv").read_text().splitlines()
        assert abs(len(found) - 1 - count) <= 4, name
    tuned = [row.split(",") for row in (out / "tune-0.csv").read_text().splitlines()[1:]]
    learned = (out / "train.csv").read_text()
    assert not any(row[0] in learned for row in tuned)
    agree = np.mean([(row[1] == "old") == (row[2] == tuned_with(tuned)) for row in tuned])
    assert 0.8 < agree < 0.9
    faces.main([str(out), "--models", "cnn", "clip", "--seeds", "1"])
    found = vpt.evaluate(
        vpt.PromptedModel(vpt.load_backbone(str(out / "clip")), None, vpt.Identity()),
        read_parts(out / "train.csv", vpt.load_backbone(str(out / "clip")).inputs, part="train"),
    )
    assert found["accuracy"] > 0.8  # the head is the classes' own
    trained = ["--prompts", "patch:4", "cover:2", "linear", "--strengths", "1", "--epochs", "1"]
    faces.main([str(out), "--models", "cnn", "--seeds", "1", *trained])
    assert (out / "cnn-cover:2-penalty.jsonl").exists()
    aside.main([str(out), "--model", "cnn", "--seeds", "1"])
    said = capsys.readouterr().out
    assert "400 pictures" in said
    assert "within" in said
    assert "largest loss, 20%, refitted" in said


def tuned_with(rows: list[list[str]]) -> str:
    """The group that old ones mostly have."""
    groups = [row[2] for row in rows if row[1] == "old"]
    return max(set(groups), key=groups.count)


def test_what_corrections_mend(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    module = loaded("your_folder/corrections", monkeypatch)
    monkeypatch.setattr(module, "GIVEN", 4)
    write_images(tmp_path / "data" / "train", per_class=8)
    write_images(tmp_path / "data" / "test", per_class=8)
    red, blue = (tmp_path / "data" / "test" / name for name in ("red", "blue"))
    for file in sorted(red.iterdir())[:7]:  # a kind of mistake: reds that are to be blue
        picture = Image.open(file).convert("RGB")
        picture.paste((255, 255, 255), (0, 0, picture.width, 12))
        file.unlink()
        picture.save(blue / f"striped-{file.name}")
    run_folder = tmp_path / "run"
    made = vpt.adapt(tmp_path / "data", probe_only=True, out=run_folder, progress=False)
    made.model.close()
    module.main(
        [
            str(run_folder),
            str(tmp_path / "data"),
            "--draws",
            "2",
            "--budget",
            "0.2",
            "--fewest",
            "6",
        ]
    )
    said = capsys.readouterr().out
    assert "taken" in said
    assert "of 2" in said


def test_labels_are_made_wrong_as_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    measure = loaded("few_labels/measure", monkeypatch)
    y = np.arange(40) % 4
    features = torch.eye(4)[torch.from_numpy(y)] * torch.tensor([1.0, 1.0, 9.0, 9.0])
    for wrong, kind in ((0.25, "uniform"), (0.5, "alike")):
        found = measure.corrupted(y, 4, features, wrong, kind, 0)
        assert (found != y).sum() == 40 * wrong
    # the classes whose means are near each other are taken for each other
    assert set(found[(found != y) & (y == 0)]) == {1}
