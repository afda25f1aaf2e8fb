"""Export a run, and classify a picture without vpt and without torch."""

import json

import numpy as np
import onnxruntime
from PIL import Image

import vpt

vpt.adapt("photos/", "vpt:vit-p8-64", "queries:2", epochs=10, out="runs/photos").model.close()
vpt.export("runs/photos", "photos.onnx")

# from here on nothing of vpt is needed
session = onnxruntime.InferenceSession("photos.onnx")
facts = json.loads(session.get_modelmeta().custom_metadata_map["vpt"])
height, width = facts["preparation"]["size"]
image = Image.open("photos/grey/0.png").convert("RGB")
image = image.resize((width, height), Image.Resampling.BICUBIC)  # it is square
x = np.asarray(image, np.float32).transpose(2, 0, 1)[None] / 255
scores = session.run(["scores"], {"x": x})[0][0]
shares = np.exp(scores - scores.max()) / np.exp(scores - scores.max()).sum()
print("it is", facts["classes"]["scores"][shares.argmax()], f"({shares.max():.0%})")
