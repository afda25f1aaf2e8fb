"""Set training examples of a probe aside: those that make it most unfair (FairIJ), those of largest
loss, or any; without refitting and with.

python examples/biased_model/plant.py faces/faces.csv --group sex --out runs/faces
python examples/biased_model/aside.py runs/faces --model vit

A linear probe of the model's features learns the label from the training examples of tune-SEED.csv;
the gap whose influence is taken is that of the validation examples, and what is printed is of the
test examples: mean ± std over seeds.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor

import vpt
from vpt.metrics.audit import audit
from vpt.metrics.classification import mean_std
from vpt.model import PromptedModel
from vpt.runs.probe import fit_probe
from vpt.training.evaluation import matched, scores

SHARES = (0.05, 0.1, 0.2)
C = 0.01  # of the probe
GAP = "average_odds_difference"


def one(folder: Path, kind: str, seed: int) -> dict[str, tuple[float, float]]:
    """(accuracy, gap) on test of the probe, and of what is left of it each way."""
    backbone = vpt.load_backbone(str(folder / kind))
    data = vpt.load_data(folder / f"tune-{seed}.csv", backbone.inputs, val_share=0.3, seed=seed)
    assert data.test is not None
    linear = vpt.Linear(backbone.out_features, data.classes)
    with PromptedModel(backbone, None, linear) as model:
        train, test = matched(model, data.train), matched(model, data.test)
        x, y = scores(model, train, outputs=True, what="training features")
        fresh, _ = scores(model, test, outputs=True, what="test features")

        def fitted(rows: Tensor) -> None:
            probe = fit_probe(x[rows], y[rows], len(data.classes), seed, C)[0]
            linear.load_state_dict(probe.state_dict())

        def told() -> tuple[float, float]:
            with torch.no_grad():
                said = linear(fresh).argmax(1).tolist()
            found = audit(
                test.targets, said, test.grouped or [], test.classes, test.group_names or []
            )
            return found.value("accuracy"), found.value(GAP)

        every = torch.arange(len(y))
        fitted(every)
        rows = {"the probe": told()}
        found = vpt.influence(
            model, data.train, data.val, "eo", weight_decay=1 / (C * len(y)), progress=False
        )
        with torch.no_grad():
            loss = torch.nn.functional.cross_entropy(linear(x), y, reduction="none")
        draw = torch.Generator().manual_seed(seed)
        orders = {
            "unfairest": found.values.argsort(descending=True),
            "largest loss": loss.argsort(descending=True),
            "any": torch.randperm(len(y), generator=draw),
        }
        for name, order in orders.items():
            for share in SHARES:
                chosen = order[: round(share * len(y))]
                found.set_aside(chosen.tolist())
                rows[f"{name}, {share:.0%}"] = told()
                found.undo()
                fitted(every[~torch.isin(every, chosen)])
                rows[f"{name}, {share:.0%}, refitted"] = told()
                fitted(every)
    return rows


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=Path)
    parser.add_argument("--model", default="vit")
    parser.add_argument("--seeds", type=int, default=5)
    options = parser.parse_args(argv)
    seeds = [one(options.folder, options.model, seed) for seed in range(options.seeds)]
    table = Table("set aside", "accuracy", "gap", title=f"{options.model}: {len(seeds)} seeds")
    for name in seeds[0]:
        accuracy, gap = (np.array([seed[name][i] for seed in seeds]) for i in range(2))
        mean, spread = mean_std((100 * accuracy).tolist())
        table.add_row(
            name, f"{mean:.1f} ± {spread:.1f}", "{:.3f} ± {:.3f}".format(*mean_std(gap.tolist()))
        )
    Console().print(table)


if __name__ == "__main__":
    main()
