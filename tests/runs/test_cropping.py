"""Crops show the place that was meant."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from vpt.runs.cropping import crop_of


@pytest.mark.parametrize("place", [0, 5, 27, 63])
def test_a_place_lies_in_its_crop(place: int) -> None:
    picture = np.zeros((64, 64, 3))
    row, column = divmod(place, 8)
    picture[8 * row : 8 * row + 8, 8 * column : 8 * column + 8] = 1
    crop = crop_of(picture, (8, 8), place, 48)
    assert crop.shape == (3, 48, 48)
    assert crop.dtype == torch.uint8
    assert float(crop.float().mean()) / 255 == pytest.approx(1 / 9, abs=0.02)  # with its neighbours


def test_a_narrow_place_of_sound_has_surroundings_and_low_tones_below() -> None:
    spectrogram = np.zeros((10, 400))
    spectrogram[0] = 1  # the lowest tone
    crop = crop_of(spectrogram, (1, 100), 50, 48)
    assert float(crop[0, -1].float().mean()) > 200
    assert float(crop[0, 0].float().mean()) < 5
