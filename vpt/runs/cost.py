"""What a run costs, beside what tuning the model itself would cost on the same data."""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from torch import nn
from torch.utils.data import default_collate

from vpt.backbones import Backbone
from vpt.data import Data
from vpt.model import PromptedModel
from vpt.sites import Config
from vpt.training.operations import count_operations
from vpt.training.tuning import RANK, lora_layers, tuned_model

BATCH = 4  # examples of a step that is timed
EPOCHS = 8  # of tuning; few, for a few hundred examples
LARGEST = 1 << 30  # bytes of a model that is copied to be timed
WATTS = 10.0  # of a busy CPU core, with its share of the rest
SCALE = 4  # bytes of a number in a file
ENOUGH = 0.2  # seconds of timing, twice at least


@dataclass
class Clock:
    """When a run began, and what was measured of its alternatives on the way.

    device: what the model ran on, once that is known.
    """

    wall: float = field(default_factory=time.monotonic)
    cpu: float = field(default_factory=time.process_time)
    others: list[Config] = field(default_factory=list)
    device: str = "cpu"

    def seconds(self) -> float:
        """Since then."""
        return round(time.monotonic() - self.wall, 1)

    def look(self, backbone: Backbone, data: Data) -> None:
        """Measure what a probe, LoRA and full fine-tuning would take on these data. What this takes
        is not counted.

        backbone: with nothing attached.
        """
        wall, cpu = time.monotonic(), time.process_time()
        self.device = backbone.device.type
        self.others = alternatives(backbone, data)
        self.wall += time.monotonic() - wall
        self.cpu += time.process_time() - cpu

    def cost(self, model: PromptedModel) -> Config:
        """What was spent until now, in plain values. Parameters and bytes are those of prompt and
        readout, as the file holds them, and of a copy of the whole model.
        """
        backbone = model.backbone
        learned = [model.prompt, model.readout]
        cpu = round(time.process_time() - self.cpu, 1)
        return {
            "parameters": sum(v.numel() for part in learned for v in part.state_dict().values()),
            "of_the_model": sum(p.numel() for p in backbone.model.parameters()),
            "bytes": sum(v.nbytes for part in learned for v in part.state_dict().values()),
            "bytes_of_the_model": _bytes(backbone.model),
            "cpu_seconds": cpu,
            "device": self.device,
            "watt_hours": round(cpu * WATTS / 3600, 3) if self.device == "cpu" else None,
            "watts_of_a_core": WATTS,
            "others": self.others,
        }


def alternatives(backbone: Backbone, data: Data) -> list[Config]:
    """What a probe, LoRA and full fine-tuning take on the training examples: operations counted and
    seconds timed on a few examples, and multiplied; nothing where the model is too large to be
    copied.

    backbone: with nothing attached.
    """
    if _bytes(backbone.model) > LARGEST:
        return []
    heard = data.train.windows()[0]
    x = default_collate([heard[i][0] for i in range(min(BATCH, len(heard)))])
    count = len(heard) / min(BATCH, len(heard))
    whole = sum(p.numel() for p in backbone.model.parameters())
    head = backbone.out_features * len(data.classes)

    @torch.no_grad()
    def forward() -> None:
        backbone.features(x)

    found = [_measured("linear probe", forward, count, 1, head)]
    for kind in ("lora", "full"):
        if kind == "lora" and not lora_layers(backbone):
            continue
        with warnings.catch_warnings():  # of peft, about names of layers
            warnings.simplefilter("ignore")
            model, answer = tuned_model(backbone, kind, x, str(backbone.device))

        def step(model: nn.Module = model, answer: Callable[[], torch.Tensor] = answer) -> None:
            answer().square().mean().backward()
            model.zero_grad()

        learned = sum(p.numel() for p in model.parameters() if p.requires_grad) + head
        name = f"LoRA of rank {RANK}" if kind == "lora" else "full fine-tuning"
        found.append(_measured(name, step, count, EPOCHS, min(learned, whole + head)))
        del model, answer, step
    return found


def _measured(
    name: str, work: Callable[[], None], count: float, epochs: int, learned: int
) -> Config:
    """A method's numbers. count: how many times `work` sees all examples once."""
    operations = count_operations(work)  # the first is slower
    seconds: list[float] = []
    while len(seconds) < 2 or sum(seconds) < ENOUGH:
        started = time.process_time()
        work()
        seconds.append(time.process_time() - started)
    return {
        "method": name,
        "epochs": epochs,
        "parameters": learned,
        "bytes": SCALE * learned,
        "cpu_seconds": round(min(seconds) * count * epochs, 1),
        "operations": round(operations * count * epochs),
    }


def _bytes(model: nn.Module) -> int:
    return sum(p.numel() * p.element_size() for p in model.parameters())
