"""Corrections of biased models on real faces: test values of what was chosen out of fold, mean ±
std over seeds.

python examples/biased_model/plant.py faces/faces.csv --group sex --out runs/faces
python examples/biased_model/faces.py runs/faces --models vit cnn

Each seed has its own examples to tune on and to test on (tune-SEED.csv). Chosen out of fold: the
least gap (average odds difference) within a budget of accuracy, in points. "truly better": of the
runs whose recommendation is to use the correction, those whose test gap is smaller.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

import vpt
from vpt.data.joining import appended
from vpt.fairness.automatic import mended
from vpt.fairness.choosing import GAP, Point, choose, judged
from vpt.metrics.classification import mean_std

BUDGETS = (0.003, 0.01)
GAP_OF = GAP["eo"]
SHARES = ("accuracy", "balanced_accuracy", "worst_group_accuracy")


def one(folder: Path, model: str, seed: int, budgets: tuple[float, ...]) -> dict[str, Any]:
    """Test values of a seed: of the bare model, of what each budget chose, of thresholds."""
    backbone = vpt.load_backbone(str(folder / model))
    data = vpt.load_data(folder / f"tune-{seed}.csv", backbone.inputs, progress=False)
    prompted, found = mended(backbone, data, positive="old", seed=seed, progress=False)
    prompted.close()
    rows: dict[str, Any] = {"bare model": _values(found.base)}
    for budget in budgets:
        chosen, _ = choose(found.base, found.points, GAP_OF, budget, None)
        tuned = appended(data.train, data.val)
        worth = judged(found.base, chosen, tuned, GAP_OF, budget, "old", seed)
        rows[f"within {100 * budget:g}"] = _values(chosen) | {
            "recommendation": worth.recommendation,
            "strength": chosen.strength,
        }
    for point in found.points:
        rows[point.called] = _values(point)
    if found.thresholds is not None:
        rows["thresholds by group"] = _values(found.thresholds)
    return rows


def _values(point: Point) -> dict[str, Any]:
    return {metric: point.value(metric, "test") for metric in (*SHARES, GAP_OF)}


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=Path)
    parser.add_argument("--models", nargs="+", default=["vit", "cnn"])
    parser.add_argument("--seeds", type=int, default=5)
    options = parser.parse_args(argv)
    for model in options.models:
        kept = options.folder / f"{model}.jsonl"
        lines = kept.read_text().splitlines() if kept.exists() else []
        seeds = [json.loads(line) for line in lines]
        for seed in range(len(seeds), options.seeds):
            seeds.append(one(options.folder, model, seed, BUDGETS))
            with kept.open("a") as file:
                file.write(json.dumps(seeds[-1]) + "\n")
        titles = ("accuracy", "balanced", "worst cell", "gap", "use", "truly better")
        table = Table("", *titles, title=f"{options.folder.name}, {model}: {len(seeds)} seeds")
        bare = np.array([seed["bare model"][GAP_OF] for seed in seeds])
        for name in seeds[0]:
            rows = [seed[name] for seed in seeds]
            cells = [
                "{:.1f} ± {:.1f}".format(*(100 * v for v in mean_std([r[m] for r in rows])))
                for m in SHARES
            ]
            gaps = np.array([row[GAP_OF] for row in rows])
            known = name != "bare model" and bare.mean() > 0
            change = f" ({gaps.mean() / bare.mean() - 1:+.0%})" if known else ""
            cells.append(f"{gaps.mean():.3f} ± {gaps.std():.3f}{change}")
            if "recommendation" in rows[0]:
                used = [row["recommendation"] == "use" for row in rows]
                cells += [f"{sum(used)}", f"{int(((gaps < bare) & used).sum())}"]
            table.add_row(name, *cells)
        Console().print(table)


if __name__ == "__main__":
    main()
