"""Adapt the bundled audio spectrogram transformer to recordings, no speaker on both sides."""

import numpy as np

import vpt

result = vpt.adapt(
    "recordings/recordings.csv",  # path,label,speaker; or a folder recordings/CLASS/FILE
    split_by="speaker",
    out="runs/recordings",
    overwrite=True,
)
print(result.metrics["baselines"], result.metrics["verdict"], sep="\n")
print("test accuracy", result.metrics["test_accuracy"])

noise = np.random.default_rng(0).uniform(-1, 1, 16000)  # or files, a folder, many of them
(found,) = vpt.predict("runs/recordings", {"array": noise, "sampling_rate": 16000}, top_k=2)
print("noise is taken for", found.label, found.probabilities)
