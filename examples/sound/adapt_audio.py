"""Adapt the bundled audio spectrogram transformer to recordings, no speaker on both sides."""

import torch

import vpt

result = vpt.adapt(
    "recordings/recordings.csv",  # path,label,speaker; or a folder recordings/CLASS/FILE
    split_by="speaker",
    out="runs/recordings",
    overwrite=True,
)
print(result.metrics["baselines"], result.metrics["verdict"], sep="\n")
print("test accuracy", result.metrics["test_accuracy"])

model = vpt.load(result.file)
sound = torch.rand(2, 16000) * 2 - 1, torch.tensor([16000, 16000])  # [B,T] in [-1,1], lengths [B]
print("noise is taken for", [model.classes[i] for i in model(sound).argmax(1)])
