"""A tiny task that a tiny random model can learn: the brightest colour channel. Also a script for
other processes.
"""

from __future__ import annotations

import csv
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch
from families import make, open_tiny
from PIL import Image

import vpt
from vpt import continual
from vpt.data import Data, Examples
from vpt.files import learned
from vpt.runs.probe import fit_probe
from vpt.training import update
from vpt.training.epochs import Epochs
from vpt.training.evaluation import scores

OBJECTIVES = {
    "plain": vpt.Classification,
    "fair-dp": lambda: vpt.FairReprogram(0.5, "dp", hidden=16),
    "fair-eo": lambda: vpt.FairReprogram(0.5, "eo", hidden=16),
    "gap": lambda: vpt.GapPenalty(3.0),
    "worst": lambda: vpt.WorstGroup(0.5),
    "gap-bound": lambda: vpt.GapBound(0.5),
}


def stop_at(monkeypatch: pytest.MonkeyPatch, moment: str, call: int) -> None:
    """Interrupt a training run at this call of `step` or `finish_epoch`, as a person would."""
    owner = {"step": update, "finish_epoch": Epochs}[moment]
    real, calls = getattr(owner, moment), [0]

    def interrupted(*args: object) -> object:
        calls[0] += 1
        if calls[0] == call:
            raise KeyboardInterrupt
        return real(*args)

    monkeypatch.setattr(owner, moment, interrupted)


