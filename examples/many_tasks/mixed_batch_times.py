"""What a mixed batch costs: 64 samples of 8 tasks, beside the same batch under one task, by turns.

python examples/many_tasks/mixed_batch_times.py --backbone vpt:vit-p8-64
"""

from __future__ import annotations

import argparse
import statistics
import time

import torch

import vpt


def prompts(backbone: vpt.Backbone, kind: str) -> list[vpt.Prompt]:
    """Eight prompts: alike, of eight lengths, or of three forms."""
    if kind == "alike":
        return [vpt.DeepTokens.like(backbone, 10, seed=i) for i in range(8)]
    if kind == "eight lengths":
        return [vpt.DeepTokens.like(backbone, 18 - 2 * i, seed=i) for i in range(8)]
    forms = (vpt.DeepTokens, vpt.Prefix, vpt.Border)
    return [forms[i % 3].like(backbone, 8) for i in range(8)]


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--backbone", default="vpt:vit-p8-64")
    parser.add_argument("--weights", default="pretrained", help="or random")
    parser.add_argument("--samples", type=int, default=64)
    parser.add_argument("--repeats", type=int, default=15)
    options = parser.parse_args(argv)
    backbone = vpt.load_backbone(options.backbone, weights=options.weights)
    x = backbone.inputs.example(options.samples)
    for kind in ("alike", "eight lengths", "three forms"):
        with vpt.PromptLibrary(backbone) as library, torch.inference_mode():
            for i, prompt in enumerate(prompts(backbone, kind)):
                library.add(str(i), prompt, vpt.Linear(backbone.out_features, 5))
            seconds: dict[str, list[float]] = {"one": [], "mixed": []}
            for turn in range(options.repeats + 1):
                for name, tasks in (
                    ("one", ["0"] * len(x)),
                    ("mixed", [str(i % 8) for i in range(len(x))]),
                ):
                    start = time.perf_counter()
                    library(x, tasks)
                    if turn:  # the first warms up
                        seconds[name].append(time.perf_counter() - start)
        ratio = statistics.median(
            b / a for a, b in zip(seconds["one"], seconds["mixed"], strict=True)
        )
        print(f"{kind}: a mixed batch takes {ratio:.2f} times as long")


if __name__ == "__main__":
    main()
