"""Whatever is handed over is prepared as a file of it would be."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch
from PIL import Image
from torch.utils.data import default_collate

import vpt
from vpt.data.given import all_given, examples_of
from vpt.data.readers import reader
from vpt.errors import BadFilesError, DataError

PICTURES = vpt.Images(size=(32, 32), mean=(0.5,) * 3, std=(0.5,) * 3)
SOUND = vpt.Waveform(sample_rate=8000, samples=8000)


def heard(given: object, inputs: Any) -> list[Any]:
    """The raw inputs of everything that was handed over, in all windows."""
    windows, _ = examples_of(list(all_given(given, inputs)), inputs).windows()
    return [windows[i][0] for i in range(len(windows))]


def same(one: object, other: object) -> bool:
    first, second = default_collate([one]), default_collate([other])
    if isinstance(first, torch.Tensor):
        return torch.equal(first, second)
    return all(torch.equal(a, b) for a, b in zip(first, second, strict=True))


@pytest.fixture
def photo(tmp_path: Path) -> Path:
    pixels = np.random.default_rng(0).integers(0, 256, (40, 56, 3), dtype=np.uint8)
    path = tmp_path / "photos" / "deep" / "a.png"
    path.parent.mkdir(parents=True)
    Image.fromarray(pixels).save(path)
    return path


GIVEN: dict[str, Callable[[Path], object]] = {
    "its path": str,
    "its folder": lambda p: p.parents[1],
    "a picture of PIL": Image.open,
    "bytes [H,W,C]": lambda p: np.asarray(Image.open(p)),
    "bytes [C,H,W]": lambda p: torch.from_numpy(np.array(Image.open(p))).movedim(-1, 0),
    "floats [H,W,C]": lambda p: np.asarray(Image.open(p)).astype(np.float32) / 255,
    "a batch": lambda p: np.asarray(Image.open(p))[None],
    "a list": lambda p: [p],
    "a generator": lambda p: (one for one in [p]),
}


@pytest.mark.parametrize("kind", GIVEN)
def test_a_picture_is_prepared_as_its_file(kind: str, photo: Path) -> None:
    (expected,) = heard(photo, PICTURES)
    (found,) = heard(GIVEN[kind](photo), PICTURES)
    assert same(found, expected)


def test_a_tensor_that_the_model_takes_stays_as_it_is() -> None:
    x = torch.rand(2, 3, 32, 32)
    assert all(same(*pair) for pair in zip(heard(x, PICTURES), x, strict=True))
    assert heard(torch.rand(10, 20), PICTURES)[0].shape == (3, 32, 32)  # grey


def test_sound_is_heard_as_its_file_is(tmp_path: Path) -> None:
    wave = (0.5 * np.sin(np.arange(30000) / 7)).astype(np.float32)
    soundfile.write(tmp_path / "a.wav", wave, 8000, subtype="FLOAT")
    soundfile.write(tmp_path / "b.wav", np.stack([wave, wave], 1), 16000, subtype="FLOAT")
    expected = heard(tmp_path / "a.wav", SOUND)
    assert len(expected) == 4  # windows of a second
    for given in (wave, torch.from_numpy(wave)[None], (wave for _ in "a")):
        assert all(same(*pair) for pair in zip(heard(given, SOUND), expected, strict=True))
    given = {"array": np.stack([wave, wave]), "sampling_rate": 16000}
    for found, (x, length) in zip(
        heard(given, SOUND), heard(tmp_path / "b.wav", SOUND), strict=True
    ):
        assert torch.allclose(found[0], x, atol=1e-6)
        assert found[1] == length
    batch = torch.from_numpy(np.stack([wave, wave])), torch.tensor([100, 8000])
    assert [length for _, length in heard(batch, SOUND)] == [100, 8000]


def test_a_turned_photo_is_turned_upright_and_bytes_come_in_any_order(tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (40, 56, 3), dtype=np.uint8)
    exif = Image.Exif()
    exif[0x0112] = 6  # turned by a quarter
    Image.fromarray(pixels).save(tmp_path / "a.png", exif=exif)
    with Image.open(tmp_path / "a.png") as opened:
        (found,) = heard(opened, PICTURES)
    assert same(found, heard(tmp_path / "a.png", PICTURES)[0])
    wave = np.sin(np.arange(100) / 7).astype(">f4")
    assert same(heard(wave, SOUND)[0], heard(wave.astype("<f4"), SOUND)[0])
    given = {"array": wave.astype("<f4"), "sampling_rate": np.int64(8000)}
    assert same(heard(given, SOUND)[0], heard(wave, SOUND)[0])


def test_what_reads_files_gives_the_same(photo: Path) -> None:
    assert same(heard(photo, PICTURES)[0], reader(PICTURES)(photo).float() / 255)


@pytest.mark.parametrize(
    ("given", "inputs", "words"),
    [
        (3, PICTURES, "Found int; needed are paths"),
        ("", PICTURES, "Found a path without a name"),
        ([{}], SOUND, 'a mapping without "array"'),
        ([{}], PICTURES, "dict, and this run takes pictures"),
        (np.zeros((4, 5, 6, 7, 8)), PICTURES, r"shape \[5, 6, 7, 8\]|a picture is \[H,W,C\]"),
        (np.full((4, 4), 255.0), PICTURES, "divide 0–255 by 255"),
        (np.full((4, 4), np.nan), PICTURES, "NaN or infinite numbers"),
        (np.zeros((4, 4), np.int64), PICTURES, "give bytes"),
        (np.zeros((0, 4), np.uint8), PICTURES, "shape"),
        (np.array([[None]]), PICTURES, "an array of type object"),
        (Image.new("RGB", (4, 4)), SOUND, "Image, and this run takes sound"),
        (np.zeros((100, 2), np.float32), SOUND, "Hand channels over as"),
        ([{"array": np.ones(9), "sampling_rate": 3}], SOUND, "a sample rate of 3 Hz"),
        (np.zeros(100, np.int16), SOUND, r"floats in \[-1,1\]"),
        (np.full(100, 3000.0), SOUND, "divide 16-bit samples"),
        (np.zeros(0, np.float32), SOUND, "no samples"),
        (np.zeros(100, np.float32), SOUND, "silent"),
        (np.full(100, np.nan), SOUND, "NaN"),
    ],
)
def test_other_things_are_refused_by_name(given: object, inputs: Any, words: str) -> None:
    with pytest.raises((DataError, BadFilesError), match=words):
        heard(given, inputs)


def test_all_bad_ones_are_named(photo: Path, tmp_path: Path) -> None:
    (tmp_path / "a.wav").write_bytes(b"x")
    (tmp_path / "text.png").write_text("hello")
    with pytest.raises(BadFilesError) as caught:
        heard([photo, tmp_path / "a.wav", tmp_path / "text.png", "missing.png"], PICTURES)
    assert [reason for _, reason in caught.value.bad] == [
        "this run takes pictures, and that is sound",
        "not an image",
        "no such file",
    ]
    with pytest.raises(DataError, match="no sound in the folder"):
        heard(tmp_path / "photos", SOUND)
