"""Adapt a folder of labelled images, then use the result: photos/CLASS/FILE."""

from PIL import Image

import vpt

result = vpt.adapt("photos/", out="runs/photos", overwrite=True)
print(result.metrics["verdict"], "· test accuracy", result.metrics["test_accuracy"])

model = vpt.load("runs/photos")  # opens the backbone again by name
grey = Image.new("RGB", (300, 200), "grey")  # or paths, a folder, arrays, a generator of any
for found in vpt.predict(model, [grey], top_k=2):
    print("grey is taken for", found.label, found.probabilities)

bare = model.close()  # the model as it was: no hook left, no weight touched