def in_threads(work: Callable[[int], None], count: int = 4) -> None:
    """Run `work(0)` to `work(count - 1)` at the same time, to the end."""
    threads = [threading.Thread(target=work, args=(i,)) for i in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def colours(count: int = 48, seed: int = 0, size: int = 32) -> Examples:
    """Noisy images `[3,size,size]` of which one channel is brighter; the class says which, the
    group whether all are darker.
    """
    generator = torch.Generator().manual_seed(seed)
    y = torch.arange(count) % 3
    x = torch.rand(count, 3, size, size, generator=generator) * 0.4
    x[torch.arange(count), y] += 0.6
    dark = (torch.rand(count, generator=generator) < 0.3 + 0.2 * y).long()
    x *= (1 - 0.4 * dark)[:, None, None, None]
    names = ["light", "dark"]
    return Examples(
        list(x).__getitem__,
        y.tolist(),
        ["red", "green", "blue"],
        groups=dark.tolist(),
        group_names=names,
    )


def pictures(root: Path, examples: Examples, flat: bool = False) -> Path:
    """The examples as files of a folder, `CLASS/NUMBER.png`, or flat, without their labels."""
    for i in range(len(examples)):
        x, y = examples[i][:2]
        folder = root if flat else root / examples.classes[y]
        folder.mkdir(parents=True, exist_ok=True)
        pixels = (x.clamp(0, 1) * 255).byte().permute(1, 2, 0).numpy()
        Image.fromarray(np.ascontiguousarray(pixels)).save(folder / f"{i}.png")
    return root


def six_classes(count: int = 48, seed: int = 0) -> Examples:
    """Noisy images `[3,32,32]` of which one half, left or right, is brighter in one channel: six
    classes.
    """
    generator = torch.Generator().manual_seed(seed)
    y = torch.arange(count) % 6
    x = torch.rand(count, 3, 32, 32, generator=generator) * 0.4
    for i, label in enumerate(y.tolist()):
        x[i, label % 3, :, 16 * (label // 3) : 16 * (label // 3) + 16] += 0.5
    names = [
        f"{colour} {side}" for side in ("left", "right") for colour in ("red", "green", "blue")
    ]
    return Examples(list(x).__getitem__, y.tolist(), names)


def six_in_three(per_class: int = 6) -> list[Data]:
    """The six classes as three tasks of two."""
    parts = [six_classes(6 * per_class, seed) for seed in range(3)]
    return continual.split(Data(*parts, parts[0].classes, []), 2, seed=0)


def tiny_model(
    form: str = "deep", dropout: float = 0.0, readout: str = "linear"
) -> vpt.PromptedModel:
    """A prompted tiny ViT with a fresh linear readout that already leans a little, or a label map
    that counts as it trains.
    """
    backbone = open_tiny("timm ViT")
    prompt = {
        "deep": lambda: vpt.DeepTokens.like(backbone, 3, dropout=dropout),
        "stack": lambda: vpt.Stack(
            [
                vpt.Border.like(backbone, 3, init="uniform"),
                vpt.Prefix.like(backbone, 2, dropout=dropout),
            ]
        ),
    }[form]()
    names = ["red", "green", "blue"]
    if readout == "map":
        return vpt.PromptedModel(backbone, prompt, vpt.LabelMap(names, "bayes+", refresh="reuse"))
    torch.manual_seed(1)
    linear = vpt.Linear(backbone.out_features, names)
    torch.nn.init.normal_(linear.weight, std=0.1)
    return vpt.PromptedModel(backbone, prompt, linear)


def state(model: vpt.PromptedModel) -> torch.Tensor:
    """All that a model learned, as one vector."""
    return torch.cat([v.flatten() for v in learned(model).values()])


def ready() -> vpt.PromptedModel:
    """A model whose readout begins at a probe."""
    model = tiny_model()
    found = scores(model, colours(96), outputs=True)
    probe = fit_probe(*found, ["red", "green", "blue"])[0]
    model.readout.load_state_dict(probe.state_dict())
    return model


def planted(count: int, seed: int) -> Examples:
    """The label is whether red is bright, with noise; the group whether blue is; they agree in 85
    of 100.
    """
    generator = torch.Generator().manual_seed(seed)
    y = torch.arange(count) % 2
    z = torch.where(torch.rand(count, generator=generator) < 0.85, y, 1 - y)
    x = torch.rand(count, 3, 32, 32, generator=generator) * 0.4
    x[:, 0] += (0.2 * y + 0.1 * torch.randn(count, generator=generator))[:, None, None]
    x[:, 2] += 0.4 * z[:, None, None]
    return Examples(
        list(x.clamp(0, 1)).__getitem__,
        y.tolist(),
        ["dull", "red"],
        groups=z.tolist(),
        group_names=["plain", "blue"],
    )


def planted_sounds(count: int, seed: int, inputs: vpt.Sound) -> Examples:
    """The label is how loud a high tone is, with noise; the group how loud a low one is; they agree
    in 85 of 100.
    """
    generator = torch.Generator().manual_seed(seed)
    y = torch.arange(count) % 2
    z = torch.where(torch.rand(count, generator=generator) < 0.85, y, 1 - y)
    time = torch.arange(inputs.samples) / inputs.sample_rate

    def tone(hertz: float) -> torch.Tensor:
        return torch.sin(2 * torch.pi * (hertz * time + torch.rand((), generator=generator)))

    waves = []
    for i in range(count):
        loud = (0.09 + 0.15 * y[i] + 0.07 * torch.randn((), generator=generator)).clamp(0.01, 0.4)
        noise = 0.02 * torch.randn(inputs.samples, generator=generator)
        waves.append(
            (
                (loud * tone(2500.0) + (0.05 + 0.3 * z[i]) * tone(700.0) + noise).clamp(-1, 1),
                inputs.samples,
            )
        )
    return Examples(
        waves.__getitem__,
        y.tolist(),
        ["soft", "shrill"],
        groups=z.tolist(),
        group_names=["high", "low"],
    )


def with_planted_head(
    model: torch.nn.Module, name: str, train: Examples, inputs: object = None
) -> torch.nn.Module:
    """The model, frozen as it is, with its linear layer `name` fitted to examples: it errs by
    group, and knows the label too.
    """
    with vpt.PromptedModel(
        vpt.load_backbone(model, inputs=inputs),
        None,
        vpt.Linear(_width(model, name), train.classes),
    ) as bare:
        probe = fit_probe(*scores(bare, train, outputs=True), classes=train.classes, strength=0.1)[
            0
        ]
    head = torch.nn.Linear(_width(model, name), len(train.classes))
    head.load_state_dict(probe.state_dict())
    parent, _, leaf = name.rpartition(".")
    setattr(model.get_submodule(parent), leaf, head)
    return model


def _width(model: torch.nn.Module, name: str) -> int:
    return int(model.get_submodule(name).in_features)


def planted_model() -> torch.nn.Module:
    """A tiny ViT that errs by group on `planted` examples."""
    return with_planted_head(make("timm ViT"), "head", planted(200, 0))


def planted_prompted() -> vpt.PromptedModel:
    """That model with a pattern that has learned nothing yet."""
    backbone = vpt.load_backbone(planted_model())
    return vpt.PromptedModel(
        backbone, vpt.Full.like(backbone), vpt.Identity(["dull", "red"], [0, 1])
    )


# wrong and unusual input ----------------------------------------------------------------
def regrouped(data: Examples, **changes) -> Examples:
    """The same examples with other groups."""
    given = {"groups": data.groups, "group_names": data.group_names} | changes
    return Examples(data.get, data.labels, data.classes, **given)


def write_images(root: Path, per_class: int = 10, size: int = 40) -> Path:
    return pictures(root, colours(3 * per_class, size=size))


def write_sounds(root: Path, per_class: int = 8, rate: int = 8000) -> Path:
    draw = np.random.default_rng(0)
    for name, hertz in (("low", 300), ("high", 1500)):
        for i in range(per_class):
            t = np.arange(int(rate * draw.uniform(0.1, 0.4))) / rate
            path = root / name / f"{i}.flac"
            path.parent.mkdir(parents=True, exist_ok=True)
            soundfile.write(
                path,
                0.3 * np.sin(2 * np.pi * hertz * t) + 0.02 * draw.standard_normal(len(t)),
                rate,
            )
    return root


def table(folder: Path, count: int = 100, names: tuple[str, str] = ("dull", "red")) -> Path:
    """Planted pictures as files, with a CSV that calls its columns other than usual."""
    data = planted(count, 0)
    folder.mkdir()
    with (folder / "table.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["path", "look", "sky", "day"])
        for i in range(count):
            x, y, z = data[i]
            Image.fromarray((x.permute(1, 2, 0) * 255).byte().numpy()).save(folder / f"{i}.png")
            writer.writerow([f"{i}.png", names[y], data.group_names[z], "odd" if i % 3 else "even"])
    return folder / "table.csv"


def three_tasks(per_task: int = 24) -> dict[str, Data]:
    first = Data(colours(per_task), colours(12, 1), colours(12, 2), colours(3).classes, [])
    six = Data(six_classes(12), six_classes(12, 1), six_classes(12, 2), six_classes(6).classes, [])
    return {"plain": first, "turned": turned(first, 1), "six": six}


def turned(data: Data, by: int) -> Data:
    """The same pictures, every class called by the name of another."""
    parts = [
        p.renamed(p.classes, [(y + by) % len(p.classes) for y in p.labels])
        for p in (data.train, data.val, data.test)
    ]
    return Data(*parts, data.classes, [])


AUGMENT = "none"  # drawn per process, so it is off where two processes are compared with one
SETTINGS = {"epochs": 3, "batch_size": 10, "lr": 0.05, "readout_lr": 0.5, "progress": False}


def main(out: str, epochs: str, dropout: str, *kinds: str) -> None:
    """Train, resuming if there is something to resume, and save the prompt file: each kind
    (readout-objective) in its folder.
    """
    torch.set_num_threads(1)
    from accelerate import PartialState

    for kind in kinds:
        readout, _, objective = kind.partition("-")
        model, folder = tiny_model("stack", float(dropout), readout), Path(out) / kind
        settings = SETTINGS | {
            "epochs": int(epochs),
            "augment": AUGMENT,
            "objective": OBJECTIVES[objective](),
        }
        vpt.fit(model, colours(), colours(24, seed=1), out=folder, resume=True, **settings)
        if PartialState().is_main_process:
            vpt.save(folder / "final.vpt", model)
        model.close()
    print(PartialState().num_processes, "processes")  # noqa: T201
    PartialState().destroy_process_group()  # or a process that ends first may abort


def example(backbone: vpt.Backbone, padded: bool = False) -> Any:
    """Three examples, all different; clips end early if `padded`."""
    x = backbone.inputs.example(3)
    if not isinstance(x, tuple):
        return torch.rand(x.shape, generator=torch.Generator().manual_seed(2))
    longest = x[0].shape[1]
    return x[0], torch.tensor([longest, longest // 2, longest * 3 // 4]) if padded else x[1]


if __name__ == "__main__":
    main(*sys.argv[1:])
