"""How much is lost when queries have to be real tokens? Soft queries and hard ones on the same
draws.

python examples/hard_prompts/gap.py hands/ signs/ --backbone clip/ --shots 20 --seeds 3

A folder holds train/CLASS/FILE and test/CLASS/FILE. Each draw takes as many examples of each class;
on it soft queries are learned, and replaced by tokens of these examples in several ways. Unless a
row says "as it was", its classifier is fitted anew, its strength cross-validated, the same way for
all. One line of results.jsonl is one method on one draw; what stands there is not run again.

Where another backbone stands there with the same draw, its crops are tried, too: the tokens that
this backbone has at the same places of the same pictures. Agreement: how often two draws of a task
give the same answer to a test example.
"""

from __future__ import annotations

import argparse
import json
from collections import defaultdict
from collections.abc import Iterator
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor

import vpt
from vpt.data import read_parts
from vpt.runs.choosing import folds_of
from vpt.runs.grids import grid_for
from vpt.runs.hard.bank import ROWS, Bank
from vpt.runs.hard.search import Search
from vpt.runs.kept import Kept, keep
from vpt.runs.making import start_among
from vpt.runs.probe import fit_probe
from vpt.runs.querying import DECAY
from vpt.training.side_by_side import learn_side_by_side

SOFT = "soft"
BEST = "swaps from nearest"  # as vpt adapt does
BUDGET = 8 << 30  # bytes of keys and values
Rows = list[dict[str, Any]]


def ways(
    backbone: vpt.Backbone, examples: vpt.Examples, kept: Kept, bank: Bank, seed: int
) -> Iterator[tuple[str, list[Tensor], vpt.Linear | None, list[Tensor] | None]]:
    """(name, queries, their classifier or None: to be fitted, which rows of the bank they are)."""
    prompt = vpt.QueryTokens.like(backbone, 4)
    start_among(prompt, backbone, examples, seed)
    memories, y = kept.of_blocks(prompt.blocks), kept.y[kept.clips]
    folds, classes = folds_of(examples, seed), len(examples.classes)
    search = Search(memories, bank, kept, folds, classes)
    start, shares = list(prompt.queries), torch.ones(1, len(y))

    def learn(**given: Any) -> tuple[list[Tensor], vpt.Linear]:
        found = learn_side_by_side(
            memories, start, y, shares, classes, decay=DECAY, seed=seed, **given
        )
        return [rows[0].cpu() for rows in found.queries], found.into(prompt, examples.classes)

    soft, head = learn()
    yield f"{SOFT}, as it was", soft, head, None
    yield SOFT, soft, None, None
    near = search.project(soft)
    yield "nearest rows, as it was", search.rows(near), head, near
    yield "nearest rows", search.rows(near), None, near
    held, _ = learn(snap=search.snap)
    pez = search.project(held)
    yield "projected gradient (PEZ)", search.rows(pez), None, pez
    yield "swaps from nearest", search.rows(swapped := search.flip(near)), None, swapped
    yield "swaps from PEZ", search.rows(swapped := search.flip(pez)), None, swapped
    generator = torch.Generator().manual_seed(seed)
    chance = [torch.randperm(len(rows), generator=generator)[: prompt.count] for rows in bank.rows]
    yield "random rows", search.rows(chance), None, chance


Places = list[list[tuple[int, float, float]]]  # of each query: example, height and width


def places_of(rows: list[Tensor], bank: Bank, grid: tuple[int, int]) -> Places:
    """Where the rows of a bank are from, as shares of a picture's sides."""
    found = []
    for own in rows:
        at = [(int(bank.inputs[r]), divmod(int(bank.places[r]), grid[1])) for r in own]
        found.append([(i, (y + 0.5) / grid[0], (x + 0.5) / grid[1]) for i, (y, x) in at])
    return found


def tokens_at(
    backbone: vpt.Backbone,
    examples: vpt.Examples,
    places: Places,
    grid: tuple[int, int],
    extra: int,
) -> list[Tensor]:
    """This backbone's own tokens at those places, before the blocks that it reads."""
    rows = []
    for block, own in zip(vpt.QueryTokens.like(backbone, 4).blocks, places, strict=True):
        x = torch.stack([examples[i][0] for i, _, _ in own])
        at = [int(y * grid[0]) * grid[1] + int(x * grid[1]) + extra for _, y, x in own]
        rows.append(backbone.record(x)[block]["tokens"][torch.arange(len(own)), at])
    return rows


