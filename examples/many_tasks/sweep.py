"""Many small tasks on one collection of pictures: one pass fills a feature store, and each task
then takes seconds.

python examples/many_tasks/sweep.py photos/ --tasks 100

`photos/CLASS/FILE`. Each task draws some of the classes and some pictures of each, learns by
`vpt.adapt` what tells them apart, and is tested on the others. --processes shares the tasks out:
all of them read the one store, which is mapped into memory.
"""

from __future__ import annotations

import argparse
import csv
import statistics
import time
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import numpy as np

import vpt
from vpt.data import look


def table_of(data: Path, place: Path, seed: int, classes: int, shots: int) -> Path:
    """A task as a CSV: classes that were drawn, `shots` pictures of each to learn from."""
    draw = np.random.default_rng(seed)
    by_class: dict[str, list[Path]] = {}
    for item in look(data).listing.items:
        by_class.setdefault(item.label, []).append(item.path)
    rows = []
    for name in draw.choice(sorted(by_class), min(classes, len(by_class)), replace=False):
        files = [by_class[name][i] for i in draw.permutation(len(by_class[name]))]
        for number, file in enumerate(files[: 3 * shots]):
            rows.append([str(file.resolve()), name, "train" if number < shots else "test"])
    path = place / f"task{seed}.csv"
    with path.open("w", newline="") as file:
        csv.writer(file).writerows([["path", "label", "split"], *rows])
    return path


def learn(table: Path, backbone: str, store: Path) -> tuple[float, float, float]:
    """(seconds, accuracy on test, that of the linear probe) of a task."""
    started = time.perf_counter()
    result = vpt.adapt(table, backbone, store=store, out=table.with_suffix(""), progress=False)
    found = result.metrics["parts"]["test"]["methods"]
    result.model.close()
    own = found[result.metrics["method"]]["accuracy"]
    return time.perf_counter() - started, own, found["linear probe"]["accuracy"]


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("data", type=Path)
    parser.add_argument("--backbone", default="vpt:vit-p8-64")
    parser.add_argument("--tasks", type=int, default=100)
    parser.add_argument("--classes", type=int, default=3)
    parser.add_argument("--shots", type=int, default=10)
    parser.add_argument("--processes", type=int, default=1)
    parser.add_argument("--out", type=Path, default=Path("runs/sweep"))
    options = parser.parse_args(argv)
    options.out.mkdir(parents=True, exist_ok=True)
    store, started = options.out / "store", time.perf_counter()
    built = vpt.features(options.data, store, options.backbone)
    once = time.perf_counter() - started
    print(f"one pass over {built.inputs} pictures: {once:.0f} s, {built.bytes / 1e6:.0f} MB")
    how = (options.classes, options.shots)
    tables = [table_of(options.data, options.out, seed, *how) for seed in range(options.tasks)]
    started = time.perf_counter()
    with ProcessPoolExecutor(options.processes, mp_context=get_context("spawn")) as pool:
        same = [[value] * len(tables) for value in (options.backbone, store)]
        found = list(pool.map(learn, tables, *same))
    seconds, accuracy, probe = zip(*found, strict=True)
    took = time.perf_counter() - started
    print(
        f"{len(found)} tasks: {took:.0f} s, the median one {statistics.median(seconds):.1f} s;"
        f" accuracy {100 * np.mean(accuracy):.1f} %, of a linear probe {100 * np.mean(probe):.1f} %"
    )


if __name__ == "__main__":
    main()
