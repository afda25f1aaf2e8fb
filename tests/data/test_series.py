"""Files that are numbered in series, by their names: what stays on one side."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest
from small_folders import load, picture, touch

from vpt.data.examples import Examples
from vpt.data.looking import look
from vpt.data.series import series_of
from vpt.data.sources import Item
from vpt.errors import DataError


@pytest.mark.parametrize(
    ("label", "name", "series"),
    [
        ("00002", "00002_00011_00029.jpg", "00002/00002_00011"),
        ("7", "7_george_12.flac", "george"),
        ("close", "close_00000002_NO_03.ogg", "00000002_NO"),
        ("right", "51055bda_nohash_4.flac", "right/51055bda_nohash"),
        ("Balinese", "Bali0108_02.jpg", "Balinese/Bali0108"),
        ("walk", "clip (3).png", "walk/clip"),
        ("walk", "frame 7.png", "walk/frame"),
        ("cat", "Cat_1.jpg", "cat/Cat"),
        ("cat", "3396.jpg", None),
        ("cat", "IMG1234.jpg", None),
        ("cat", "_5.jpg", None),
        ("shirt", "009b3c31-fb62-45c0-be9a-37a5c238cb88.jpg", None),
    ],
)
def test_the_series_of_a_name(label: str, name: str, series: str | None) -> None:
    assert series_of(Item(Path(label) / name, label)) == series


def tracks(root: Path, names: Sequence[str], frames: int = 3) -> Path:
    return touch(
        root,
        *(
            f"{c}/{c}_{name}_{k:02}.png"
            for c in ("cat", "dog")
            for name in names
            for k in range(frames)
        ),
    )


def series_on(part: Examples) -> set[str]:
    return {Path(part.name(i)).stem.split("_")[1] for i in range(len(part))}


def test_a_series_stays_on_one_side(tmp_path: Path) -> None:
    for c in ("cat", "dog"):
        for number, who in enumerate("abcdefgh"):
            for k in range(3):
                picture(tmp_path / c / f"{c}_{who}_{k}.png", 3 * number + k)
    for seed in range(3):
        data = load(tmp_path, seed=seed)
        sides = [series_on(part) for part in data.parts.values()]
        assert sorted("".join("".join(side) for side in sides)) == list("abcdefgh")
        assert data.made["val"].endswith(f"held out with seed {seed}, no series on two sides")
        assert any("numbered in 8 series (cat_a_0.png, cat_a_1.png" in n for n in data.notes)
    alone = load(tmp_path, split_by="file")
    assert alone.train.apart is None
    assert not alone.notes


@pytest.mark.parametrize(
    "names",
    [
        ["a", "b", "c", "d"],  # too few
        ["a"] * 1,
        [f"n{i}" for i in range(9)],  # with one frame each: below
    ],
)
def test_names_that_say_nothing(tmp_path: Path, names: list[str]) -> None:
    root = tracks(tmp_path, names, frames=1 if len(names) == 9 else 3)
    found = look(root)
    assert found.columns.apart is None
    assert not found.listing.notes
    assert all(item.unit is None for item in found.listing.items)


def test_one_series_that_is_most_of_a_class_says_nothing(tmp_path: Path) -> None:
    root = tracks(tmp_path, list("abcdef"))
    touch(root, *(f"cat/cat_a_{k}.png" for k in range(50, 80)))
    assert look(root).columns.apart is None
    assert look(root, split_by="series").columns.apart == "series"  # unless it is asked for


def test_series_that_are_asked_for(tmp_path: Path) -> None:
    root = tracks(tmp_path, ["a", "b"])
    touch(root, "cat/other.png")
    found = look(root, split_by="series")
    units = {item.path.name: item.unit for item in found.listing.items}
    assert units["cat_a_00.png"] == units["dog_a_02.png"] == "a"
    assert units["other.png"] not in ("a", "b", None)
    plain = touch(tmp_path / "plain", "cat/1.png", "dog/2.png")
    with pytest.raises(DataError, match=r"no files that are numbered in series.*split_by"):
        look(plain, split_by="series")
    with pytest.raises(DataError, match=r"no column who.*split_by='series' or 'file'"):
        look(root, split_by="who")


def test_the_training_part_decides(tmp_path: Path) -> None:
    """What a test folder is called changes nothing."""
    for part, names in (("train", "abcdef"), ("test", "x")):
        touch(
            tmp_path,
            *(f"{part}/{c}/{name}_{k}.png" for c in "pq" for name in names for k in range(3)),
        )
    assert look(tmp_path).columns.apart == "series"


def test_series_that_hold_copies_of_one_file_are_one(tmp_path: Path) -> None:
    for c in ("cat", "dog"):
        for number, who in enumerate("abcdefgh"):
            for k in range(3):
                level = 3 * number + k if who != "h" else k  # h is a copy of a
                picture(tmp_path / c / f"{c}_{who}_{k}.png", level)
    for seed in range(4):
        data = load(tmp_path, seed=seed)
        sides = ["".join(sorted(series_on(part))) for part in data.parts.values()]
        assert sum("a" in side for side in sides) == 1
        assert all(("a" in side) == ("h" in side) for side in sides)
