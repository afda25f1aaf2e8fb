"""A folder with all that the snippets of the guides work on, and no network."""

from __future__ import annotations

import csv
import re
from pathlib import Path

import pytest
import timm
from helpers import colours, pictures, write_images, write_sounds
from PIL import Image

import vpt
from vpt.demo.portraits import portraits


def write_world(folder: Path) -> Path:
    """Tiny data of the names that guides and scripts use: photos, birds, flowers, pictures without
    labels, recordings of three speakers, and faces in a table with groups.
    """
    pictures(folder / "unsorted", colours(9, 3, size=40), flat=True)
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
