"""How good are prompts beside a linear probe? Repeat `vpt.adapt` over shots and seeds and print the
table.

python examples/your_folder/few_shot_table.py cifar10-few --shots 30 100 --seeds 3
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from rich.console import Console
from rich.table import Table

import vpt
from vpt.metrics.classification import mean_std


def percent(values: list[float]) -> str:
    mean, std = mean_std(values)
    return f"{mean:.1%} ± {std:.1%}"


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data", help="a folder (split/class/file or class/file) or a CSV manifest")
    parser.add_argument("--backbone", default="vpt:vit-p8-64")
    parser.add_argument("--prompts", nargs="+", default=["deep:10"])
    parser.add_argument("--shots", nargs="+", type=int, default=[30])
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--epochs", type=int, default=15)
    parser.add_argument("--out", type=Path, default=Path("runs/few-shot"))
    options = parser.parse_args(argv)
    backbone = vpt.load_backbone(options.backbone)
    table = Table(
        "per class",
        "prompt",
        "nearest mean",
        "linear probe",
        "prompted",
        "parameters",
        title=f"test accuracy, {options.seeds} seeds",
    )
    for shots in options.shots:
        for prompt in options.prompts:
            reports = []
            for seed in range(options.seeds):
                out = options.out / f"{prompt.replace(':', '')}-{shots}-seed{seed}"
                result = vpt.adapt(
                    options.data,
                    backbone,
                    prompt,
                    shots=shots,
                    seed=seed,
                    out=out,
                    overwrite=True,
                    epochs=options.epochs,
                )
                result.model.close()
                reports.append(result.metrics)
                print(
                    json.dumps(
                        {
                            "shots": shots,
                            "prompt": prompt,
                            "seed": seed,
                            "test": result.metrics["test_accuracy"],
                        }
                    ),
                    flush=True,
                )
            baselines = [
                [report["baselines"][name]["test"] for report in reports]
                for name in ("nearest_mean", "linear_probe")
            ]
            trained = sum(reports[0]["parameters_trained"].values())
            tested = percent([report["test_accuracy"] for report in reports])
            table.add_row(str(shots), prompt, *map(percent, baselines), tested, f"{trained:,}")
    Console().print(table)


if __name__ == "__main__":
    main()
