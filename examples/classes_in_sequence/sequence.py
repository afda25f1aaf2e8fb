"""Classes that come two at a time, and no data kept: CODA-Prompt, and what it must beat."""

import vpt

backbone = vpt.load_backbone("vpt:vit-p8-64")
data = vpt.load_data("photos/", backbone.inputs)
tasks = vpt.continual.split(data, per_task=2, seed=0)  # or a list of your own
for method in ("nearest-mean", "ridge", "coda"):
    outcome = vpt.continual.run(method, tasks, backbone, epochs=5)
    print(method, "final average accuracy", outcome.final_average)
    print("forgetting", outcome.forgetting_l2p, "parts in use", outcome.parts_used)
    outcome.model.close()
