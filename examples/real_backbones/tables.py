"""Tables of what few_shot.py and tuned.py measured.

python examples/real_backbones/tables.py runs/few-shot/results.jsonl --markdown

For each backbone and number of examples: test accuracy in %, mean over draws (balanced over classes
with --balanced; or the calibration error with --calibration); the mean over tasks; the difference
in accuracy from a linear probe of the class token (or from --base) on the same examples, with an
interval of 95 % (a bootstrap of each task's test examples, the same for all draws of training
examples); CPU-seconds, where they are known, with the pass over what is learned from.
"""

from __future__ import annotations

import argparse
import json
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.console import Console
from rich.table import Table
from sklearn.metrics import balanced_accuracy_score

from vpt.metrics.calibrating import calibration_error

BASE = "probe cls"
DRAWS = 2000  # of the bootstrap
CALIBRATION = {
    "before": "calibration_before",
    "after": "calibration_error",
    "perfect": "calibration_perfect",
}
SHOWN = {
    "accuracy": "accuracy in %",
    "balanced_accuracy": "balanced accuracy in %",
    "calibration_error": "calibration error in points",
    "calibration_before": "calibration error in points, before scaling",
    "calibration_perfect": "calibration error in points, if it were perfect",
}
Right = dict[tuple[str, int], np.ndarray]  # (task, seed) → which test examples are right


@dataclass
class Found:
    """A table: its title, the heads of its columns, its rows."""

    title: str
    heads: list[str]
    rows: list[list[str]]

    def show(self, markdown: bool) -> None:
        """Print it."""
        if markdown:
            lines = [self.heads, ["---"] * len(self.heads), *self.rows]
            print(f"\n{self.title}\n", *(f"| {' | '.join(line)} |" for line in lines), sep="\n")
            return
        table = Table(title=self.title)
        for head in self.heads:
            table.add_column(head, justify="right" if head else "left")
        for row in self.rows:
            table.add_row(*row)
        Console(width=120).print(table)


def result(scores: np.ndarray, y: np.ndarray) -> dict[str, Any]:
    """What scores `[n,C]` of test examples come to."""
    guess = scores.argmax(1)
    shares = torch.softmax(torch.from_numpy(scores).double(), 1)
    return {
        "accuracy": float((guess == y).mean()),
        "balanced_accuracy": float(balanced_accuracy_score(y, guess)),
        "calibration_error": calibration_error(shares, torch.from_numpy(y)),
        "calibration_perfect": perfect(shares),
        "right": "".join("01"[int(one)] for one in guess == y),
    }


def perfect(shares: torch.Tensor, draws: int = 50) -> float:
    """The mean error where labels are drawn from these very probabilities `[n,C]`: what few
    examples show of a model that is calibrated perfectly.
    """
    generator = torch.Generator().manual_seed(0)
    drawn = [torch.multinomial(shares, 1, generator=generator)[:, 0] for _ in range(draws)]
    return float(np.mean([calibration_error(shares, y) for y in drawn]))


def tables(files: list[Path], key: str = "accuracy", base: str = BASE) -> list[Found]:
    """One for each backbone and number of examples. key: of the number that is shown. base: the
    method that others are compared with.
    """
    rows = [json.loads(line) for file in files for line in file.read_text().splitlines()]
    rows = [row for row in rows if key in row]
    kinds = sorted(
        {(row["backbone"], row["shots"]) for row in rows}, key=lambda kind: (kind[0], -kind[1])
    )
    return [
        _table(*kind, [row for row in rows if (row["backbone"], row["shots"]) == kind], key, base)
        for kind in kinds
    ]


def _table(backbone: str, shots: int, rows: list[dict[str, Any]], key: str, base: str) -> Found:
    tasks = list(dict.fromkeys(row["task"] for row in rows))
    right: dict[str, Right] = defaultdict(dict)
    shown: dict[tuple[str, str], list[float]] = defaultdict(list)
    seconds: dict[str, list[float]] = defaultdict(list)
    for row in rows:
        method = row["method"]
        right[method][row["task"], row["seed"]] = np.array([int(one) for one in row["right"]])
        shown[method, row["task"]].append(100 * row[key])
        seconds[method] += [row["cpu_seconds"]] if "cpu_seconds" in row else []
    draws = len({row["seed"] for row in rows})
    many = f"{shots} per class" if shots else "all examples"
    title = f"{backbone}, {many}, {draws} draw{'s' * (draws > 1)}: test {SHOWN[key]}"
    lines = []
    for method, of in right.items():
        each = [shown.get((method, task)) for task in tasks]
        cells = [f"{np.mean(some):.1f}" if some else "" for some in each]
        mean = f"{np.mean([np.mean(some) for some in each if some]):.1f}" if all(each) else ""
        gap = difference(of, right.get(base, {}), tasks) if method != base else ""
        cost = [f"{np.mean(seconds[method]):.0f}"] if seconds[method] else []
        lines.append([method, *cells, mean, gap, *cost])
    costs = ["CPU-s"] if any(seconds.values()) else []
    return Found(
        title, ["", *tasks, "mean", f"− {'probe' if base == BASE else base}", *costs], lines
    )


def difference(of: Right, base: Right, tasks: list[str]) -> str:
    """Mean over tasks of the paired difference, with its interval; of those draws that both had."""
    both = [at for at in of if at in base]
    if not both:
        return ""
    generator, means = np.random.default_rng(0), []
    for task in [task for task in tasks if any(at[0] == task for at in both)]:
        gaps = np.mean([of[at] - base[at] for at in both if at[0] == task], axis=0)
        picks = generator.integers(len(gaps), size=(DRAWS, len(gaps)))
        means.append(np.concatenate([[gaps.mean()], gaps[picks].mean(1)]))
    found = 100 * np.mean(means, axis=0)
    low, high = np.percentile(found[1:], (2.5, 97.5))
    return f"{found[0]:+.1f} ({low:+.1f} to {high:+.1f})"


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("files", nargs="+", type=Path)
    parser.add_argument("--balanced", action="store_true")
    parser.add_argument("--base", default=BASE, help="the method to compare with")
    parser.add_argument("--markdown", action="store_true")
    parser.add_argument("--calibration", choices=CALIBRATION, help="its error instead")
    options = parser.parse_args(argv)
    key = "balanced_accuracy" if options.balanced else "accuracy"
    if options.calibration:
        key = CALIBRATION[options.calibration]
    for table in tables(options.files, key, options.base):
        table.show(options.markdown)


if __name__ == "__main__":
    main()
