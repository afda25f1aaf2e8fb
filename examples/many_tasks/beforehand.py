"""Queries learned beforehand: what many tasks share, as a small file, and what it is worth to a new
task with few labels. Each task in turn is the new one, and is left out.

python examples/many_tasks/beforehand.py signs/ hands/ shirts/ --more digits/ --store store/

A folder holds train/CLASS/FILE and test/CLASS/FILE; those behind --more are only learned from. All
share one pass over each folder, which --store keeps. Prints, for each number of examples per class,
the test accuracy of `auto` from scratch, of a classifier on the class token and what the queries
of the file read, as they are, and of `auto` whose queries begin there and learn on; mean and
standard deviation over draws. Writes queries.vpt, learned from all folders.
"""

from __future__ import annotations

import argparse
import json
import time
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch

import vpt
from vpt.data import Examples, look, read_parts
from vpt.files.beforehand import save_queries
from vpt.runs.candidates import Trial, choose_among, refit
from vpt.runs.choosing import folds_of
from vpt.runs.kept import Kept, keep
from vpt.runs.making import start_among
from vpt.runs.opening import open_for
from vpt.runs.probe import FALLBACK, cross_fitted, fit_probe
from vpt.runs.querying import queries_for
from vpt.runs.stored import stored
from vpt.sites import takes_images
from vpt.tasks.beforehand import MOST, learn_beforehand, see

METHODS = ("from scratch", "as they are", "begun there")
BOTH = "cls+queries"  # what the classifier of queries as they are reads
Rows = dict[tuple[int, str, str], list[float]]  # (shots, method, task) → accuracies in %


def draw(labels: list[int], shots: int, seed: int) -> list[int]:
    """Places of `shots` examples of each class, or of all that it has."""
    y, generator = np.array(labels), np.random.default_rng(seed)
    each = [generator.permutation(np.flatnonzero(y == c)) for c in np.unique(y)]
    return sorted(int(i) for own in each for i in own[:shots])


class Task:
    """A folder, a model that hears as long as its clips, and where a pass over it is kept."""

    def __init__(self, folder: Path, model: vpt.Backbone | str, store: Path | None) -> None:
        source = look(folder)
        self.folder, self.name = folder, folder.name
        self.backbone = open_for(source, model)
        if store is not None and source.kind == "sound":  # a store is for one length of clips
            store = store / self.name
        self.store = store

    def part(self, name: str) -> Examples:
        """Examples of a part, which are read anew each time: those of all tasks need much room."""
        return read_parts(self.folder, self.backbone.inputs, name)

    def keep(self, examples: Examples) -> Kept:
        """One pass over examples, or what the store has of it."""
        start = queries_for(self.backbone)
        with stored(self.store, self.backbone):
            return keep(self.backbone, examples, blocks=start.blocks, budget=1 << 62)


def answers(
    task: Task, prompt: vpt.QueryTokens, train: Examples, test: Kept, shots: int, seed: int
) -> Iterator[tuple[str, float]]:
    """(method, accuracy on test in %) on one draw."""
    examples = train.subset(draw(train.targets, shots, seed))
    kept, folds = task.keep(examples), folds_of(examples, seed)
    count = len(examples.classes)

    def right(readout: vpt.Readout, what: Kept) -> float:
        with torch.no_grad():
            out = what.of_examples(readout(what.named(readout.named.text, task.backbone)))
        return 100 * float((out.argmax(1) == what.y).double().mean())

    def chosen(start: vpt.QueryTokens) -> float:
        trial = Trial(task.backbone, kept, examples.classes, folds, start)
        own, readout = refit(trial, choose_among(trial, seed, progress=False))
        return right(readout, test.with_read(own) if own is not None else test)

    start = queries_for(task.backbone)
    with stored(task.store, task.backbone):
        start_among(start, task.backbone, examples, seed)
    yield METHODS[0], chosen(start)
    read, strength = kept.of_examples(kept.with_read(prompt).named(BOTH, task.backbone)), FALLBACK
    if folds:
        strength = cross_fitted(read.double().numpy(), kept.y.numpy(), folds, count).strength
    probe = fit_probe(read, kept.y, count, strength=strength, of=BOTH)[0]
    yield METHODS[1], right(probe, test.with_read(prompt))
    if folds:  # otherwise nothing can be chosen by, and they are read as they are
        yield METHODS[2], chosen(prompt)


