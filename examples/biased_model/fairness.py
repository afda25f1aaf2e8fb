"""A border for the biased models, or with --auto a correction of their scores: test accuracy and
gaps of the points that two rules choose, mean ± std over seeds.

python examples/biased_model/fairness.py portraits digits
python examples/biased_model/fairness.py portraits digits --auto
python examples/biased_model/fairness.py mnist --digits mnist.zip --model runs/biased/mnist/model

Each seed draws its own pictures to tune on (at most a tenth as many as the model learned from; a
third of them validates) and to test on, biased as the training set was. Chosen on validation (with
--auto out of fold, on all that is not for testing): the most accurate point that takes a quarter
(half) off the gap, and the fairest within a budget of accuracy, in points; shown: test values. In
brackets 95 % intervals by bootstrap of a seed's test pictures, their mean half width, then the
change of the gap. Every seed's trade-off is kept in --out, so that a run that was stopped goes on.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

import vpt
from vpt.data import Data
from vpt.demo.shows import BIASED, Biased, tuning
from vpt.fairness.automatic import mended
from vpt.fairness.choosing import GAP, Point, choose
from vpt.metrics.audit import Audit, Interval
from vpt.metrics.classification import mean_std
from vpt.objectives import METHODS

PRETRAIN = Path(__file__).parents[1] / "pretrain"  # where the recipe of the models stands

TUNED, TESTED = 2000, 4000  # the models learned from 20,000
SETTINGS: dict[str, Any] = {"batch_size": 64, "precision": "bf16"}
BUDGETS = {"portraits": (0.01, 0.03), "digits": (0.02, 0.05), "mnist": (0.02, 0.05)}  # of accuracy
PARTS = {"a quarter": 0.75, "half": 0.5}  # what may be left of the gap
SHARES = ("accuracy", "balanced_accuracy", "worst_group_accuracy")
GAPS = ("average_odds_difference", "equalized_odds_difference")


def drawn_from(digits: Path) -> Biased:
    """The case of coloured digits with these handwritten ones, as the recipe draws it."""
    sys.path.insert(0, str(PRETRAIN))
    from biased import biased_mnist

    return biased_mnist(digits)


def with_plain_attention(backbone: vpt.Backbone) -> vpt.Backbone:
    """Attention as two products, the same function: under a border its bf16 backward pass is far
    faster on a CPU than SDPA's.
    """
    for module in backbone.model.modules():
        if hasattr(module, "fused_attn"):
            module.fused_attn = False
    return backbone


def frontier(
    backbone: vpt.Backbone, case: Biased, options: argparse.Namespace, seed: int
) -> dict[str, Any]:
    """One seed's trade-off, in plain values."""
    parts, prompt = (
        tuning(case, options.tuned, options.tested, seed),
        vpt.Border.like(backbone, options.width),
    )
    classes = parts["train"].classes
    how = {"criterion": options.criterion, "strengths": options.strengths, "seed": seed}
    if options.auto:
        data = Data(parts["train"], parts["val"], parts["test"], classes, [])
        model, found = mended(backbone, data, **how)
        model.close()
    else:
        with vpt.PromptedModel(backbone, prompt, vpt.Identity(classes)) as model:
            trained = {"method": options.method, "epochs": options.epochs, "lr": options.lr}
            found = vpt.frontier(model, **parts, **how, **trained, **SETTINGS)
    points = {
        "base": [found.base],
        "points": found.points,
        "thresholds": [found.thresholds] if found.thresholds else [],
    }
    return {
        key: [{n: v for n, v in p.as_dict().items() if n != "rows"} for p in value]
        for key, value in points.items()
    }


def opened(point: dict[str, Any]) -> Point:
    """A point as it was kept in plain values, with no more of its audits than their metrics."""

    def audit(part: dict[str, Any]) -> Audit:
        metrics = {name: Interval(**value) for name, value in part["metrics"].items()}
        return Audit(**(part | {"metrics": metrics}))

    return Point(**(point | {part: audit(point[part]) for part in ("val", "test")}))


