"""Which way of adapting a frozen model is worth it? Fixed features, queries and `auto` on a few
examples per class, all from one pass over each folder.

python examples/real_backbones/few_shot.py signs/ hands/ --backbone clip/ --shots 5 20 0

A folder holds train/CLASS/FILE and test/CLASS/FILE; 0 shots are all. Each method is given the same
labels, and searches by the same cross-validation of them; nothing is chosen on test. One line of
results.jsonl is one method on one draw; what stands there is not run again. The pass over a folder
is kept in --kept, if one is named. CPU-seconds of learning (of probes without their search), and of
the pass over what is learned from.
"""

from __future__ import annotations

import argparse
import json
import time
import warnings
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from sklearn.exceptions import ConvergenceWarning
from sklearn.neural_network import MLPClassifier
from sklearn.preprocessing import StandardScaler
from tables import result, tables

import vpt
from vpt.data import Examples, read_parts
from vpt.runs.candidates import (
    MEANS,
    SETS,
    Trial,
    choose_among,
    means_on,
    probe_on,
    refit,
)
from vpt.runs.choosing import folds_of
from vpt.runs.kept import Kept, keep
from vpt.runs.making import start_among
from vpt.runs.querying import queries_for

BUDGET = 8 << 30  # bytes of keys and values
PARTS = ("train", "test")
ALPHAS = (1e-4, 1e-2, 1.0, 100.0)  # weight decay of the MLP head


@dataclass
class Task:
    """A folder, and what one pass of the bare model over it left.

    seconds: of CPU, for one example.
    """

    name: str
    train: Examples
    kept: dict[str, Kept]
    seconds: float


@dataclass
class Found:
    """What a method says of the test examples `[m,C]`, its CPU-seconds, and what it chose."""

    scores: np.ndarray
    seconds: float
    details: dict[str, Any]


def open_task(folder: Path, backbone: vpt.Backbone, kept: Path | None) -> Task:
    """Run the bare model over a folder once, or read what an earlier run kept."""
    parts = {part: read_parts(folder, backbone.inputs, part) for part in PARTS}
    if parts["train"].name(0) == parts["test"].name(0):
        raise SystemExit(f"{folder} has no test/CLASS/FILE beside train/CLASS/FILE.")
    queries = queries_for(backbone)
    blocks = queries.blocks if queries is not None else []
    file = kept / f"{folder.name}.pt" if kept is not None else None
    if file is not None and file.is_file():
        stored = torch.load(file, weights_only=True)
        few = keep(backbone, parts["train"].subset([0]), blocks=blocks)
        found = {part: _unpacked(stored[part], few) for part in PARTS}
        return Task(folder.name, parts["train"], found, stored["seconds"])
    started = time.process_time()
    found = {
        part: keep(
            backbone, examples, blocks=blocks, budget=BUDGET, progress=True, what=folder.name
        )
        for part, examples in parts.items()
    }
    seconds = (time.process_time() - started) / sum(map(len, parts.values()))
    if file is not None:
        file.parent.mkdir(parents=True, exist_ok=True)
        packed = {part: _packed(one) for part, one in found.items()}
        torch.save(packed | {"seconds": seconds}, file)
    return Task(folder.name, parts["train"], found, seconds)


def _packed(kept: Kept) -> dict[str, Any]:
    fields = {name: getattr(kept, name) for name in ("y", "clips", "features", "sums")}
    memories = {b: (m.keys, m.values, m.valid) for b, m in kept.memories.items()}
    return fields | {"memories": memories}


def _unpacked(stored: dict[str, Any], few: Kept) -> Kept:
    memories = {
        block: replace(few.memories[block], keys=keys, values=values, valid=valid)
        for block, (keys, values, valid) in stored["memories"].items()
    }
    return Kept(**(stored | {"memories": memories}))


def draw(labels: list[int], shots: int, seed: int) -> list[int]:
    """Places of `shots` examples of each class, or of all that it has."""
    y, generator = np.array(labels), np.random.default_rng(seed)
    each = [generator.permutation(np.flatnonzero(y == c)) for c in np.unique(y)]
    return sorted(int(i) for own in each for i in own[: shots or None])


