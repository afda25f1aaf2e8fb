"""Make a biased classifier fairer by a learned border, by the short form and in parts."""

import vpt

labels = {"label": "hair", "group": "sex"}  # columns of faces.csv, beside path and split
how = {"strengths": [0.3, 1, 3], "epochs": 15}
result = vpt.reprogram("faces.csv", "vpt:biased-portraits", **labels, **how, out="runs/fair")
print(result.report["verdict"])  # result.frontier holds every point; result.model the chosen prompt
result.model.close()

backbone = vpt.load_backbone("vpt:biased-portraits")
data = vpt.load_data("faces.csv", backbone.inputs, **labels)
model = vpt.PromptedModel(backbone, vpt.Border.like(backbone, 6), vpt.Identity(data.classes))
found = vpt.frontier(model, data.train, data.val, data.test, **how)
with open("trade-off.png", "wb") as file:
    file.write(found.picture())
vpt.fit(model, data.train, data.val, objective=vpt.FairReprogram(0.1), epochs=15)  # one alone
print("accuracy", vpt.evaluate(model, data.test)["accuracy"])
