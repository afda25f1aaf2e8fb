"""Rotary positions (timm's EVA, DINOv3, Perception Encoder, rope ViTs): tokens in front are not
rotated.

timm rotates all but the first `num_prefix_tokens` of a sequence by the rows of `rope`. With P
tokens in front, the P rows more that this leaves to be rotated get the angle zero, so that every
other token keeps its own.
"""

from __future__ import annotations

import torch

from vpt.backbones.finding.structure import Kwargs
from vpt.backbones.finding.watching import ROTARY
from vpt.sites import Config


def unrotated(kwargs: Kwargs, count: int) -> Config:
    """The same arguments with `count` rows of angle zero in front of `rope` `[…,N,2·d]`, whose
    halves are sine and cosine.
    """
    rope = kwargs.get(ROTARY)
    if rope is None:
        return kwargs
    sine, cosine = rope[..., :1, :].expand(*rope.shape[:-2], count, -1).chunk(2, dim=-1)
    zero = torch.cat([torch.zeros_like(sine), torch.ones_like(cosine)], dim=-1)
    return kwargs | {ROTARY: torch.cat([zero, rope], dim=-2)}
