"""Corrections of biased models on real faces, or prompts that are trained: test values of what was
chosen, mean ± std over seeds.

python examples/biased_model/plant.py faces/faces.csv --group sex --out runs/faces
python examples/biased_model/faces.py runs/faces --models vit cnn
python examples/biased_model/faces.py runs/faces --models vit --prompts border:6 cover:6 deep:10
python examples/biased_model/faces.py runs/faces --models vit --prompts linear --methods worst

Each seed has its own examples to tune on and to test on (tune-SEED.csv). Chosen out of fold (of
trained prompts: by three tenths of the examples): the least gap (average odds difference) within a
budget of accuracy, in points. "truly better": of the runs whose recommendation is to use it, those
whose test gap is smaller. "cover:6" is a border that covers the edge; "linear" no prompt, but a new
classifier of the model's features that begins as their probe.
"""

from __future__ import annotations

import argparse
import json
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

import vpt
from vpt.data import Data
from vpt.data.joining import appended
from vpt.fairness.automatic import mended
from vpt.fairness.choosing import GAP, Point, choose, judged
from vpt.metrics.classification import mean_std
from vpt.runs.probe import fit_probe
from vpt.runs.stored import stored
from vpt.training.evaluation import scores

BUDGETS = (0.003, 0.01)
PIXELS = ("border", "cover", "patch", "full")
GAP_OF = GAP["eo"]
SHARES = ("accuracy", "balanced_accuracy", "worst_group_accuracy")


def one(folder: Path, model: str, seed: int, how: argparse.Namespace) -> dict[str, Any]:
    """Test values of a seed: of the bare model, of what each budget chose, of thresholds."""
    backbone = vpt.load_backbone(str(folder / model))
    share = {} if how.prompt == "auto" else {"val_share": 0.3, "seed": seed}
    data = vpt.load_data(folder / f"tune-{seed}.csv", backbone.inputs, progress=False, **share)
    told = {"positive": "old", "strengths": how.strengths, "progress": False}
    if how.prompt == "auto":
        with stored(how.store, backbone, queries=False):
            prompted, found = mended(backbone, data, seed=seed, **told)
        judging = appended(data.train, data.val)
    else:
        prompted, judging = _begun(backbone, data, how.prompt, seed), data.val
        lr = how.lr or (0.05 if how.prompt.partition(":")[0] in PIXELS else 0.02)
        told |= {"epochs": how.epochs, "lr": lr, "seed": seed, "batch_size": 16}
        parts = (data.train, data.val, data.test)
        found = vpt.frontier(prompted, *parts, method=how.method, **told)
    prompted.close()
    rows: dict[str, Any] = {"bare model": _values(found.base)}
    for budget in BUDGETS:
        chosen, _ = choose(found.base, found.points, GAP_OF, budget, None)
        worth = judged(found.base, chosen, judging, GAP_OF, budget, "old", seed)
        rows[f"within {100 * budget:g}"] = _values(chosen) | {
            "recommendation": worth.recommendation,
            "strength": chosen.strength,
        }
    for point in found.points:
        rows[point.called] = _values(point)
    if found.thresholds is not None:
        rows["thresholds by group"] = _values(found.thresholds)
    return rows


def _begun(backbone: vpt.Backbone, data: Data, prompt: str, seed: int) -> vpt.PromptedModel:
    """The model with a prompt and its own classes, or with a probe of its features."""
    if prompt != "linear":
        name, _, width = prompt.partition(":")
        made = (
            vpt.Border.like(backbone, int(width), fit="cover")
            if name == "cover"
            else vpt.prompts.parse(prompt, backbone, seed=seed)
        )
        return vpt.PromptedModel(backbone, made, vpt.Identity(data.classes))
    model = vpt.PromptedModel(backbone, None, vpt.Linear(backbone.out_features, data.classes))
    features = scores(model, data.train, outputs=True, progress=False)
    probe = fit_probe(*features, classes=len(data.classes), seed=seed)[0]
    model.readout.load_state_dict(probe.state_dict())
    return model


def _values(point: Point) -> dict[str, Any]:
    return {metric: point.value(metric, "test") for metric in (*SHARES, GAP_OF)}


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=Path)
    parser.add_argument("--models", nargs="+", default=["vit", "cnn"])
    parser.add_argument("--prompts", nargs="+", default=["auto"])
    parser.add_argument("--methods", nargs="+", default=["penalty"], help="of trained prompts")
    parser.add_argument("--strengths", type=float, nargs="+")
    parser.add_argument("--epochs", type=int, default=6, help="of trained prompts")
    parser.add_argument("--lr", type=float, help="of trained prompts: 0.05 of pixels, 0.02 else")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--store", type=Path, help="of features: seeds have many faces in common")
    options = parser.parse_args(argv)
    for model, prompt, method in product(options.models, options.prompts, options.methods):
        name = model if prompt == "auto" else f"{model}-{prompt}-{method}"
        how = argparse.Namespace(**vars(options), prompt=prompt, method=method)
        kept = options.folder / f"{name}.jsonl"
        lines = kept.read_text().splitlines() if kept.exists() else []
        seeds = [json.loads(line) for line in lines]
        for seed in range(len(seeds), options.seeds):
            seeds.append(one(options.folder, model, seed, how))
            with kept.open("a") as file:
                file.write(json.dumps(seeds[-1]) + "\n")
        titles = ("accuracy", "balanced", "worst cell", "gap", "use", "truly better")
        table = Table("", *titles, title=f"{options.folder.name}, {name}: {len(seeds)} seeds")
        bare = np.array([seed["bare model"][GAP_OF] for seed in seeds])
        for row in [name for name in seeds[0] if all(name in seed for seed in seeds)]:
            rows = [seed[row] for seed in seeds]
            cells = [
                "{:.1f} ± {:.1f}".format(*(100 * v for v in mean_std([r[m] for r in rows])))
                for m in SHARES
            ]
            gaps = np.array([found[GAP_OF] for found in rows])
            known = row != "bare model" and bare.mean() > 0
            change = f" ({gaps.mean() / bare.mean() - 1:+.0%})" if known else ""
            cells.append("{:.3f} ± {:.3f}".format(*mean_std(gaps.tolist())) + change)
            if "recommendation" in rows[0]:
                used = [found["recommendation"] == "use" for found in rows]
                cells += [f"{sum(used)}", f"{int(((gaps < bare) & used).sum())}"]
            table.add_row(row, *cells)
        Console().print(table)


if __name__ == "__main__":
    main()
