"""A published model as a frozen backbone: what it is, and what a prompt on it costs in numbers."""

import torch

import vpt

backbone = vpt.load_backbone("vit_base_patch16_224.augreg_in21k")  # or a Hugging Face id, a folder
print(backbone.identity["source"], backbone.depth, "blocks;", backbone.inputs)
print(vpt.check(backbone))  # the six properties, on this very model

prompt = vpt.DeepTokens.like(backbone, count=10)  # blocks=[9, 10, 11]: late, and cheaper to learn
model = vpt.PromptedModel(backbone, prompt, vpt.Linear(backbone.out_features, ["cat", "dog"]))
print(prompt.describe(), "·", sum(p.numel() for p in prompt.parameters()), "numbers learned")
with torch.inference_mode(), model.eval().baked():  # for serving: keys and values are held
    print(model(backbone.inputs.example(1)).shape)
bare = model.close()
