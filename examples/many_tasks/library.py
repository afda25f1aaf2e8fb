"""Several tasks on one frozen model: each picture of a batch is asked its own question."""

import torch

import vpt

backbone = vpt.load_backbone("vpt:vit-p8-64")
for task in ("birds", "flowers"):  # folders birds/CLASS/FILE and flowers/CLASS/FILE
    result = vpt.adapt(f"{task}/", backbone, out=f"runs/{task}")
    result.model.close()

images = backbone.inputs.example(3)  # [B,3,H,W] in [0,1]
with vpt.open_library("runs/", backbone) as library, torch.inference_mode():
    tasks = ["flowers", "birds", "flowers"]
    for task, scores in zip(tasks, library(images, tasks=tasks), strict=True):  # one forward
        print(task, "·", library.task(task).readout.classes[scores.argmax()])
    for task, scores in library.all(images).items():  # every task of every picture, from one
        print(task, scores.shape)
    library.swap("birds")  # what acts where no tasks are said; a microsecond
    print(library(images).shape)
