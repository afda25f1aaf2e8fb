"""The demonstrations, offline: a bundled backbone adapted to digits or to spoken commands; biased
models made fairer.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from sklearn.datasets import load_digits

from vpt.backbones import Backbone, load_backbone
from vpt.backbones.shipped import bundled_file
from vpt.data import Data, Examples, few_shot, hold_out, load_data
from vpt.data.readers import fit_image
from vpt.demo.drawn import coloured_digits
from vpt.demo.portraits import portraits
from vpt.errors import DataError
from vpt.fairness.reprogramming import reprogram
from vpt.metrics.classification import mean_std
from vpt.runs.adapting import adapt
from vpt.runs.baselines import measure_baselines
from vpt.runs.result import Result
from vpt.sites import Config, InputsLike, takes_images

LABELLED = 300
TESTED = 500


@dataclass(frozen=True)
class Show:
    """What is shown of one backbone.

    backbone: its name.
    intro: what is shown, a sentence.
    title: what is tested.
    data: (backbone, seed) → what is learned and tested.
    forms: name → prompt, and what differs from the default recipe.
    """

    backbone: str
    intro: str
    title: str
    data: Callable[[Backbone, int], Data]
    forms: dict[str, tuple[str, Config]]


@dataclass
class Row:
    """One line of the demonstration's table: test accuracies in [0,1], one per seed."""

    name: str
    accuracies: list[float]
    parameters: int

    def text(self) -> str:
        """Mean, and ± standard deviation over seeds where there are several."""
        mean, std = mean_std(self.accuracies)
        return f"{mean:.1%} ± {std:.1%}" if len(self.accuracies) > 1 else f"{mean:.1%}"


def all_digits(inputs: InputsLike) -> Examples:
    """scikit-learn's 1,797 handwritten digits (8 × 8, UCI) at the size that `inputs` says. Raises
    `DataError` for inputs of sound.
    """
    if not takes_images(inputs):
        raise DataError("Found inputs of sound; needed are those of a model of pictures.")
    raw = load_digits()
    pictures = [
        fit_image(Image.fromarray((image * 255 / 16).astype("uint8")), inputs).float() / 255
        for image in raw.images
    ]
    return Examples(pictures.__getitem__, raw.target.tolist(), [str(d) for d in range(10)])


