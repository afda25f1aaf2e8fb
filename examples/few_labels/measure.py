"""What examples without labels are worth, and what wrong labels cost: `vpt.adapt` as a user runs
it, over folders, numbers of labels and draws.

python examples/few_labels/measure.py unlabelled signs/ hands/ --backbone clip/ --store kept/
python examples/few_labels/measure.py noisy signs/ hands/ --backbone clip/ --store kept/ --shots 20
python examples/real_backbones/tables.py runs/few-labels/results.jsonl --base auto

A folder holds train/CLASS/FILE and test/CLASS/FILE. `unlabelled`: a few labels of each class, the
rest of train without them; `noisy`: some labels are made wrong ("uniform": any other class;
"alike": the class whose mean is nearest), and *oracle* learns from the right ones alone. One line
of results.jsonl is one way on one draw; what stands there is not run again.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch

import vpt
from vpt.data import Examples, Source, few_shot, look, read_parts
from vpt.runs.kept import keep
from vpt.runs.opening import open_for
from vpt.runs.stored import stored

sys.path.insert(0, str(Path(__file__).parents[1] / "real_backbones"))
from tables import result

WRONG = (0.1, 0.2, 0.4)
KINDS = ("uniform", "alike")
Case = tuple[str, Examples, dict[str, Any]]  # what it is called, what it learns from, options


def unlabelled(train: Examples, few: Examples) -> Iterator[Case]:
    """A few labels, and the same with the rest of the examples without labels."""
    rest = sorted(set(train.indices) - set(few.indices))
    place = {index: i for i, index in enumerate(train.indices)}
    others = train.subset([place[index] for index in rest])
    yield "auto", few, {}
    yield "auto, unlabelled", few, {"unlabelled": others}


def noisy(few: Examples, features: torch.Tensor, wrong: float, kind: str, seed: int) -> Iterator:
    """Labels of which some are wrong: learned from as they are, by how far they are believed, and
    without the wrong ones.
    """
    labels = corrupted(np.array(few.targets), len(few.classes), features, wrong, kind, seed)
    told = list(few.labels)
    for index, label in zip(few.indices, labels.tolist(), strict=True):
        told[index] = label
    spoilt = few.renamed(few.classes, told)
    right = [i for i, (a, b) in enumerate(zip(labels, few.targets, strict=True)) if a == b]
    called = f"{wrong:.0%} {kind}"
    yield f"plain, {called}", spoilt, {}
    yield f"robust, {called}", spoilt, {"noisy": True}
    yield f"oracle, {called}", few.subset(right), {}


def corrupted(
    y: np.ndarray, classes: int, features: torch.Tensor, wrong: float, kind: str, seed: int
) -> np.ndarray:
    """Labels of which a share is wrong."""
    generator = np.random.default_rng(1000 + seed)
    chosen = generator.permutation(len(y))[: round(wrong * len(y))]
    z = (features - features.mean(0)) / features.std(0).clamp(min=1e-6)
    means = torch.stack([z[torch.from_numpy(y == c)].mean(0) for c in range(classes)])
    apart = torch.cdist(means, means).fill_diagonal_(float("inf"))
    found = y.copy()
    for i in chosen:
        others = [c for c in range(classes) if c != y[i]]
        found[i] = generator.choice(others) if kind == "uniform" else int(apart[y[i]].argmin())
    return found


def cases(
    options: argparse.Namespace, train: Examples, few: Examples, features: Any, seed: int
) -> Iterator[Case]:
    """All that is measured on one draw."""
    if options.what == "unlabelled":
        yield from unlabelled(train, few)
        return
    for kind in options.kinds:
        for wrong in options.wrong:
            yield from noisy(few, features(few), wrong, kind, seed)


def measured(name: str, examples: Examples, test: Examples, how: dict[str, Any]) -> dict[str, Any]:
    """One run of `vpt.adapt`, in numbers."""
    started = time.process_time()
    found = vpt.adapt({"train": examples, "test": test}, progress=False, **how)
    took = time.process_time() - started
    found.model.close()
    method, answers = found.report.method, found.answers["test"]
    row = {"method": name, "cpu_seconds": round(took, 1)}
    row |= result(answers.scores[method].numpy(), answers.y.numpy())
    row |= {"chosen": method, "out_of_fold": found.metrics["out_of_fold"]["accuracy"]}
    if found.metrics["suspects"]:
        row["suspects"] = found.metrics["suspects"]["count"]
    return row


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("what", choices=["unlabelled", "noisy"])
    parser.add_argument("folders", nargs="+", type=Path)
    parser.add_argument("--backbone", default="vpt:vit-p8-64")
    parser.add_argument("--shots", nargs="+", type=int, default=[5, 20])
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--wrong", nargs="+", type=float, default=WRONG)
    parser.add_argument("--kinds", nargs="+", choices=KINDS, default=KINDS)
    parser.add_argument("--store", type=Path, help="a feature store; {} in it is the folder's name")
    parser.add_argument("--out", type=Path, default=Path("runs/few-labels"))
    options = parser.parse_args(argv)
    options.out.mkdir(parents=True, exist_ok=True)
    file = options.out / "results.jsonl"
    known = [json.loads(line) for line in file.read_text().splitlines()] if file.is_file() else []
    done = {tuple(row[k] for k in ("backbone", "task", "shots", "seed", "method")) for row in known}
    for folder in options.folders:
        source = look(folder)
        backbone = open_for(source, options.backbone)
        store = str(options.store).format(folder.name) if options.store else None
        run_folder(options, source, backbone, store, file, done)
    print(f"test accuracy of each run: {file}")


def run_folder(
    options: argparse.Namespace,
    source: Source,
    backbone: vpt.Backbone,
    store: str | None,
    file: Path,
    done: set[tuple[Any, ...]],
) -> None:
    """All draws of one folder."""
    train, test = (read_parts(source, backbone.inputs, part) for part in ("train", "test"))

    def features(few: Examples) -> torch.Tensor:
        with stored(store, backbone):
            kept = keep(backbone, few)
        return kept.of_examples(kept.features)

    for shots in options.shots:
        for seed in options.seeds:
            where = {"backbone": Path(options.backbone).name, "task": source.path.name}
            where |= {"shots": shots, "seed": seed}
            few = few_shot(train, shots, seed)
            for name, examples, how in cases(options, train, few, features, seed):
                if (*where.values(), name) in done:
                    continue
                how |= {"backbone": backbone, "seed": seed, "store": store}
                row = where | measured(name, examples, test, how)
                with file.open("a") as lines:
                    lines.write(json.dumps(row) + "\n")
                said = [row["task"], shots, seed, name, f"{row['accuracy']:.1%}", row["chosen"]]
                print(*said, f"{row['cpu_seconds']} s", sep=" · ", flush=True)


if __name__ == "__main__":
    main()
