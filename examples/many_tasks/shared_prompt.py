"""One prompt learned from four related tasks, taken to a fifth.

python examples/many_tasks/shared_prompt.py --seeds 0 1 2 3 4
"""

from __future__ import annotations

import argparse
from collections.abc import Callable

from rich.console import Console
from rich.table import Table
from torch import Tensor

import vpt
from vpt.data import Data, Examples, few_shot, hold_out
from vpt.demo.shows import all_digits
from vpt.metrics.classification import mean_std
from vpt.prompts import parse

PROMPT, NEW, LEARN = "deep:10", "mirrored", ("nothing", "factors", "all")
TASKS: dict[str, Callable[[Tensor], Tensor]] = {
    "upright": lambda x: x,
    "inverted": lambda x: 1 - x,
    "upside down": lambda x: x.flip(-2, -1),
    "turned left": lambda x: x.rot90(1, (-2, -1)),
    NEW: lambda x: x.flip(-1),
}


def seen(examples: Examples, task: str) -> Examples:
    return Examples(
        lambda i: TASKS[task](examples.get(i)),
        examples.labels,
        examples.classes,
        indices=examples.indices,
    )


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", nargs="+", type=int, default=[0])
    parser.add_argument("--epochs", type=int, default=8)
    parser.add_argument(
        "--per-class", type=int, default=20, help="examples of each of the four tasks"
    )
    parser.add_argument(
        "--shots", type=int, default=5, help="of the new one, and as many to validate"
    )
    parser.add_argument("--test", type=int, default=70, help="per class of the new one")
    options = parser.parse_args(argv)
    backbone = vpt.load_backbone("vpt:vit-p8-64")
    # no digit of the new task is in an earlier one
    (ours, others), rows = hold_out(all_digits(backbone.inputs), 0.5, seed=0), []
    for seed in options.seeds:
        same = {"seed": seed, "epochs": options.epochs, "progress": False}
        train, val = hold_out(few_shot(ours, options.per_class, seed), 0.25, seed)
        earlier = {
            task: Data(seen(train, task), seen(val, task), None, train.classes, [])
            for task in TASKS
            if task != NEW
        }
        drawn = few_shot(seen(others, NEW), 2 * options.shots + options.test, seed)
        test, few = hold_out(drawn, 2 * options.shots / (2 * options.shots + options.test), seed)
        data = Data(*hold_out(few, 0.5, seed), test, few.classes, [])
        scratch = vpt.adapt(data, backbone, PROMPT, augment="none", **same)
        scratch.model.close()
        probe, learned = (
            scratch.metrics["baselines"]["linear_probe"]["test"],
            scratch.metrics["parameters_trained"]["prompt"],
        )
        results = [
            ("linear probe", probe, 0),
            ("vpt.adapt, from scratch", scratch.metrics["test_accuracy"], learned),
        ]
        shared = vpt.multi_task.share(earlier, backbone, PROMPT, **same)
        shared.model.close()
        fresh = vpt.MultiTask(parse(PROMPT, backbone, seed=seed), ["new"])
        for start, prompt, learn in (
            ("fresh", fresh, "all"),
            *(("shared", shared.prompt, what) for what in LEARN),
        ):
            with vpt.multi_task.take_to(prompt, data, backbone, learn=learn, **same) as model:
                learned = sum(p.numel() for p in model.prompt.parameters() if p.requires_grad)
                results.append(
                    (
                        f"{start} prompt, {learn} learned",
                        vpt.evaluate(model, test)["accuracy"],
                        learned,
                    )
                )
        print(
            f"seed {seed}:",
            ", ".join(f"{name} {accuracy:.1%}" for name, accuracy, _ in results),
            flush=True,
        )
        rows.append(results)
    table = Table(
        "method",
        "test accuracy, %",
        "numbers learned",
        title=f"{options.shots} per class, {len(rows)} seeds",
    )
    for name, values, numbers in (zip(*column, strict=True) for column in zip(*rows, strict=True)):
        mean, std = mean_std([100 * value for value in values])
        table.add_row(name[0], f"{mean:.1f} ± {std:.1f}", f"{numbers[0]:,}")
    Console().print(table)


if __name__ == "__main__":
    main()
