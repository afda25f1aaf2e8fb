"""Classes that come a few at a time, and no data kept: prompts for that, and what they must beat.

python examples/classes_in_sequence/class_incremental.py digits --shots 20
python examples/classes_in_sequence/class_incremental.py cifar10-few.zip --seeds 3
"""

from __future__ import annotations

import argparse
from pathlib import Path

from rich.console import Console
from rich.table import Table

import vpt
from vpt.data import Data, few_shot, hold_out
from vpt.demo.shows import all_digits
from vpt.metrics.classification import mean_std
from vpt.report.pictures import sequence

METHODS = [
    "nearest-mean",
    "ridge",
    "ridge:blocks:4",
    "ridge:queries:4",
    "queries:4",
    "sequential",
    "prefix:4@0-4",
    "l2p",
    "dual",
    "coda",
    "joint",
]


def percent(values: list[float]) -> str:
    mean, std = mean_std([100 * value for value in values]) if None not in values else (None, None)
    return f"{mean:.1f} ± {std:.1f}" if mean is not None else ""


def open_data(source: str, backbone: vpt.Backbone, shots: int | None, seed: int) -> Data:
    if source != "digits":
        return vpt.load_data(source, backbone.inputs, shots=shots, seed=seed, progress=False)
    rest, test = hold_out(all_digits(backbone.inputs), 0.4, seed=0)
    train, val = hold_out(rest, 0.2, seed=0)
    return Data(few_shot(train, shots, seed) if shots else train, val, test, train.classes, [])


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data", help="'digits' (scikit-learn's), a folder, a zip or a CSV")
    parser.add_argument("--methods", nargs="+", default=METHODS)
    parser.add_argument("--per-task", type=int, default=2)
    parser.add_argument("--shots", type=int, default=None)
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--lr", type=float, default=vpt.continual.RECIPE.lr)
    parser.add_argument("--epochs", type=int, default=vpt.continual.RECIPE.epochs)
    parser.add_argument("--part", default="test", help="'val' to choose settings by")
    parser.add_argument("--out", type=Path, default=Path("runs/classes"))
    options = parser.parse_args(argv)
    backbone = vpt.load_backbone("vpt:vit-p8-64")
    settings = {"epochs": options.epochs, "lr": options.lr, "part": options.part, "progress": False}
    found: dict[str, list[vpt.continual.Outcome]] = {method: [] for method in options.methods}
    for seed in range(options.seeds):
        tasks = vpt.continual.split(
            open_data(options.data, backbone, options.shots, seed), options.per_task, seed
        )
        for method, outcomes in found.items():
            outcome = vpt.continual.run(method, tasks, backbone, seed=seed, **settings)
            outcome.model.close()
            outcomes.append(outcome)
            print(
                f"seed {seed}: {method} final average accuracy {outcome.final_average:.1%}",
                flush=True,
            )
    table = Table(
        "method",
        "final average",
        "forgetting (L2P)",
        "forgetting (CODA)",
        "parts used",
        title=f"{len(tasks)} tasks of {options.per_task} classes, %, {options.seeds} seeds",
    )
    for method, outcomes in found.items():
        names = ("final_average", "forgetting_l2p", "forgetting_coda", "parts_used")
        table.add_row(
            method, *(percent([getattr(outcome, name) for outcome in outcomes]) for name in names)
        )
    Console().print(table)
    options.out.mkdir(parents=True, exist_ok=True)
    lines = {method: [o.after_each_task for o in outcomes] for method, outcomes in found.items()}
    (options.out / "sequence.png").write_bytes(
        sequence(lines, f"accuracy on all classes seen so far, {options.seeds} seeds")
    )


if __name__ == "__main__":
    main()