def methods(
    task: Task, backbone: vpt.Backbone, shots: int, seed: int
) -> Iterator[tuple[str, Found]]:
    """Each method's answers on one draw, one after the other."""
    chosen = draw(task.train.targets, shots, seed)
    examples, kept, test = (
        task.train.subset(chosen),
        task.kept["train"].take(chosen),
        task.kept["test"],
    )
    folds = folds_of(examples, seed)
    passed = task.seconds * len(examples)
    started = time.process_time()

    def took() -> float:
        return passed + time.process_time() - started

    def scores(readout: vpt.Readout, what: Kept = test) -> np.ndarray:
        with torch.no_grad():
            out = readout(what.named(readout.named.text, backbone))
            return test.of_examples(out).numpy()

    start = queries_for(backbone) if kept.memories else None
    if start is not None:
        start_among(start, backbone, examples, seed)
    trial = Trial(backbone, kept, examples.classes, folds, start)
    choice = choose_among(trial, seed, progress=False)
    prompt, readout = refit(trial, choice)
    read = test.with_read(prompt) if prompt is not None else test
    outside = {
        "accuracy": choice.accuracy,
        "log_loss": choice.log_loss,
        "interval": choice.interval,
    }
    found, seconds = scores(readout, read), took()
    plain = replace(trial, made=[replace(one, slope=1.0) for one in trial.made])
    before = result(scores(refit(plain, choice)[1], read), test.y.numpy())["calibration_error"]
    details = {"chosen": choice.name, "out_of_fold": outside, "calibration_before": before}
    yield "auto", Found(found, seconds, details)
    rows = {row["candidate"]: row for row in choice.table}
    for name in [name for name in rows if name.startswith("queries")]:
        prompt, readout = refit(trial, replace(choice, names=[name]))
        details = {
            "out_of_fold": {"accuracy": rows[name]["accuracy"], "log_loss": rows[name]["log_loss"]}
        }
        yield "queries", Found(scores(readout, test.with_read(prompt)), took(), details)
    started = time.process_time()
    yield MEANS, Found(scores(means_on(trial)), took(), {})
    probes = {}
    for of in [of for of in SETS if f"probe {of}" in rows]:
        started = time.process_time()
        found = scores(probe_on(trial, of))
        details = {
            "C": trial.strengths[f"probe {of}"],
            "out_of_fold": rows[f"probe {of}"]["log_loss"],
        }
        probes[of] = Found(found, took(), details)
        yield f"probe {of}", probes[of]
    if probes:
        best = min(probes, key=lambda of: rows[f"probe {of}"]["log_loss"])
        yield "best fixed features", replace(probes[best], details={"chosen": best})
    started = time.process_time()
    found, details = mlp_head(
        trial.features("cls").numpy(),
        kept.y.numpy(),
        test.of_examples(test.features).numpy(),
        folds,
        seed,
    )
    yield "MLP head", Found(found, took(), details)


def mlp_head(
    x: np.ndarray, y: np.ndarray, test: np.ndarray, folds: Any, seed: int
) -> tuple[np.ndarray, dict[str, Any]]:
    """One hidden layer on the class token; its weight decay has the least log loss out of fold."""
    scaler = StandardScaler().fit(x)
    x, test = scaler.transform(x), scaler.transform(test)

    def fitted(alpha: float, rows: np.ndarray) -> MLPClassifier:
        head = MLPClassifier(
            256, alpha=alpha, max_iter=100, tol=0.0, n_iter_no_change=100, random_state=seed
        )
        with warnings.catch_warnings():  # a hundred epochs are enough, or the decay is too small
            warnings.simplefilter("ignore", ConvergenceWarning)
            return head.fit(x[rows], y[rows])

    def loss(alpha: float) -> float:
        losses = []
        for rows, held in folds:
            head = fitted(alpha, rows)
            shares = np.full((len(held), y.max() + 1), 1e-12)
            shares[:, head.classes_] = head.predict_proba(x[held]).clip(1e-12)
            losses += (-np.log(shares[np.arange(len(held)), y[held]])).tolist()
        return float(np.mean(losses))

    alpha = min(ALPHAS, key=loss)
    return np.log(fitted(alpha, np.arange(len(y))).predict_proba(test).clip(1e-12)), {
        "alpha": alpha
    }


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folders", nargs="+", type=Path)
    parser.add_argument("--backbone", default="vpt:vit-p8-64")
    parser.add_argument("--shots", nargs="+", type=int, default=[5, 20, 0])
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--auto", action="store_true", help="nothing else")
    parser.add_argument("--kept", type=Path, help="a folder for what a pass over the data gives")
    parser.add_argument("--out", type=Path, default=Path("runs/few-shot"))
    options = parser.parse_args(argv)
    backbone = vpt.load_backbone(options.backbone)
    name, file = Path(options.backbone).name, options.out / "results.jsonl"
    options.out.mkdir(parents=True, exist_ok=True)
    known = [json.loads(line) for line in file.read_text().splitlines()] if file.is_file() else []
    done = {
        (row["backbone"], row["task"], row["shots"], row["seed"])
        for row in known
        if row["method"] == "auto"
    }
    for folder in options.folders:
        wanted = [(shots, seed) for shots in options.shots for seed in range(options.seeds)]
        left = [one for one in wanted if (name, folder.name, *one) not in done]
        task = open_task(folder, backbone, options.kept) if left else None
        for shots, seed in left:
            y, rows = task.kept["test"].y.numpy(), []
            for method, found in methods(task, backbone, shots, seed):
                if options.auto and method != "auto":
                    break
                where = {"backbone": name, "task": folder.name, "shots": shots, "seed": seed}
                cost = {"method": method, "cpu_seconds": round(found.seconds, 1)}
                rows.append(where | cost | result(found.scores, y) | found.details)
            with file.open("a") as lines:
                lines.writelines(json.dumps(row) + "\n" for row in rows)
            each = (f"{row['method']} {row['accuracy']:.1%}" for row in rows)
            print(folder.name, shots, seed, *each, sep=" · ", flush=True)
    for table in tables([file]):
        table.show(markdown=False)


if __name__ == "__main__":
    main()
