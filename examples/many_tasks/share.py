"""One prompt learned from several tasks, taken to a new one with few examples."""

import vpt

backbone = vpt.load_backbone("vpt:vit-p8-64")
tasks = {name: vpt.load_data(f"{name}/", backbone.inputs) for name in ("birds", "flowers")}
shared = vpt.multi_task.share(tasks, backbone, "deep:5", out="runs/shared", epochs=8)
print(shared.accuracies(tasks))  # on validation
vpt.multi_task.export("birds.vpt", shared.model, "birds")  # an ordinary prompt file
shared.model.close()

new = vpt.load_data("photos/", backbone.inputs)  # a few of each class
# learn="all" learns more, learn="nothing" keeps the universal prompt as it is
model = vpt.multi_task.take_to(shared.prompt, new, backbone, learn="factors", epochs=8)
print("test accuracy", vpt.evaluate(model, new.test)["accuracy"])
