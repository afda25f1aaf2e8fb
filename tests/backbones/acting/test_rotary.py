"""Tokens in front get the angle zero; every other token keeps its own."""

from __future__ import annotations

import pytest
import torch
from timm.layers import apply_rot_embed_cat

from vpt.backbones.acting.rotary import unrotated


@pytest.mark.parametrize("shape", [(6, 8), (2, 6, 8)])
@pytest.mark.parametrize("prefix", [0, 1, 5])
def test_as_if_they_were_not_there(shape: tuple[int, ...], prefix: int) -> None:
    torch.manual_seed(0)
    rope, own, rows = torch.randn(shape), torch.randn(1, 2, prefix + 6, 4), torch.randn(1, 2, 3, 4)
    rotated = torch.cat([own[:, :, :prefix], apply_rot_embed_cat(own[:, :, prefix:], rope)], dim=2)
    grown = unrotated({"rope": rope, "other": 1}, 3)
    assert grown["other"] == 1
    both = torch.cat([rows, own], dim=2)
    found = torch.cat(
        [both[:, :, :prefix], apply_rot_embed_cat(both[:, :, prefix:], grown["rope"])], dim=2
    )
    assert torch.allclose(found, torch.cat([rows, rotated], dim=2))


def test_without_angles_nothing_changes() -> None:
    given = {"rope": None, "mask": 3}
    assert unrotated(given, 4) is given