def measured(
    backbone: vpt.Backbone,
    task: Path,
    shots: int,
    seeds: list[int],
    others: dict[tuple[str, int], Places],
) -> Iterator[Rows]:
    """Accuracies of each way on each draw. others: by backbone and seed, whose crops are tried."""
    parts = {part: read_parts(task, backbone.inputs, part) for part in ("train", "test")}
    blocks = vpt.QueryTokens.like(backbone, 4).blocks
    most = shots * len(parts["train"].classes)
    each = -(-ROWS // most)
    kept = {
        part: keep(backbone, some, blocks=blocks, each=each, budget=BUDGET, what=part)
        for part, some in parts.items()
    }
    grid, extra = grid_for(
        backbone, parts["train"], kept["train"].memories[blocks[0]].keys.shape[3]
    )
    test = kept["test"]
    for seed in seeds:
        y, generator = np.array(parts["train"].targets), np.random.default_rng(seed)
        order = [generator.permutation(np.flatnonzero(y == c)) for c in np.unique(y)]
        chosen = sorted(int(i) for own in order for i in own[:shots])
        examples, some = parts["train"].subset(chosen), kept["train"].take(chosen)
        probe = fit_probe(some.of_examples(some.features), some.y, examples.classes)[0]
        rows: Rows = [{"method": "linear probe", **right(probe, test.features, test)}]
        reader = vpt.QueryTokens.like(backbone, 4)
        bank = Bank.of(some, blocks, extra, reader.count)
        tried = list(ways(backbone, examples, some, bank, seed))
        for (name, other), places in others.items():
            if other == seed:
                rows_there = tokens_at(backbone, examples, places, grid, extra)
                tried.append((f"crops of {name}", rows_there, None, None))
        for method, queries, head, taken in tried:
            with torch.no_grad():
                for own, new in zip(reader.queries, queries, strict=True):
                    own.copy_(new)
            if head is None:
                read = some.with_read(reader).read
                assert read is not None
                head = fit_probe(some.of_examples(read), some.y, examples.classes, of="queries")[0]
            row = {"method": method, **right(head, test.with_read(reader).read, test)}
            if taken is not None:
                row["places"] = places_of(taken, bank, grid)
            rows.append(row)
        yield [{"seed": seed, "shots": shots, **row} for row in rows]


def right(head: vpt.Linear, features: Tensor | None, test: Kept) -> dict[str, Any]:
    """What a classifier says of test examples, from features of each input, and its accuracy."""
    assert features is not None
    with torch.no_grad():
        answers = test.of_examples(head(features)).argmax(1)
    accuracy = float((answers == test.y).double().mean())
    return {"accuracy": accuracy, "answers": answers.tolist()}


def table_of(rows: Rows) -> Table:
    """Means over draws by task, their mean, and the paired difference from soft queries."""
    found: dict[str, dict[tuple[str, str, int], float]] = defaultdict(dict)
    for row in rows:
        found[row["method"]][row["backbone"], row["task"], row["seed"]] = 100 * row["accuracy"]
    kinds = list(dict.fromkeys((row["backbone"], row["task"]) for row in rows))
    heads = [f"{task}\n{backbone}" for backbone, task in kinds]
    table = Table("queries", *heads, "mean", f"− {SOFT}", "agreement")
    for method, own in found.items():
        each = [[v for at, v in own.items() if at[:2] == kind] for kind in kinds]
        means = [f"{np.mean(some):.1f}" if some else "" for some in each]
        mean = f"{np.mean([np.mean(some) for some in each]):.1f}" if all(each) else ""
        gaps = np.array([value - found[SOFT][at] for at, value in own.items()])
        half = 1.96 * gaps.std(ddof=1) / len(gaps) ** 0.5 if len(gaps) > 1 else 0.0
        gap = "" if method == SOFT else f"{gaps.mean():+.1f} ± {half:.1f}"
        table.add_row(method, *means, mean, gap, agreement(rows, method))
    return table


def agreement(rows: Rows, method: str) -> str:
    """How often two draws of a task give the same answer to a test example."""
    own = [row for row in rows if row["method"] == method]
    shares = [
        np.mean(np.array(one["answers"]) == other["answers"])
        for one, other in combinations(own, 2)
        if (one["backbone"], one["task"]) == (other["backbone"], other["task"])
    ]
    return f"{np.mean(shares):.0%}" if shares else ""


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folders", nargs="+", type=Path)
    parser.add_argument("--backbone", default="vpt:vit-p8-64")
    parser.add_argument("--shots", type=int, default=20)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--out", type=Path, default=Path("runs/hard"))
    options = parser.parse_args(argv)
    name, file = Path(options.backbone).name, options.out / "results.jsonl"
    options.out.mkdir(parents=True, exist_ok=True)
    rows = [json.loads(line) for line in file.read_text().splitlines()] if file.is_file() else []
    done = {(row["backbone"], row["task"], row["seed"]) for row in rows}
    backbone = vpt.load_backbone(options.backbone)
    for folder in options.folders:
        where = {"backbone": name, "task": folder.name}
        left = [s for s in range(options.seeds) if (name, folder.name, s) not in done]
        others = {
            (row["backbone"], row["seed"]): row["places"]
            for row in rows
            if row["method"] == BEST and row["task"] == folder.name and row["backbone"] != name
        }
        for found in measured(backbone, folder, options.shots, left, others) if left else ():
            lines = [where | row for row in found]
            rows += lines
            with file.open("a") as out:
                out.writelines(json.dumps(line) + "\n" for line in lines)
            print(folder.name, *(f"{r['method']} {r['accuracy']:.1%}" for r in lines), sep=" · ")
    Console(width=160).print(table_of(rows))


if __name__ == "__main__":
    main()
