"""How many fresh mistakes of a kind ten corrected ones mend, and what is lost elsewhere.

vpt adapt signs/ --out runs/signs
python examples/your_folder/corrections.py runs/signs signs/

A kind is a class that is taken for one other, or for any, at least 16 times among the test examples
of the folder. Ten of its mistakes, drawn at random, are corrected; the others are fresh, and
"elsewhere" are all other test examples. Beside it: a linear classifier of what the run's readout
reads, fitted anew on all training examples and the ten, which count once or five times each.
"""

from __future__ import annotations

import argparse
from collections import Counter
from pathlib import Path

import numpy as np
import torch
from rich.console import Console
from rich.table import Table

import vpt
from vpt.data import read_parts
from vpt.errors import VptError
from vpt.metrics.classification import mean_std
from vpt.runs.probe import fit_probe
from vpt.training.evaluation import matched, scores

GIVEN, FEWEST, MOST = 10, 16, 5  # examples of a correction, of a kind; kinds


def kinds_of(
    y: np.ndarray, said: np.ndarray, names: list[str], fewest: int
) -> dict[str, np.ndarray]:
    """Kind → which examples are of it: mistakes of a class that are said to be another, or any."""
    wrong = y != said
    pairs = Counter(zip(y[wrong].tolist(), said[wrong].tolist(), strict=True))
    found = {
        f"{names[a]} taken for {names[b]}": (y == a) & (said == b)
        for (a, b), n in pairs.most_common(MOST)
        if n >= fewest
    }
    for a, n in Counter(y[wrong].tolist()).most_common(MOST):
        if n >= fewest:
            found[f"{names[a]} taken for any"] = (y == a) & wrong
    return found


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("run", type=Path)
    parser.add_argument("data", type=Path)
    parser.add_argument("--draws", type=int, default=5)
    parser.add_argument("--fewest", type=int, default=FEWEST, help="mistakes of a kind")
    parser.add_argument("--budget", type=float, default=0.005)
    options = parser.parse_args(argv)
    model = vpt.load(options.run)
    inputs, classes = model.backbone.inputs, model.classes or []
    test, train = (
        matched(model, read_parts(options.data, inputs, part=p)) for p in ("test", "train")
    )
    fresh, y = scores(model, test, outputs=True, progress=True, what="test features")
    x, labels = scores(model, train, outputs=True, progress=True, what="training features")
    with torch.no_grad():
        said = model.readout(fresh).argmax(1)
    backbone = model.backbone
    model.close()
    plain, c = fit_probe(x, labels, len(classes))
    with torch.no_grad():
        refitted = plain(fresh).argmax(1)
    kinds = kinds_of(y.numpy(), said.numpy(), classes, options.fewest)
    console = Console()
    console.print(f"{len(y)} test examples, accuracy {(said == y).float().mean():.1%}")
    table = Table(
        "kind", "mistakes", "corrected: fresh, elsewhere", "use", "fitted anew", "five times"
    )
    for name, kind in kinds.items():
        rows: dict[str, list[tuple[float, float]]] = {"ours": [], "once": [], "five": []}
        use = 0
        for draw in range(options.draws):
            order = torch.from_numpy(np.random.default_rng(draw).permutation(np.flatnonzero(kind)))
            given, rest = order[:GIVEN], order[GIVEN:]
            other = torch.from_numpy(~kind)

            def change(now: torch.Tensor, before: torch.Tensor, rest=rest, other=other):
                right, was = (now == y).float(), (before == y).float()
                return float(right[rest].mean()), float((right - was)[other].mean())

            try:
                some = test.subset(given.tolist())
                made = vpt.correct(
                    options.run, some, budget=options.budget, backbone=backbone, progress=False
                )
                with torch.no_grad():
                    rows["ours"].append(change(made.model.readout(fresh).argmax(1), said))
                use += made.report["recommendation"] == "use"
                made.model.close()
            except VptError:  # nothing can be mended
                rows["ours"].append((0.0, 0.0))
            for column, times in (("once", 1), ("five", 5)):
                more = given.repeat(times)
                probe, _ = fit_probe(
                    torch.cat([x, fresh[more]]), torch.cat([labels, y[more]]), len(classes), 0, c
                )
                with torch.no_grad():
                    rows[column].append(change(probe(fresh).argmax(1), refitted))
        cells = [
            f"{100 * mean_std([m for m, _ in found])[0]:.0f} %, "
            f"{100 * mean_std([lost for _, lost in found])[0]:+.1f}"
            for found in rows.values()
        ]
        table.add_row(name, f"{kind.sum()}", cells[0], f"{use} of {options.draws}", *cells[1:])
    console.print(table)


if __name__ == "__main__":
    main()
