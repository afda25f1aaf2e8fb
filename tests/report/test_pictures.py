"""Pictures: valid PNG of a sensible size that show what they should."""

from __future__ import annotations

from io import BytesIO

import numpy as np
import pytest
import torch
from PIL import Image

from vpt.report import pictures

RED, GREEN, BLUE = ([255, 0, 0], [0, 255, 0], [0, 0, 255])


def opened(png):
    assert png[:8] == b"\x89PNG\r\n\x1a\n"
    with Image.open(BytesIO(png)) as image:
        image.load()
        return np.array(image.convert("RGB"))


def share(pixels, colour):
    return float((pixels == np.array(colour)).all(-1).mean())


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


ROWS = [
    {
        "epoch": e,
        "loss": 1.0 / (e + 1),
        "val_loss": 1.2 / (e + 1),
        "train_accuracy": 0.5 + 0.1 * e,
        "val_accuracy": 0.4 + 0.1 * e,
    }
    for e in range(4)
]
GOOD, SOFT = [0xC1, 0x44, 0x0E], [0x8D, 0x99, 0xAE]


def test_curves_of_a_run():
    pixels = opened(
        pictures.curves(ROWS, 2, {"linear probe": 0.6, "nearest mean": 0.3}, "shallow:5")
    )
    assert pixels.shape == (round(3.4 * 140), 8 * 140, 3)
    for half in np.split(pixels, 2, axis=1):
        assert share(half, GOOD) > 0.0005
        assert share(half, SOFT) > 0.0005


@pytest.mark.parametrize("rows", [[], ROWS[:1], [{"epoch": 0}], [{"epoch": 0, "loss": 2.0}]])
def test_curves_of_short_runs(rows):
    assert opened(pictures.curves(rows, 0, {}, "none")).shape == (476, 1120, 3)


def test_curves_show_what_was_measured_and_the_epoch_that_was_kept():
    bare = [{name: value for name, value in row.items() if "val" not in name} for row in ROWS]
    assert share(opened(pictures.curves(bare, -1, {}, "t")), GOOD) == 0
    with_best, without = (opened(pictures.curves(bare, best, {}, "t")) for best in (2, -1))
    assert (with_best != without).any()
    assert (opened(pictures.curves(bare, -1, {"probe": 0.1}, "t")) != without).any()


def test_every_baseline_is_drawn():
    three = {"a": 0.1, "b": 0.2, "c": 0.3}
    drawn = [opened(pictures.curves(ROWS, 2, lines, "t")) for lines in (three, {**three, "d": 0.9})]
    assert (drawn[0] != drawn[1]).any()


def test_a_line_for_each_method_of_a_sequence():
    one = opened(pictures.sequence({"coda": [[0.9, 0.7, 0.5], [0.8, 0.6, 0.4]]}, "two runs"))
    two = opened(
        pictures.sequence(
            {"coda": [[0.9, 0.7, 0.5]], "joint": [[0.6]], "ridge": [[0.9, 0.8, 0.7]]},
            "three methods",
        )
    )
    assert one.shape == two.shape
    ink = [len(np.unique(picture.reshape(-1, 3), axis=0)) for picture in (one, two)]
    assert ink[1] > ink[0]  # more colours
    assert opened(pictures.sequence({"joint": [[0.6]]}, "one number")).shape == one.shape
