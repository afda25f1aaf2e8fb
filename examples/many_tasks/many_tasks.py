"""Three tasks of one's own on one frozen model, in one library; a batch in which every picture has
its own task.

python examples/many_tasks/many_tasks.py --epochs 8
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch

import vpt
from vpt.data import Data, Examples, few_shot, hold_out
from vpt.demo.shows import all_digits

TASKS = {
    "which digit": lambda digit: str(digit),
    "odd or even": lambda digit: "odd" if digit % 2 else "even",
    "small or large": lambda digit: "large" if digit >= 5 else "small",
}
PROMPTS = {"which digit": "deep:5", "odd or even": "deep:10", "small or large": "prefix:5"}


def about(digits: Examples, task: str) -> Examples:
    """The same pictures with the task's own labels."""
    names = [TASKS[task](digit) for digit in digits.labels]
    classes = sorted(set(names))
    return digits.renamed(classes, [classes.index(name) for name in names])


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--epochs", type=int, default=8)
    parser.add_argument("--per-digit", type=int, default=20)
    parser.add_argument("--test", type=int, default=300)
    parser.add_argument("--out", type=Path, default=Path("runs/tasks"))
    options = parser.parse_args(argv)
    backbone = vpt.load_backbone("vpt:vit-p8-64")
    digits = all_digits(backbone.inputs)
    labelled = few_shot(digits, options.per_digit, seed=0)
    rest = digits.subset(
        [i for i in range(len(digits)) if i not in set(labelled.indices)][: options.test]
    )
    for task, prompt in PROMPTS.items():
        train, val = hold_out(about(labelled, task), 0.2, seed=0)
        data = Data(train, val, None, train.classes, [])
        result = vpt.adapt(
            data, backbone, prompt, augment="none", epochs=options.epochs, progress=False
        )
        vpt.save(options.out / f"{task}.vpt", result.model)
        result.model.close()
    with vpt.open_library(options.out, backbone) as library, torch.inference_mode():
        x = torch.stack([rest[i][0] for i in range(len(rest))])
        # mixed: every third picture is asked the same
        tasks = [library.names[i % len(library)] for i in range(len(x))]
        scores = library(x, tasks)
        right = dict.fromkeys(library.names, 0)
        for i, (task, row) in enumerate(zip(tasks, scores, strict=True)):
            classes = library.task(task).readout.classes
            right[task] += classes[int(row.argmax())] == TASKS[task](rest.targets[i])
        for task, count in right.items():
            print(f"{task:15} accuracy {count / tasks.count(task):.1%} ({PROMPTS[task]})")


if __name__ == "__main__":
    main()
