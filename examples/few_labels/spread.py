"""How much hangs on settings: the same settings drawn at random for `auto` and for plain VPT-deep,
and the spread of test accuracy between the worst and the best.

python examples/few_labels/spread.py signs/ hands/ leaves/ shirts/ --out runs/spread

How many prompts, in which blocks, how they begin, the rate, the seed, the order of the data: as
many settings as --draws says, drawn from their grid with one seed, the same for both. What is
learned from stays (--shots of each class, seed 0). *auto* learns its queries with these settings
and chooses out of fold as always; *VPT-deep* (Jia et al., ECCV 2022) trains deep tokens, and a
classifier that begins at zero, for --epochs. Prints a table, and draws spread.png.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from itertools import product
from pathlib import Path
from unittest import mock

import matplotlib.pyplot as plt
import numpy as np
import torch

import vpt
from vpt.data import Examples, few_shot, look, read_parts
from vpt.runs.candidates import Trial, choose_among, refit
from vpt.runs.choosing import folds_of
from vpt.runs.kept import Kept, keep
from vpt.runs.making import start_among
from vpt.runs.opening import open_for
from vpt.training import side_by_side

COUNTS = (2, 4, 10, 20)
RATES = (0.2, 1.0, 5.0)  # times the usual one
USUAL = {"auto": side_by_side.RATE, "VPT-deep": 1e-2}


@dataclass(frozen=True)
class Setting:
    """count: prompts of each block. late: whether in the last half of the blocks alone. among:
    whether they begin among the model's own tokens. rate: times the usual one. order: seed of the
    order of the data.
    """

    count: int
    late: bool
    among: bool
    rate: float
    seed: int
    order: int


def settings(draws: int) -> Iterator[Setting]:
    """Some of the grid, without one that comes twice."""
    grid = list(product(COUNTS, (False, True), (False, True), RATES, range(3), range(3)))
    for place in np.random.default_rng(0).permutation(len(grid))[:draws]:
        yield Setting(*grid[place])


def blocks_of(backbone: vpt.Backbone, late: bool) -> list[int]:
    return list(range(backbone.depth // 2 if late else 0, backbone.depth))


def auto(backbone: vpt.Backbone, examples: Examples, kept: Kept, test: Kept, at: Setting) -> float:
    """Test accuracy in % of prompt="auto" whose queries have these settings."""
    blocks = blocks_of(backbone, at.late)
    start = vpt.QueryTokens.like(backbone, at.count, blocks=blocks, seed=at.seed)
    if at.among:
        start_among(start, backbone, examples, at.seed)
    folds = folds_of(examples, 0)
    trial = Trial(backbone, kept, examples.classes, folds, start)
    with mock.patch.object(side_by_side, "RATE", at.rate * USUAL["auto"]):
        prompt, readout = refit(trial, choose_among(trial, at.order, progress=False))
    read = test.with_read(prompt) if prompt is not None else test
    with torch.no_grad():
        said = test.of_examples(readout(read.named(readout.named.text, backbone)))
    return 100 * float((said.argmax(1) == test.y).double().mean())


def deep(
    backbone: vpt.Backbone, examples: Examples, test: Examples, at: Setting, epochs: int
) -> float:
    """Test accuracy in % of deep tokens with these settings, whose classifier begins at zero."""
    prompt = vpt.DeepTokens.like(
        backbone, at.count, blocks=blocks_of(backbone, at.late), seed=at.seed
    )
    if at.among:
        start_among(prompt, backbone, examples, at.seed)
    rate = at.rate * USUAL["VPT-deep"]
    how = {"epochs": epochs, "lr": rate, "readout_lr": 1.0, "seed": at.order, "progress": False}
    readout = vpt.Linear(backbone.out_features, examples.classes)
    with vpt.PromptedModel(backbone, prompt, readout) as model:
        vpt.fit(model, examples, **how)
        return 100 * vpt.evaluate(model, test)["accuracy"]


def draw(rows: list[dict], path: Path) -> None:
    """Every run as a dot, a column for each task and method."""
    tasks, methods = (list(dict.fromkeys(row[key] for row in rows)) for key in ("task", "method"))
    figure, axes = plt.subplots(figsize=(7, 3.2), layout="constrained")
    for m, method in enumerate(methods):
        for t, task in enumerate(tasks):
            found = [r["accuracy"] for r in rows if (r["task"], r["method"]) == (task, method)]
            place, colour = t + 0.36 * m - 0.18, f"C{m}"
            shift = np.linspace(-0.09, 0.09, len(found))
            axes.plot(place + shift, found, "o", ms=4, alpha=0.6, color=colour)
            axes.plot([place - 0.13, place + 0.13], [np.median(found)] * 2, color=colour)
        axes.plot([], [], "o", color=f"C{m}", label=method)
    axes.set_xticks(range(len(tasks)), tasks)
    axes.set_ylabel("test accuracy in %")
    axes.legend(frameon=False)
    figure.savefig(path, dpi=150)
    plt.close(figure)


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folders", nargs="+", type=Path)
    parser.add_argument("--backbone", default="vpt:vit-p8-64")
    parser.add_argument("--shots", type=int, default=20)
    parser.add_argument("--draws", type=int, default=12)
    parser.add_argument("--epochs", type=int, default=20)
    parser.add_argument("--out", type=Path, default=Path("runs/spread"))
    options = parser.parse_args(argv)
    options.out.mkdir(parents=True, exist_ok=True)
    file, rows = options.out / "spread.jsonl", []
    if file.is_file():
        rows = [json.loads(line) for line in file.read_text().splitlines()]
    for folder in options.folders:
        backbone = open_for(look(folder), options.backbone)
        train, test = (read_parts(folder, backbone.inputs, part) for part in ("train", "test"))
        few, every = few_shot(train, options.shots, 0), blocks_of(backbone, False)
        kept, asked = (keep(backbone, part, blocks=every, budget=8 << 30) for part in (few, test))
        for at in settings(options.draws):
            for method in USUAL:
                row = {"task": folder.name, "method": method} | asdict(at)
                if any({k: old[k] for k in row} == row for old in rows):
                    continue
                if method == "auto":
                    row["accuracy"] = auto(backbone, few, kept, asked, at)
                else:
                    row["accuracy"] = deep(backbone, few, test, at, options.epochs)
                rows.append(row)
                with file.open("a") as lines:
                    lines.write(json.dumps(row) + "\n")
                print(*row.values(), sep=" · ", flush=True)
    draw(rows, options.out / "spread.png")
    print("Test accuracy in %\n")
    print("| task | method | worst | median | best | spread |\n|---|---|---|---|---|---|")
    for task in dict.fromkeys(row["task"] for row in rows):
        for method in USUAL:
            found = [r["accuracy"] for r in rows if (r["task"], r["method"]) == (task, method)]
            low, middle, high = np.quantile(found, (0, 0.5, 1))
            print(f"| {task} | {method} | {low:.1f} | {middle:.1f} | {high:.1f}", end="")
            print(f" | {high - low:.1f} |")


if __name__ == "__main__":
    main()
