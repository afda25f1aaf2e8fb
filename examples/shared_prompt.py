"""One prompt learned from several tasks, taken to a new one with five examples per class: speakers who say the same words.

python examples/shared_prompt.py fsdd.zip --seeds 5
"""

from __future__ import annotations

import argparse
import re
from pathlib import Path

from rich.console import Console
from rich.table import Table

import vpt
from vpt.data import Data, few_shot, hold_out, read_parts
from vpt.metrics import mean_std

PROMPT = "deep:10"


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data", type=Path, help="a folder or zip of class/file")
    parser.add_argument("--apart", default="_([a-z]+)_", help="what in a file's name says whose it is: each is a task")
    parser.add_argument("--seconds", type=float, default=None, help="clip length")
    parser.add_argument("--per-class", type=int, default=10, help="examples of each earlier task")
    parser.add_argument("--shots", type=int, default=5, help="of the new one, and as many to validate; the rest are tested")
    parser.add_argument("--epochs", type=int, default=8)
    parser.add_argument("--seeds", type=int, default=1, help="a different task is the new one in each")
    options = parser.parse_args(argv)
    backbone = vpt.load_backbone("vpt:ast-tiny", seconds=options.seconds)
    everything = read_parts(options.data, backbone.inputs, part="train", progress=False)
    whose = [re.search(options.apart, everything.name(i)) for i in range(len(everything))]
    names = sorted({found[1] for found in whose if found})
    tasks = {n: everything.subset([i for i, found in enumerate(whose) if found and found[1] == n]) for n in names}
    rows = []
    for seed in range(options.seeds):
        new, same = names[seed % len(names)], {"seed": seed, "epochs": options.epochs, "progress": False}
        earlier = {}
        for name in names:
            if name != new:
                train, val = hold_out(few_shot(tasks[name], options.per_class, seed), 0.2, seed)
                earlier[name] = Data(train, val, None, train.classes, [])
        few = few_shot(tasks[new], 2 * options.shots, seed)
        test = tasks[new].subset([i for i, index in enumerate(tasks[new].indices) if index not in set(few.indices)])
        data = Data(*hold_out(few, 0.5, seed), test, few.classes, [])
        scratch = vpt.adapt(data, backbone, PROMPT, augment="none", **same)
        scratch.model.close()
        probe, learned = scratch.metrics["baselines"]["linear_probe"]["test"], scratch.metrics["parameters_trained"]["prompt"]
        results = [("linear probe", probe, 0), ("prompt from scratch", scratch.metrics["test_accuracy"], learned)]
        shared = vpt.multi_task.share(earlier, backbone, PROMPT, **same)
        shared.model.close()
        for learn in ("nothing", "factors", "all"):
            with vpt.multi_task.take_to(shared.prompt, data, backbone, learn=learn, **same) as model:
                learned = sum(p.numel() for p in model.prompt.parameters() if p.requires_grad)
                results.append((f"shared, {learn} learned", vpt.evaluate(model, test)["accuracy"], learned))
        print(f"{new}:", ", ".join(f"{name} {accuracy:.1%}" for name, accuracy, _ in results), flush=True)
        rows.append(results)
    table = Table("method", "test accuracy, %", "numbers learned", title=f"{options.shots} per class, {options.seeds} seeds")
    for name, values, numbers in (zip(*column, strict=True) for column in zip(*rows, strict=True)):
        mean, std = mean_std([100 * value for value in values])
        table.add_row(name[0], f"{mean:.1f} ± {std:.1f}", f"{numbers[0]:,}")
    Console().print(table)


if __name__ == "__main__":
    main()
