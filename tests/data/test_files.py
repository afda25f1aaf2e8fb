"""Files: each read once, kept within a budget, and heard in windows."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from vpt.data import files as module
from vpt.data.files import Files, InWindows, Windows
from vpt.errors import DataError


class Reads:
    """A reader that counts, and fails for names that begin with bad."""

    def __init__(self, make=lambda: torch.full((3, 2, 2), 51, dtype=torch.uint8)):
        self.seen, self.make = [], make

    def __call__(self, path):
        self.seen.append(path.name)
        if path.name.startswith("bad"):
            raise DataError("not an image")
        return self.make()


def test_files_are_read_once_and_uint8_becomes_a_share_of_255():
    read = Reads()
    files = Files([Path("a"), Path("b")], read)
    for _ in range(2):
        assert files(0).dtype == torch.float32
        assert torch.equal(files(0), torch.full((3, 2, 2), 0.2))
    assert read.seen == ["a"]


def test_changing_what_was_given_does_not_change_what_is_kept():
    files = Files([Path("a")], Reads())
    files(0).zero_()
    assert torch.equal(files(0), torch.full((3, 2, 2), 0.2))


def test_floats_and_sound_are_handed_on_as_they_are():
    files = Files([Path("a")], Reads(lambda: (torch.tensor([0.5, -0.5]), 2)))
    waveform, length = files(0)
    assert (waveform.tolist(), length) == ([0.5, -0.5], 2)


def test_files_beyond_the_budget_are_read_again(monkeypatch):
    monkeypatch.setattr(module, "CACHE_BYTES", 20)  # one image of 12 bytes fits, two do not
    read = Reads()
    files = Files([Path("a"), Path("b")], read)
    for _ in range(2):
        files(0)
        files(1)
    assert read.seen == ["a", "b", "b"]


def test_a_bad_file_is_named_and_reasoned():
    files = Files([Path("dir/bad.png"), Path("good.png")], Reads())
    with pytest.raises(DataError, match=r"^dir/bad\.png: not an image$"):
        files(0)
    assert files.reason(0) == "not an image"
    assert files.reason(1) is None


class Clips:
    """A reader of clips of three windows, some of which are silent."""

    def __init__(self, *silent):
        self.silent = silent

    def windows(self, path):
        return 3

    def __call__(self, path, window=0):
        if window in self.silent:
            raise DataError("silent")
        return torch.full((2,), float(window)), 2


def test_silent_windows_are_left_out():
    files = Files([Path("a")], Clips(0))
    assert isinstance(files, InWindows)
    assert files.windows(0) == [1, 2]
    assert files(0)[0].tolist() == [1.0, 1.0]
    assert Windows(files, [(0, 2), (0, 1)])(0)[0].tolist() == [2.0, 2.0]
    with pytest.raises(DataError, match=r"^a: silent$"):
        Files([Path("a")], Clips(0, 1, 2)).windows(0)