def table(rows: Rows, tasks: list[str]) -> str:
    """Accuracies in %, mean ± standard deviation over draws."""
    lines = [f"| per class | | {' | '.join(tasks)} | mean |", "|---" * (len(tasks) + 3) + "|"]
    for shots, method in dict.fromkeys((shots, method) for shots, method, _ in rows):
        found = [rows[shots, method, task] for task in tasks if (shots, method, task) in rows]
        cells = [f"{np.mean(one):.1f} ± {np.std(one, ddof=len(one) > 1):.1f}" for one in found]
        mean = np.mean([np.mean(one) for one in found])
        lines.append(f"| {shots} | {method} | {' | '.join(cells)} | {mean:.1f} |")
    return "\n".join(lines)


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folders", nargs="+", type=Path)
    parser.add_argument("--more", nargs="*", default=[], type=Path, help="only to learn from")
    parser.add_argument("--backbone", default="vpt:vit-p8-64")
    parser.add_argument("--store", type=Path, help="a folder for what a pass over the data gives")
    parser.add_argument("--shots", nargs="*", type=int, default=[1, 5])
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--most", type=int, default=MOST, help="examples that a task gives")
    parser.add_argument("--out", type=Path, default=Path("runs/beforehand"))
    options = parser.parse_args(argv)
    opened: list[Task] = []
    for place in [*options.folders, *options.more]:
        # one model serves all pictures
        same = opened[0].backbone if opened and takes_images(opened[0].backbone.inputs) else None
        opened.append(Task(place, same or options.backbone, options.store))
    if len({task.name for task in opened}) < len(opened):
        raise SystemExit("Two folders have one name; tasks are called by the names of folders.")
    tasks, seen = opened[: len(options.folders)], {}
    for task in opened:
        with stored(task.store, task.backbone):
            seen[task.name] = see(
                task.backbone, task.part("train"), most=options.most, progress=True, what=task.name
            )
    started, tried = time.perf_counter(), tasks if options.shots else []
    names = [task.name for task in tried]
    # none is left out of the last, which is the one to keep
    *without, last = learn_beforehand(seen, without=[*names, None], progress=True)
    seconds = time.perf_counter() - started
    print(f"{len(without) + 1} sets of queries from {len(seen)} tasks: {seconds:.0f} s")
    rows: Rows = defaultdict(list)
    options.out.mkdir(parents=True, exist_ok=True)
    for task, prompt in zip(tried, without, strict=True):
        train, test = task.part("train"), task.keep(task.part("test"))
        for shots in options.shots:
            for seed in range(options.seeds):
                for method, accuracy in answers(task, prompt, train, test, shots, seed):
                    rows[shots, method, task.name].append(accuracy)
            found = {m: rows.get((shots, m, task.name), []) for m in METHODS}
            each = [f"{m} {np.mean(values):.1f}" for m, values in found.items() if values]
            print(task.name, shots, *each, sep=" · ", flush=True)
            listed = [[*key, values] for key, values in rows.items()]
            (options.out / "results.json").write_text(json.dumps(listed))
    trained_on = {"tasks": {name: len(one.kept.y) for name, one in seen.items()}}
    path = save_queries(options.out / "queries.vpt", last, tasks[0].backbone, trained_on=trained_on)
    if options.shots:
        print(f"Test accuracy in %\n{table(rows, names)}")
    print(f"{path}: {path.stat().st_size / 1000:.0f} kB")


if __name__ == "__main__":
    main()
