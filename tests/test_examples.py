"""Every example runs: the short scripts beside data of the names that they use, the scripts that
measure at a tiny setting.
"""

from __future__ import annotations

import csv
import importlib.util
import re
from pathlib import Path
from types import ModuleType

import pytest
import timm
from helpers import write_images, write_sounds
from PIL import Image

import vpt
from vpt.demo.portraits import portraits

EXAMPLES = Path(__file__).parents[1] / "examples"
# to read and copy: no options, in full in the guide beside it; what it prints at the end
SHORT = {
    "your_folder/adapt_folder": "noise is taken for",
    "your_folder/learn_a_border": "test accuracy",
    "sound/adapt_audio": "noise is taken for",
    "biased_model/reprogram": "accuracy",
    "many_tasks/library": "torch.Size",
    "many_tasks/share": "test accuracy",
    "classes_in_sequence/sequence": "parts in use",
    "own_module/own_module": "logits",
    "label_maps/label_map": "is made of",
    "real_backbones/open_one": "torch.Size",
}
TINY = {
    "label_maps/label_map_table": "{images} --shots 2 --seeds 1 --epochs 1 --prompt border:2",
    "many_tasks/many_tasks": "--epochs 1 --per-digit 2 --test 30 --out {out}",
    "many_tasks/mixed_batch_times": "--samples 8 --repeats 1",
    "many_tasks/shared_prompt": "--epochs 1 --per-class 2 --shots 1 --test 1",
    "classes_in_sequence/class_incremental": (
        "{images} --methods ridge coda joint --per-task 3 --epochs 1 --out {out}"
    ),
    "your_folder/few_shot_table": (
        "{images} --shots 2 --seeds 1 --epochs 1 --prompts deep:1 --out {out}"
    ),
}
ELSEWHERE = {"biased_model/fairness", "measure/kwt", "measure/transfer"}  # tests/test_pretrain.py


def write_world(folder: Path) -> Path:
    """Tiny data of the names that guides and scripts use: photos, birds, flowers, recordings of
    three speakers, and faces in a table with groups.
    """
    for name in ("photos", "birds", "flowers"):
        write_images(folder / name, per_class=5)
        (folder / name / "grey").mkdir()
        for i in range(5):
            Image.new("RGB", (40, 40), (40 * i, 40 * i, 40 * i)).save(
                folder / name / "grey" / f"{i}.png"
            )
    sounds = write_sounds(folder / "recordings", per_class=6)
    with (sounds / "recordings.csv").open("w", newline="") as file:
        rows = [
            (path.relative_to(sounds), path.parent.name, f"speaker {i % 3}")
            for i, path in enumerate(sorted(sounds.rglob("*.flac")))
        ]
        csv.writer(file).writerows([("path", "label", "speaker"), *rows])
    faces = portraits(120, seed=0)
    with (folder / "faces.csv").open("w", newline="") as file:
        table = csv.writer(file)
        table.writerow(("path", "hair", "sex", "split"))
        (folder / "images").mkdir()
        for i in range(len(faces)):
            x, label, group = faces[i]
            name = f"images/{i:03}.png"
            Image.fromarray((x.permute(1, 2, 0) * 255).byte().numpy()).save(folder / name)
            part = ("train", "val", "test")[i % 3]
            table.writerow((name, faces.classes[label], faces.group_names[group], part))
    return folder


def offline(monkeypatch: pytest.MonkeyPatch) -> None:
    """Published models, which have no `vpt:` before their name, are tiny ones of random weights."""
    opened = vpt.load_backbone

    def tiny(source: object, **options: object) -> vpt.Backbone:
        if isinstance(source, str) and not source.startswith("vpt:") and "/" not in source:
            source = timm.create_model(
                "vit_tiny_patch16_224", img_size=32, depth=4, embed_dim=48, pretrained=False
            )
        return opened(source, **options)

    monkeypatch.setattr(vpt, "load_backbone", tiny)


def run(code: str) -> None:
    """Code as it stands, but that it learns for one epoch."""
    exec(re.sub(r"(epochs\"?[=:] ?)\d+", r"\g<1>1", code), {"__name__": "__main__"})


def loaded(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name.replace("/", "."), EXAMPLES / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("name", SHORT)
def test_short_script(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    monkeypatch.chdir(write_world(tmp_path))
    offline(monkeypatch)
    run(EXAMPLES.joinpath(f"{name}.py").read_text(encoding="utf-8"))
    assert SHORT[name] in capsys.readouterr().out


@pytest.mark.parametrize("name", TINY)
def test_measuring_script(name: str, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    places = {"images": tmp_path / "images", "out": tmp_path / "out"}
    write_images(places["images"], per_class=6)
    loaded(name).main(TINY[name].format(**places).split())
    out = capsys.readouterr().out
    assert any(words in out for words in ("accuracy", "times as long"))


def test_all_are_here_and_short() -> None:
    files = {
        path.relative_to(EXAMPLES).with_suffix("").as_posix(): path.read_text(encoding="utf-8")
        for path in EXAMPLES.glob("*/*.py")
        if path.parent.name != "pretrain"
    }
    assert sorted(files) == sorted({*SHORT, *TINY, *ELSEWHERE})
    assert all(len(files[name].splitlines()) <= 25 for name in SHORT)
    assert not any("argparse" in files[name] for name in SHORT)
