"""Learn a prompt with Hugging Face's Trainer: its checkpoints hold prompt and readout only."""

import torch
from torchvision.datasets import ImageFolder
from transformers import Trainer, TrainingArguments, ViTImageProcessor

import vpt

backbone, photos = vpt.load_backbone("vpt:vit-p8-64"), ImageFolder("photos/")
# of a published model: AutoImageProcessor.from_pretrained(its name)
mean, std = list(backbone.inputs.mean), list(backbone.inputs.std)
processor = ViTImageProcessor(size=backbone.inputs.size, image_mean=mean, image_std=std)


def collate(batch: list) -> dict:
    pictures, labels = zip(*batch, strict=True)
    return processor(list(pictures), return_tensors="pt") | {"labels": torch.tensor(labels)}


readout = vpt.Linear(backbone.out_features, photos.classes)
model = vpt.hf.wrap(vpt.PromptedModel(backbone, vpt.DeepTokens.like(backbone, 4), readout))
how = TrainingArguments("runs/trainer", num_train_epochs=10, learning_rate=1e-2)
Trainer(model, how, collate, photos).train()
model.save_pretrained("runs/trainer")  # prompt.vpt: vpt.load and vpt predict take the folder
print("grey is", vpt.hf.pipeline("runs/trainer")("photos/grey/0.png", top_k=2))
