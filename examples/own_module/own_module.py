"""Prompt a transformer of your own: any module with a list of equal blocks that hold attention."""

import torch
from torch import nn

import vpt


class Mine(nn.Module):  # 4 × 4-pixel squares of a small image as tokens; it knows nothing of vpt
    def __init__(self) -> None:
        super().__init__()
        layer = nn.TransformerEncoderLayer(32, 4, 64, batch_first=True, norm_first=True)
        self.embed, self.head = nn.Conv2d(3, 32, 4, stride=4), nn.Linear(32, 3)
        self.encoder = nn.TransformerEncoder(layer, 3, enable_nested_tensor=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.encoder(self.embed(x).flatten(2).transpose(1, 2)).mean(1))


backbone = vpt.load_backbone(Mine(), inputs=vpt.Images((16, 16)), classes=["red", "green", "blue"])
print(vpt.check(backbone))  # six properties; also tried when a model of an unknown class is opened
prompt = vpt.Stack([vpt.Border.like(backbone, width=2), vpt.DeepTokens.like(backbone, count=4)])
model = vpt.PromptedModel(backbone, prompt, vpt.Linear(32, backbone.class_names))
print("logits", model(torch.rand(2, 3, 16, 16)).shape)  # vpt.fit trains it, as any other
