"""Tables of what few_shot.py measured."""

from __future__ import annotations

import json
from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

BASE = "probe cls"


def print_tables(files: list[Path]) -> None:
    """One for each backbone and number of examples."""
    rows = [json.loads(line) for file in files for line in file.read_text().splitlines()]
    kinds = sorted(
        {(row["backbone"], row["shots"]) for row in rows},
        key=lambda kind: (kind[0], kind[1] or 10**9),
    )
    for backbone, shots in kinds:
        Console(width=110).print(
            _table(
                backbone,
                shots,
                [r for r in rows if (r["backbone"], r["shots"]) == (backbone, shots)],
            )
        )


def _table(backbone: str, shots: int, rows: list[dict[str, Any]]) -> Table:
    tasks = list(dict.fromkeys(row["task"] for row in rows))
    right: dict[str, dict[tuple[str, int], np.ndarray]] = defaultdict(dict)
    cpu = defaultdict(list)
    for row in rows:
        right[row["method"]][row["task"], row["seed"]] = np.array(
            [int(one) for one in row["right"]]
        )
        cpu[row["method"]].append(row["cpu_seconds"])
    seeds = len({row["seed"] for row in rows})
    many = f"{shots} per class" if shots else "all examples"
    table = Table(title=f"{backbone}, {many}: test accuracy in %, {seeds} draws")
    for head in ("", *tasks, "mean", "− probe (95 %)", "CPU-s"):
        table.add_column(head, justify="left" if not head else "right")
    for method, of in right.items():
        each = [[100 * of[key].mean() for key in of if key[0] == task] for task in tasks]
        cells = [f"{np.mean(some):.1f}" if some else "" for some in each]
        whole = f"{np.mean([np.mean(some) for some in each]):.1f}" if all(each) else ""
        table.add_row(
            method,
            *cells,
            whole,
            _difference(of, right[BASE], tasks),
            f"{np.mean(cpu[method]):.0f}",
        )
    return table


def _difference(of: dict, base: dict, tasks: list[str], draws: int = 2000) -> str:
    """Mean over tasks of the paired difference, with its interval: a bootstrap of the tasks'
    test examples (the same for all draws of training examples).
    """
    if of is base or of.keys() != base.keys():
        return ""
    generator, means = np.random.default_rng(0), []
    for task in tasks:
        gaps = np.mean([of[key] - base[key] for key in of if key[0] == task], axis=0)
        picks = generator.integers(len(gaps), size=(draws, len(gaps)))
        means.append(np.concatenate([[gaps.mean()], gaps[picks].mean(1)]))
    found = 100 * np.mean(means, axis=0)
    low, high = np.percentile(found[1:], (2.5, 97.5))
    return f"{found[0]:+.1f} ({low:+.1f} to {high:+.1f})"
