"""KWT-1 (Berg et al., Interspeech 2021), the published keyword transformer that was trained on
human speech: for comparison.

FOLDER holds its weights as `kwt1_v2-12.npz` (with the front end's) and `labels.txt`.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import vpt


class FrontEnd(nn.Module):
    """Waveform `[B,T]` → 40 cepstral coefficients a frame `[B,1 + (T - 480) // 160,40]`."""

    def __init__(self) -> None:
        super().__init__()
        sizes = {
            "window": (480,),
            "rdft_a": (244, 480),
            "rdft_b": (244, 480),
            "mel": (80, 244),
            "dct": (40, 80),
            "norm_scale": (40,),
            "norm_shift": (),
            "log_floor": (),
        }
        for name, size in sizes.items():
            self.register_buffer(name, torch.zeros(size))

    def forward(self, wave: Tensor, lengths: Tensor) -> Tensor:
        frames = wave.unfold(-1, len(self.window), 160) * self.window
        power = F.linear(frames, self.rdft_a).square() + F.linear(frames, self.rdft_b).square()
        mel = torch.maximum(F.linear(power.sqrt(), self.mel), self.log_floor).log()
        return F.linear(mel, self.dct) * self.norm_scale + self.norm_shift


class Attention(nn.Module):
    """One head."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.q, self.k, self.v = (nn.Linear(width, width, bias=False) for _ in range(3))
        self.proj = nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        heads = [layer(x)[:, None] for layer in (self.q, self.k, self.v)]
        return self.proj(F.scaled_dot_product_attention(*heads)[:, 0])


class Block(nn.Module):
    """Post-norm."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.attn, self.norm1 = Attention(width), nn.LayerNorm(width, eps=1e-6)
        self.mlp = nn.ModuleDict(
            {"fc1": nn.Linear(width, 4 * width), "fc2": nn.Linear(4 * width, width)}
        )
        self.norm2 = nn.LayerNorm(width, eps=1e-6)

    def forward(self, x: Tensor) -> Tensor:
        x = self.norm1(x + self.attn(x))
        return self.norm2(x + self.mlp["fc2"](F.gelu(self.mlp["fc1"](x), approximate="tanh")))


class KeywordTransformer(nn.Module):
    """Coefficients `[B,98,40]` → logits `[B,12]`; each frame is a token."""

    def __init__(self, width: int = 64, depth: int = 12, classes: int = 12) -> None:
        super().__init__()
        self.patch_embed = nn.Linear(40, width)
        self.cls_token = nn.Parameter(torch.zeros(1, 1, width))
        self.pos_embed = nn.Parameter(torch.zeros(1, 99, width))
        self.blocks = nn.ModuleList(Block(width) for _ in range(depth))
        self.head = nn.Linear(width, classes)

    def forward(self, x: Tensor) -> Tensor:
        x = (
            torch.cat([self.cls_token.expand(len(x), -1, -1), self.patch_embed(x)], 1)
            + self.pos_embed
        )
        for block in self.blocks:
            x = block(x)
        return self.head(x[:, 0])


def load(folder: str | Path) -> vpt.Backbone:
    """The published weights, as a frozen backbone."""
    with np.load(Path(folder) / "kwt1_v2-12.npz") as file:
        tensors = {name: torch.from_numpy(file[name].copy()) for name in file.files}
    model, front = KeywordTransformer(), FrontEnd()
    model.load_state_dict({k: v for k, v in tensors.items() if not k.startswith("frontend.")})
    front.load_state_dict(
        {k.removeprefix("frontend."): v for k, v in tensors.items() if k.startswith("frontend.")}
    )
    sound = vpt.Sound(
        sample_rate=16000, samples=16000, frames=98, bins=40, window=480, hop=160, front_end=front
    )
    return vpt.load_backbone(
        model.eval(),
        inputs=sound,
        classes=(Path(folder) / "labels.txt").read_text(encoding="utf-8").split(),
    )
