"""What a run costs, beside what tuning the model itself would cost on the same data."""

from __future__ import annotations

import logging
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from accelerate.utils import send_to_device
from torch import nn
from torch.utils.data import default_collate

from vpt.backbones import Backbone
from vpt.data import Data
from vpt.model import PromptedModel
from vpt.sites import Config, Raw
from vpt.training.evaluation import accelerator_in
from vpt.training.operations import count_operations
from vpt.training.tuning import RANK, lora_layers, tuned_model

LOGGER = logging.getLogger("vpt")
BATCH = 4  # examples of a step that is timed
# of a small model more, or what a call takes by itself would be counted too often
SMALL_BATCH, SMALL = 16, 50 << 20  # examples, bytes
EPOCHS = 8  # of tuning; few, for a few hundred examples
LARGEST = 1 << 30  # bytes of a model that is copied to be timed
WATTS = 10.0  # of a busy CPU core, with its share of the rest
SCALE = 4  # bytes of a number in a file
ENOUGH = 0.2  # seconds of timing, twice at least


@dataclass
class Clock:
    """When a run began, and what was measured of its alternatives on the way."""

    wall: float = field(default_factory=time.monotonic)
    cpu: float = field(default_factory=time.process_time)
    others: list[Config] = field(default_factory=list)

    def seconds(self) -> float:
        """Since then."""
        return round(time.monotonic() - self.wall, 1)

    def look(self, backbone: Backbone, data: Data) -> None:
        """Measure what a probe, LoRA and full fine-tuning would take on these data. What this takes
        is not counted.

        backbone: with nothing attached.
        """
        wall, cpu = time.monotonic(), time.process_time()
        backbone.to(accelerator_in("no").device)
        self.others = alternatives(backbone, data)
        self.wall += time.monotonic() - wall
        self.cpu += time.process_time() - cpu

    def cost(self, model: PromptedModel) -> Config:
        """What was spent until now, in plain values. Parameters and bytes are those of prompt and
        readout, as the file holds them, and of a copy of the whole model; seconds of all CPU cores,
        or, on another device, of the clock.
        """
        backbone = model.backbone
        learned = [model.prompt, model.readout]
        device = backbone.device.type
        cpu = round(time.process_time() - self.cpu, 1) if device == "cpu" else self.seconds()
        return {
            "parameters": sum(p.numel() for part in learned for p in part.parameters()),
            "of_the_model": sum(p.numel() for p in backbone.model.parameters()),
            "bytes": sum(v.nbytes for part in learned for v in part.state_dict().values()),
            "bytes_of_the_model": _bytes(backbone.model),
            "seconds": cpu,
            "device": device,
            "watt_hours": round(cpu * WATTS / 3600, 3) if device == "cpu" else None,
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
    batch = SMALL_BATCH if _bytes(backbone.model) < SMALL else BATCH
    batch = min(batch, len(heard))
    some: Raw = default_collate([heard[i][0] for i in range(batch)])
    x = send_to_device(some, backbone.device)
    count = len(heard) / batch
    head = backbone.out_features * len(data.classes)

    @torch.no_grad()
    def forward() -> None:
        backbone.features(x)

    works: dict[str, Callable[[], tuple[Callable[[], None], int]]] = {
        "linear probe": lambda: (forward, head),
        f"LoRA of rank {RANK}": lambda: _step(backbone, "lora", x, head),
        "full fine-tuning": lambda: _step(backbone, "full", x, head),
    }
    if not lora_layers(backbone):
        del works[f"LoRA of rank {RANK}"]
    found = []
    for name, make in works.items():
        epochs = 1 if name == "linear probe" else EPOCHS
        try:
            found.append(_measured(name, *make(), count, epochs, backbone.device))
        except Exception as error:  # a table of the page is no reason to lose a run
            LOGGER.info("What %s would cost was not measured: %s", name, error)
    return found


def _step(backbone: Backbone, kind: str, x: Raw, head: int) -> tuple[Callable[[], None], int]:
    """(a step of tuning a copy of the model, how many numbers it learns)."""
    with warnings.catch_warnings():  # of peft, about names of layers
        warnings.simplefilter("ignore")
        model, answer = tuned_model(backbone, kind, x, str(backbone.device))

    def step() -> None:
        answer().square().mean().backward()
        model.zero_grad()

    return step, head + sum(p.numel() for p in model.parameters() if p.requires_grad)


def _measured(
    name: str,
    work: Callable[[], None],
    learned: int,
    count: float,
    epochs: int,
    device: torch.device,
) -> Config:
    """A method's numbers.

    name: of the method.
    work: one step of it.
    learned: how many numbers.
    count: steps in which all examples are seen once.
    epochs: how often they are.
    device: where it runs.
    """
    operations = count_operations(work)  # the first is slower
    seconds: list[float] = []
    while len(seconds) < 2 or sum(seconds) < ENOUGH:
        started = _now(device)
        work()
        seconds.append(_now(device) - started)
    return {
        "method": name,
        "epochs": epochs,
        "parameters": learned,
        "bytes": SCALE * learned,
        "seconds": round(min(seconds) * count * epochs, 1),
        "operations": round(operations * count * epochs),
    }


def _now(device: torch.device) -> float:
    """Seconds of all CPU cores, or of the clock once the device has done what it was given."""
    if device.type == "cpu":
        return time.process_time()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter()


def _bytes(model: nn.Module) -> int:
    return sum(p.numel() * p.element_size() for p in model.parameters())
