"""Which label map? Reprogram a classifier with each of them, nothing trained but the prompt, and
print the table.

python examples/label_maps/label_map_table.py cifar10-few --shots 30 --seeds 3
"""

from __future__ import annotations

import argparse

from rich.console import Console
from rich.table import Table

import vpt
from vpt.metrics.classification import mean_std
from vpt.prompts import parse
from vpt.readouts.label_map import HOW


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "data",
        help="a folder (split/class/file or class/file), a zip archive of one, or a CSV manifest",
    )
    parser.add_argument("--backbone", default="vpt:vit-p8-64")
    parser.add_argument("--prompt", default="border:8")
    parser.add_argument("--maps", nargs="+", default=list(HOW))
    parser.add_argument("--shots", type=int, default=30)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--epochs", type=int, default=12)
    parser.add_argument("--lr", type=float, default=0.2)
    options = parser.parse_args(argv)
    backbone = vpt.load_backbone(options.backbone)
    table = Table("label map", "validation accuracy", "test accuracy", "the first class is made of")
    table.title = f"{options.prompt}, {options.shots} per class, {options.seeds} seeds"
    for how in options.maps:
        scores: dict[str, list[float]] = {"val": [], "test": []}
        for seed in range(options.seeds):
            data = vpt.load_data(
                options.data, backbone.inputs, shots=options.shots, seed=seed, progress=False
            )
            readout = vpt.LabelMap(data.classes, how, seed=seed)
            with vpt.PromptedModel(backbone, parse(options.prompt, backbone), readout) as model:
                vpt.fit(
                    model,
                    data.train,
                    data.val,
                    epochs=options.epochs,
                    lr=options.lr,
                    seed=seed,
                    augment="crop",
                )
                for part, values in scores.items():
                    values.append(vpt.evaluate(model, getattr(data, part) or data.val)["accuracy"])
            print(how, seed, scores["val"][-1], scores["test"][-1], flush=True)
        first = ", ".join(
            f"{name.split(',')[0]} {weight:.0%}"
            for name, weight in readout.mapping()[data.classes[0]]
        )
        val, test = ("{:.1%} ± {:.1%}".format(*mean_std(values)) for values in scores.values())
        table.add_row(how, val, test, f"{data.classes[0]}: {first}")
    Console().print(table)


if __name__ == "__main__":
    main()
