"""Learn a border around the pictures of photos/ in parts, and look at it."""

from pathlib import Path

import vpt
from vpt.report.pixels import pixel_prompt

backbone = vpt.load_backbone("vpt:vit-p8-64")
data = vpt.load_data("photos/", backbone.inputs)
border = vpt.Border.like(backbone, width=8)
# vpt.Identity(data.classes) instead keeps the model's own classes
readout = vpt.Linear(backbone.out_features, data.classes)
with vpt.PromptedModel(backbone, border, readout) as model:
    history = vpt.fit(model, data.train, data.val, epochs=15, lr=1e-2, readout_lr=1.0)
    print("kept epoch", history.best, history.rows[history.best])
    print("test accuracy", vpt.evaluate(model, data.test)["accuracy"])
    vpt.save("border.vpt", model)
Path("border.png").write_bytes(pixel_prompt(border.canvas(), border.describe(), "in [0,1]"))
