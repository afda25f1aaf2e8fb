"""Patches replace a corner."""

from __future__ import annotations

import pytest
import torch

import vpt
from vpt.prompts.patch import CORNERS


@pytest.mark.parametrize("corner", CORNERS)
def test_replaces_its_corner_and_nothing_else(corner: str) -> None:
    prompt = vpt.Patch(3, [3, 8, 10], corner=corner)
    torch.nn.init.normal_(prompt.pixels)
    x = torch.rand(2, 3, 8, 10)
    out, _ = prompt.apply_to(x, None)
    down = slice(0, 3) if "top" in corner else slice(5, 8)
    across = slice(0, 3) if "left" in corner else slice(7, 10)
    assert torch.allclose(out[1][:, down, across], torch.tanh(prompt.pixels))
    changed = (out != x)[0].any(0)
    expected = torch.zeros(8, 10, dtype=torch.bool)
    expected[down, across] = True
    assert torch.equal(changed, expected)
    assert torch.equal(prompt.canvas()[:, ~expected], torch.zeros(3, 71))


def test_on_sound_a_patch_behind_the_clip_is_heard() -> None:
    prompt = vpt.Patch(2, [12, 4], corner="bottom_left", base=-3.0, unit=2.0, bound=3.0)
    out, lengths = prompt.apply_to(torch.zeros(1, 12, 4), torch.tensor([5]))
    assert lengths.tolist() == [12]
    assert torch.equal(out[0, 10:, :2], torch.full((2, 2), -3.0))  # zeros start at the mean


def test_share_and_wrong_input() -> None:
    assert vpt.Patch(16, [3, 64, 64]).covered == pytest.approx(1 / 16)
    for kwargs, message in (
        ({"size": 8}, "hides the whole"),
        ({"size": 0}, "size=0"),
        ({"size": 2, "corner": "middle"}, "top_left"),
    ):
        with pytest.raises(vpt.errors.PromptError, match=message):
            vpt.Patch(**({"shape": [3, 8, 8]} | kwargs))
