"""What a mixed batch costs: 64 samples of 8 tasks, beside the same batch under one task, by turns;
and what 100 tasks cost that read one forward, beside a bare one.

python examples/many_tasks/mixed_batch_times.py --backbone vpt:vit-p8-64
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from functools import partial

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


def slower(one: Callable[[], object], other: Callable[[], object], repeats: int) -> float:
    """How many times as long one takes as the other, by turns; the median."""
    ratios = []
    for turn in range(repeats + 1):
        seconds = []
        for work in (one, other):
            start = time.perf_counter()
            work()
            seconds.append(time.perf_counter() - start)
        if turn:  # the first warms up
            ratios.append(seconds[0] / seconds[1])
    return statistics.median(ratios)


def bare(library: vpt.PromptLibrary, x: torch.Tensor) -> torch.Tensor:
    """The features of the model without any hook."""
    with library.attachment.off():
        return library.backbone.features(x)


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--backbone", default="vpt:vit-p8-64")
    parser.add_argument("--weights", default="pretrained", help="or random")
    parser.add_argument("--samples", type=int, default=64)
    parser.add_argument("--tasks", type=int, default=100)
    parser.add_argument("--batch", type=int, default=8, help="for those that read one forward")
    parser.add_argument("--repeats", type=int, default=15)
    options = parser.parse_args(argv)
    backbone = vpt.load_backbone(options.backbone, weights=options.weights)
    x = backbone.inputs.example(options.samples)
    for kind in ("alike", "eight lengths", "three forms"):
        with vpt.PromptLibrary(backbone) as library, torch.inference_mode():
            for i, prompt in enumerate(prompts(backbone, kind)):
                library.add(str(i), prompt, vpt.Linear(backbone.out_features, 5))
            mixed = [str(i % 8) for i in range(len(x))]
            ratio = slower(
                partial(library, x, mixed), partial(library, x, ["0"] * len(x)), options.repeats
            )
        print(f"{kind}: a mixed batch takes {ratio:.2f} times as long")
    x = backbone.inputs.example(options.batch)
    with vpt.PromptLibrary(backbone) as library, torch.inference_mode():
        for i in range(options.tasks):
            queries = vpt.QueryTokens.like(backbone, 4, seed=i)
            library.add(str(i), queries, vpt.Linear(queries.reads, 10, "queries"))
        every = partial(library.all, x)
        ratio = slower(every, partial(bare, library, x), options.repeats)
    print(f"{options.tasks} tasks that read one forward take {ratio:.2f} times as long as it")


if __name__ == "__main__":
    main()
