"""A source before anything is read: its kind, how long its sounds are, its copies."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import soundfile
from small_folders import folder, picture, touch

from vpt.data.looking import copies, look
from vpt.errors import DataError


def test_nine_of_ten_sounds_are_no_longer_than_the_clip(tmp_path: Path) -> None:
    for k in range(10):
        (tmp_path / "ab"[k % 2]).mkdir(exist_ok=True)
        seconds = 3 if k == 9 else 0.1 * (k + 1)
        sound = np.ones(round(8000 * seconds))
        soundfile.write(tmp_path / "ab"[k % 2] / f"{k}.wav", sound, 8000)
    touch(tmp_path, "a/broken.wav")
    source = look(tmp_path)
    assert source.kind == "sound"
    assert len(source.lengths) == 10  # the broken one is named when it is read
    assert source.clip == pytest.approx(3.0)
    assert look(folder(tmp_path / "p", cat=1, dog=1)).clip is None


def test_copies_are_files_with_the_same_bytes(tmp_path: Path) -> None:
    for name, level in (("a", 1), ("b", 2), ("c", 1)):
        picture(tmp_path / f"{name}.png", level)
    paths = [tmp_path / f"{name}.png" for name in "abc"]
    assert copies(paths) == {0: 0, 2: 0}
    assert copies([tmp_path / "nothing.png"]) == {}


def test_what_is_no_source(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="Found nothing at"):
        look(tmp_path / "nowhere")
    touch(tmp_path, "notes.txt")
    with pytest.raises(DataError, match="is a file; needed is a folder of classes"):
        look(tmp_path / "notes.txt")
