"""Small folders of pictures to load: who needs more writes it beside its test."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import torch
from PIL import Image
from torch.utils.data import Dataset

import vpt
from vpt.data import Data, Examples, load_data

INPUTS = vpt.Images(size=8)


def picture(path: Path, level: int = 0) -> None:
    """A picture of 8 × 8 pixels in one colour."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (8, 8), (level, 0, 255)).save(path)


def folder(root: Path, split: str = "", **counts: int) -> Path:
    """Class folders with so many pictures; number k has level k."""
    for name, count in counts.items():
        for k in range(count):
            picture(root / split / name / f"{k:02}.png", k)
    return root


def touch(root: Path, *names: str) -> Path:
    """Files that only have a name."""
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"x")
    return root


def with_bad_files(root: Path) -> Path:
    """Twelve good pictures, four bad ones, and what is neither picture nor sound."""
    folder(root, cat=6, dog=6)
    (root / "cat/empty.png").write_bytes(b"")
    (root / "cat/notes.txt").write_text("hello")
    (root / "dog/song.wav").write_bytes(b"RIFF")
    (root / "dog/noending").write_bytes(b"x")
    (root / "dog/gone.png").symlink_to(root / "nowhere.png")
    (root / "loose.jpg").write_bytes(b"x")
    whole = (root / "dog/00.png").read_bytes()
    (root / "dog/cut.png").write_bytes(whole[: len(whole) // 2])
    return root


def load(source: object, **more: object) -> Data:
    """`load_data` for pictures of 8 × 8 pixels, without a bar."""
    return load_data(source, more.pop("inputs", INPUTS), progress=False, **more)


def names(examples: Examples) -> set[str]:
    """What the examples are called."""
    return {examples.name(i) for i in range(len(examples))}


def sizes(data: Data) -> list[Counter]:
    """How many of each class are in each part."""
    return [Counter(data.classes[y] for y in part.targets) for part in data.parts.values()]


class Torchvision(Dataset):
    """A data set as torchvision's are: pictures of PIL, and `classes`."""

    def __init__(self, targets, classes=("cat", "dog"), size=(8, 8)):
        self.targets, self.classes, self.size = targets, list(classes), size

    def __len__(self):
        return len(self.targets)

    def __getitem__(self, i):
        return Image.new("RGB", self.size, (51, 0, 0)), self.targets[i]


def tensors(*labels):
    """Images as tensors, one for each label."""
    return [(torch.full((3, 8, 8), 0.1 * y), y) for y in labels]