def shown(name: str, points: list[Point], before: list[Point]) -> list[str]:
    """A row of the table: each value over seeds, gaps with the share that is gone and the width of
    their intervals.
    """
    cells = [name]
    for metric in SHARES:
        cells.append(
            "{:.1f} ± {:.1f}".format(
                *(100 * v for v in mean_std([p.value(metric, "test") for p in points]))
            )
        )
    for metric in GAPS:
        values, bare = ([p.value(metric, "test") for p in some] for some in (points, before))
        found = [p.on("test").metrics[metric] for p in points]
        width = sum(f.high - f.low for f in found) / len(found) / 2
        gone = 1 - sum(values) / sum(bare) if sum(bare) else 0.0
        cells.append(
            "{:.3f} ± {:.3f}".format(*mean_std(values))
            + f" (±{width:.3f})"
            + (f" {-gone:+.0%}" if gone else "")
        )
    return cells


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("cases", nargs="+", choices=list(BUDGETS))
    parser.add_argument(
        "--digits", type=Path, help="for mnist: a folder or zip archive of train/digit/file"
    )
    parser.add_argument("--model", help="another model than the bundled one; needed for mnist")
    parser.add_argument("--auto", action="store_true", help="correct scores; no border")
    parser.add_argument("--width", type=int, default=6)
    parser.add_argument("--method", choices=list(METHODS), default="penalty")
    parser.add_argument("--criterion", choices=list(GAP), default="eo")
    parser.add_argument("--strengths", type=float, nargs="+")
    parser.add_argument("--lr", type=float, default=5e-2)
    parser.add_argument("--epochs", type=int, default=8)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--tuned", type=int, default=TUNED)
    parser.add_argument("--tested", type=int, default=TESTED)
    parser.add_argument("--out", type=Path, default=Path("runs/fairness.jsonl"))
    options = parser.parse_args(argv)
    if "mnist" in options.cases and not (
        options.digits and options.model and len(options.cases) == 1
    ):
        raise SystemExit(
            "mnist goes alone and needs --digits (the pictures) and --model (biased.py trains it)."
        )
    options.out.parent.mkdir(parents=True, exist_ok=True)
    kept = (
        [json.loads(line) for line in options.out.read_text().splitlines()]
        if options.out.exists()
        else []
    )
    told = ("auto", "width", "method", "criterion", "strengths", "lr", "epochs", "tuned", "tested")
    for name in options.cases:
        case = BIASED[name] if name in BIASED else drawn_from(options.digits)
        backbone = with_plain_attention(vpt.load_backbone(options.model or case.model))
        weights = backbone.fingerprint()
        seeds: list[dict[str, list[Point]]] = []
        for seed in range(options.seeds):
            key = {"case": name, "weights": weights, "seed": seed} | {
                what: getattr(options, what) for what in told
            }
            row = next((r["found"] for r in kept if r["key"] == key), None)
            if row is None:
                row = frontier(backbone, case, options, seed)
                with options.out.open("a") as file:
                    file.write(json.dumps({"key": key, "found": row}) + "\n")
            seeds.append(
                {part: [opened(point) for point in points] for part, points in row.items()}
            )
        before = [found["base"][0] for found in seeds]
        rows = {
            "bare model": before,
            "accuracy alone": [found["points"][0] for found in seeds],
        }
        gap = GAP[options.criterion]
        for share, left in PARTS.items():
            rows[f"{share} off on validation"] = [
                choose(f["base"][0], f["points"], gap, 0.0, left * f["base"][0].value(gap))[0]
                for f in seeds
            ]
        for budget in BUDGETS[name]:
            rows[f"within {100 * budget:g} on validation"] = [
                choose(f["base"][0], f["points"], gap, budget, None)[0] for f in seeds
            ]
        if all(found["thresholds"] for found in seeds):
            rows["thresholds by group"] = [found["thresholds"][0] for found in seeds]
        on = f"{options.tested} tested, {options.tuned} to tune on, {len(seeds)} seeds"
        titles = ("accuracy", "balanced", "worst group", "average odds", "equalized odds")
        table = Table("", *titles, title=f"{name}: {options.method}, {options.criterion}; {on}")
        for title, points in rows.items():
            table.add_row(*shown(title, points, before))
        Console().print(table)


if __name__ == "__main__":
    main()
