"""Pictures of pixel prompts: valid PNG of a sensible size that show what they should."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from drawings import opened, share

from vpt.report import pixels as pictures

RED, GREEN, BLUE = ([255, 0, 0], [0, 255, 0], [0, 0, 255])


def plain(colour, size=8):
    return torch.tensor(colour).div(255).view(3, 1, 1).expand(3, size, size)


def test_shown_puts_channels_last_and_clips():
    x = torch.tensor([[[-1.0, 0.5]], [[0.25, 2.0]], [[0.0, 1.0]]], requires_grad=True)
    assert pictures.shown(x).tolist() == [[[0, 0.25, 0], [0.5, 1, 1]]]
    assert pictures.shown(torch.full((1, 2, 3), 0.5)).shape == (2, 3, 3)
    assert pictures.shown(torch.rand(4, 2, 3).half()).dtype == np.float32


def test_an_image_prompt_is_drawn_in_its_colours():
    canvas = torch.zeros(3, 16, 16)
    canvas[0, :, :8], canvas[1, :, 8:] = -0.5, -0.5
    canvas[2] = 0.25
    pixels = opened(pictures.pixel_prompt(canvas, "a border of 2 pixels", "in [0,1]"))
    assert pixels.shape == (round(4.6 * 140), 5 * 140, 3)
    left, right = [[0, 170, 255], [170, 0, 255]]  # stretched: −0.5 → 0, 0 → 2/3, 0.25 → 1
    assert share(pixels, left) > 0.2
    assert share(pixels, right) > 0.2
    assert (
        np.argwhere((pixels == left).all(-1))[:, 1].max()
        < np.argwhere((pixels == right).all(-1))[:, 1].min()
    )


@pytest.mark.parametrize("canvas", [torch.zeros(3, 8, 8), torch.ones(1, 8, 8), torch.zeros(4, 8)])
def test_a_prompt_that_is_still_constant_is_drawn_too(canvas):
    assert opened(pictures.pixel_prompt(canvas, "untrained", "σ")).std() > 5


def test_only_a_border_has_a_half_before_the_clip_and_a_half_behind_it():
    canvas = torch.rand(40, 16, generator=torch.Generator().manual_seed(0))
    border, other, wave = (
        pictures.pixel_prompt(c, "t", "σ", h)
        for c, h in ((canvas, True), (canvas, False), (canvas[:, :1], False))
    )
    assert len({border, other, wave}) == 3
    assert pictures.pixel_prompt(canvas, "t", "σ") == other


def test_a_sound_prompt_is_drawn_with_time_across_and_low_bands_below():
    canvas = torch.zeros(40, 16)
    canvas[:20, 8:] = 1.0  # early and high
    pixels = opened(pictures.pixel_prompt(canvas, "a border", "σ")).astype(int)
    assert pixels.shape == (644, 700, 3)
    bright = np.argwhere(np.abs(pixels - [252, 253, 191]).max(-1) <= 2)  # magma's highest
    bright = bright[bright[:, 1] < 500]  # without the colour bar
    assert len(bright) > 10_000
    dark = np.argwhere(np.abs(pixels - [0, 0, 4]).max(-1) <= 2)
    dark = dark[dark[:, 1] < 500]
    assert bright[:, 0].mean() < dark[:, 0].mean()
    assert bright[:, 1].mean() < dark[:, 1].mean()


def test_reprogrammed_shows_before_above_after():
    png = pictures.reprogrammed(
        [plain(GREEN), plain(GREEN)], [plain(RED), plain(BLUE)], ["cat", "dog"]
    )
    pixels = opened(png)
    assert pixels.shape == (round(3.6 * 140), 3 * 140, 3)
    rows = {
        name: np.argwhere((pixels == c).all(-1))
        for name, c in (("green", GREEN), ("red", RED), ("blue", BLUE))
    }
    assert min(len(found) for found in rows.values()) > 5000
    assert rows["green"][:, 0].max() < min(rows["red"][:, 0].min(), rows["blue"][:, 0].min())
    assert rows["red"][:, 1].max() < rows["blue"][:, 1].min()


def test_reprogrammed_needs_as_many_titles_as_images():
    with pytest.raises(ValueError, match="zip"):
        pictures.reprogrammed([plain(RED)], [plain(RED)], [])


@pytest.mark.parametrize("title", ["$5 and $6", "a_b^c", "100 % ok", "\\frac"])
def test_titles_are_only_text(title):
    assert share(opened(pictures.reprogrammed([plain(RED)], [plain(RED)], [title])), RED) > 0.1


def test_class_names_in_any_script():
    pictures.reprogrammed([plain(RED)], [plain(RED)], ["猫"])
