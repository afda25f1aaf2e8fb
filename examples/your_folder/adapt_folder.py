"""Adapt a folder of labelled images, then use the result: photos/CLASS/FILE."""

import torch

import vpt

result = vpt.adapt("photos/", out="runs/photos", overwrite=True)
print(result.metrics["verdict"], "· test accuracy", result.metrics["test_accuracy"])

model = vpt.load(result.file)  # opens the backbone again by name
images = model.backbone.inputs.example(2)  # any images [B,3,H,W] in [0,1]
with torch.no_grad():
    print("noise is taken for", [model.classes[i] for i in model(images).argmax(1)])

bare = result.model.close()  # the model as it was: no hook left, no weight touched
