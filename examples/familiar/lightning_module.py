"""Learn a prompt with Lightning: checkpoints hold prompt and readout only."""

import lightning
import torch
from torch.utils.data import DataLoader

import vpt


class Prompted(lightning.LightningModule):
    def __init__(self, model: vpt.PromptedModel) -> None:
        super().__init__()
        self.wrapped = vpt.hf.wrap(model)  # whose parameters are prompt and readout

    def training_step(self, batch: list, number: int) -> torch.Tensor:
        return torch.nn.functional.cross_entropy(self.wrapped.prompted(batch[0]), batch[1])

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.AdamW(self.parameters(), lr=1e-2)


backbone = vpt.load_backbone("vpt:vit-p8-64")
data = vpt.load_data("photos/", backbone.inputs)
readout = vpt.Linear(backbone.out_features, data.classes)
model = vpt.PromptedModel(backbone, vpt.DeepTokens.like(backbone, count=4), readout)
lightning.Trainer(max_epochs=10).fit(Prompted(model), DataLoader(data.train, 8, shuffle=True))
print("test accuracy", vpt.evaluate(model, data.test)["accuracy"])
