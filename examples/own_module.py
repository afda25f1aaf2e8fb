"""Prompt a transformer of your own: any nn.Module with a list of equal blocks that hold attention.

python examples/own_module.py
"""

from __future__ import annotations

import argparse

import torch
from torch import Tensor, nn

import vpt


class MyTransformer(nn.Module):
    """Eight 4 × 4-pixel rows of a small image as tokens; nothing in it knows of vpt."""

    def __init__(self, width: int = 32, classes: int = 3) -> None:
        super().__init__()
        self.embed = nn.Conv2d(3, width, 4, stride=4)
        self.position = nn.Parameter(torch.randn(1, 16, width) * 0.1)
        layer = nn.TransformerEncoderLayer(
            width, nhead=4, dim_feedforward=64, batch_first=True, norm_first=True
        )
        self.encoder = nn.TransformerEncoder(layer, num_layers=3, enable_nested_tensor=False)
        self.head = nn.Linear(width, classes)

    def forward(self, x: Tensor) -> Tensor:
        tokens = self.embed(x).flatten(2).transpose(1, 2) + self.position
        return self.head(self.encoder(tokens).mean(1))


def colours(count: int, seed: int) -> torch.utils.data.Dataset:
    """Noise in which one channel is brighter."""
    generator = torch.Generator().manual_seed(seed)
    y = torch.arange(count) % 3
    x = torch.rand(count, 3, 16, 16, generator=generator) * 0.5
    x[torch.arange(count), y] += 0.3
    return torch.utils.data.TensorDataset(x, y)


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--epochs", type=int, default=10)
    options = parser.parse_args(argv)

    torch.manual_seed(0)
    backbone = vpt.load_backbone(
        MyTransformer(), inputs=vpt.Images(size=(16, 16)), classes=["red", "green", "blue"]
    )
    # six properties; also run on load for models vpt has not seen before
    print(vpt.check(backbone))
    prompt = vpt.Stack([vpt.Border.like(backbone, width=2), vpt.DeepTokens.like(backbone, count=4)])
    model = vpt.PromptedModel(
        backbone, prompt, vpt.Linear(backbone.out_features, backbone.class_names)
    )
    vpt.fit(model, colours(90, 0), colours(30, 1), epochs=options.epochs, lr=0.05, readout_lr=1.0)
    print("accuracy", vpt.evaluate(model, colours(30, 2))["accuracy"])
    model.close()


if __name__ == "__main__":
    main()