def digits(backbone: Backbone, seed: int = 0) -> Data:
    """Handwritten digits: 240 to train, 60 to validate, 500 to test, drawn with `seed`."""
    everything = all_digits(backbone.inputs)
    labelled = few_shot(everything, LABELLED // 10, seed)
    chosen = set(labelled.indices)
    others = [i for i in range(len(everything)) if i not in chosen]
    order = torch.randperm(len(others), generator=torch.Generator().manual_seed(seed)).tolist()
    train, val = hold_out(labelled, 0.2, seed)
    return Data(
        train, val, everything.subset([others[i] for i in order[:TESTED]]), everything.classes, []
    )


def commands(backbone: Backbone, seed: int = 0) -> Data:
    """Ten commands for a home, spoken by espeak-ng: 120 clips to train, 80 to validate, 200 to
    test, by other voices each.
    """
    source = bundled_file("spoken-commands.zip")
    return load_data(source, backbone.inputs, seed=seed, progress=False)


# digits are far from what the image backbone knows, so the head moves too
PICTURES = Show(
    "vpt:vit-p8-64",
    "A frozen ViT that knows 160 kinds of things and animals learns digits from 300 examples.",
    f"handwritten digits, {TESTED} tested",
    digits,
    {
        "auto": ("auto", {}),
        "border": ("border:8", {"epochs": 8, "lr": 1e-2, "augment": "none"}),
    },
)
SOUNDS = Show(
    "vpt:ast-tiny",
    "A frozen audio spectrogram transformer learns ten words that it never heard, and is tested on"
    " other voices.",
    "spoken commands, 200 tested",
    commands,
    {"auto": ("auto", {}), "border": ("border:8", {"epochs": 6})},
)


def demo(
    out: Path,
    seeds: int = 1,
    progress: bool = True,
    say: Callable[[str], None] = lambda text: None,
    show: Show = PICTURES,
) -> list[Row]:
    """Token and pixel prompts beside nearest-mean and linear-probe baselines on the same features
    and split.
    """
    rows: dict[str, Row] = {}
    for seed in range(seeds):
        backbone = load_backbone(show.backbone)
        data = show.data(backbone, seed)
        say(f"baselines, seed {seed}")
        baselines = measure_baselines(backbone, data, seed, progress)
        for name, (prompt, settings) in show.forms.items():
            say(f"{name}, seed {seed}")
            folder = out / f"{name.replace(' ', '-')}-seed{seed}"
            result = adapt(
                data,
                backbone,
                prompt,
                out=folder,
                seed=seed,
                overwrite=True,
                baselines=baselines,
                progress=progress,
                **settings,
            )
            result.model.close()
            _add(rows, result, name if name == prompt else f"{name} ({prompt})")
    return list(rows.values())


def _add(rows: dict[str, Row], result: Result, name: str) -> None:
    """The prompt's accuracy as a row, and with the first prompt of a seed those of the
    baselines.
    """
    report = result.report
    classes = len(report.classes or [])
    seed = len(rows[name].accuracies) if name in rows else 0
    for baseline, values in report.baselines.items():
        numbers = classes * (result.model.backbone.out_features + (baseline == "linear_probe"))
        row = rows.setdefault(baseline, Row(baseline.replace("_", " "), [], numbers))
        if len(row.accuracies) == seed:
            row.accuracies.append(values["test"])
    row = rows.setdefault(name, Row(name, [], sum(report.parameters_trained.values())))
    if report.test_accuracy is not None:
        row.accuracies.append(report.test_accuracy)


@dataclass(frozen=True)
class Biased:
    """A bundled model with a planted bias. draw: (count, seed, part) → examples with groups, as it
    was trained on.
    """

    model: str
    story: str
    draw: Callable[[int, int, str], Examples]


BIASED = {
    "digits": Biased(
        "vpt:biased-digits",
        "Is a handwritten digit five or more? In training most of those lay on orange, and the"
        " model took orange for a sign.",
        coloured_digits,
    ),
    "portraits": Biased(
        "vpt:biased-portraits",
        "Is the hair of a drawn face blond? In training most blond faces wore lipstick, and most"
        " dark-haired ones a beard.",
        lambda count, seed, part: portraits(count, seed),  # no two seeds share a face
    ),
}
TUNED = 600  # pictures; the models learned from 20,000
FAIRER: Config = {
    "strengths": (0.3, 1.0),
    "budget": 0.03,
    "epochs": 8,
    "lr": 5e-2,
    "batch_size": 64,
}


def tuning(
    case: Biased, count: int = TUNED, tested: int = 1000, seed: int = 0
) -> dict[str, Examples]:
    """`count` pictures to learn a prompt and (a third of them) to choose on, and others to test,
    biased as those of training.

    No handwritten digit is in two of the parts, or the choice would be made on digits that the
    prompt was fitted to.
    """
    held = count // 3
    return {
        "train": case.draw(count - held, 100 + seed, "tune"),
        "val": case.draw(held, 1000 + seed, "validate"),
        "test": case.draw(tested, 5000 + seed, "test"),
    }


def make_fairer(
    case: Biased,
    out: Path,
    seed: int = 0,
    progress: bool = True,
    say: Callable[[str], None] = lambda text: None,
    **settings: Any,
) -> Config:
    """A border learned for a biased model, in `out`: the report of `vpt.reprogram`.

    seed: of the pictures and the run. say: is told what is done. settings: instead of `FAIRER`'s.
    """
    made = reprogram(
        tuning(case, seed=seed),
        case.model,
        out=out,
        overwrite=True,
        seed=seed,
        progress=progress,
        say=say,
        **(FAIRER | settings),
    )
    made.model.close()
    return made.report
