"""Nothing trained but a border: the model's own classes stand for those of photos/."""

import vpt

backbone = vpt.load_backbone("vpt:vit-p8-64")
data = vpt.load_data("photos/", backbone.inputs)
readout = vpt.LabelMap(data.classes, "bayes")
with vpt.PromptedModel(backbone, vpt.Border.like(backbone, width=8), readout) as model:
    vpt.fit(model, data.train, data.val, epochs=12, lr=0.2, augment="crop")
    print("test accuracy", vpt.evaluate(model, data.test)["accuracy"])
for name, parts in readout.mapping().items():
    print(name, "is made of", parts[:3])
