"""Learn a prompt in a loop of your own: a PromptedModel is a module like any other."""

import torch
from torch.nn import functional as F
from torch.utils.data import DataLoader

import vpt

backbone = vpt.load_backbone("vpt:vit-p8-64")
data = vpt.load_data("photos/", backbone.inputs)  # or any loader of pixels [B,3,H,W] in [0,1]
prompt = vpt.DeepTokens.like(backbone, count=4)
model = vpt.PromptedModel(backbone, prompt, vpt.Linear(backbone.out_features, data.classes))

learned = [p for p in model.parameters() if p.requires_grad]  # the backbone's never are
optimizer = torch.optim.AdamW(learned, lr=1e-2)
for _ in range(10):
    model.train()  # the backbone stays in eval mode
    for x, y in DataLoader(data.train, batch_size=8, shuffle=True):
        F.cross_entropy(model(x), y).backward()
        optimizer.step()
        optimizer.zero_grad()
model.eval()
print("test accuracy", vpt.evaluate(model, data.test)["accuracy"])
vpt.save("plain.vpt", model)
