"""How well a backbone transfers: nearest class mean, linear probe, and a prompt or what "auto"
chooses, on few examples, mean ± std over seeds.

python examples/measure/transfer.py digits cifar10.zip mnist.zip --shots 5 20 100
python examples/measure/transfer.py fsdd.zip --apart "_([a-z]+)_" --backbones vpt:ast-tiny

DATA is a folder or zip archive (class/file or split/class/file), or `digits` for scikit-learn's. A
backbone is any name that vpt opens, with @WEIGHTS (a file, or random) behind it if others are
meant; kwt1@FOLDER is the published keyword transformer. --apart: what this expression's first group
finds in a file's name (a speaker) is either tested, or learned from; a third of them is tested, by
turns, and nobody is on both sides of a fold. Every result is kept in --out, so that a run that was
stopped goes on, and another backbone adds to the table.
"""

from __future__ import annotations

import argparse
import json
import random
import re
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

import vpt
from vpt.data import Data, Examples, few_shot, hold_out, read_parts
from vpt.demo.shows import all_digits
from vpt.metrics.classification import mean_std

METHODS = ("nearest_mean", "linear_probe", "prompted")


def open_backbone(name: str) -> vpt.Backbone:
    """A name, with @weights or without."""
    source, _, weights = name.partition("@")
    if source == "kwt1":
        from kwt import load

        return load(weights)
    return vpt.load_backbone(source, weights=weights or "pretrained")


def open_data(name: str, inputs: Any) -> dict[str, Examples]:
    """The parts of a data set: train, and test where it has one."""
    if name == "digits":
        return {"train": all_digits(inputs)}
    train = read_parts(Path(name), inputs, "train")
    try:
        test = read_parts(Path(name), inputs, "test")
    except vpt.errors.DataError:
        return {"train": train}
    # without parts, all is in both
    return {"train": train} if test.name(0) == train.name(0) else {"train": train, "test": test}


def split(
    parts: dict[str, Examples],
    shots: int,
    seed: int,
    apart: str | None,
    last: int | None,
    tested: int,
) -> Data:
    """`shots` of each class to learn from, a fifth of them to validate; all else, or the parts kept
    apart, to test.
    """
    parts = {k: _last_classes(part, last) for k, part in parts.items()} if last else parts
    pool, test = parts["train"], parts.get("test")
    if apart is not None:
        found = [re.search(apart, Path(pool.name(i)).name) for i in range(len(pool))]
        if not all(match and match.groups() for match in found):
            name = next(
                pool.name(i) for i, match in enumerate(found) if not (match and match.groups())
            )
            raise SystemExit(
                f"--apart {apart!r} finds no group in {name}; needed is an expression with one"
                " group, in brackets."
            )
        whose = [match.group(1) for match in found]
        everyone = sorted(set(whose))
        pool = _apart(pool, [everyone.index(who) for who in whose])
        # three seeds test every third in turn; then they are drawn anew
        turns, count = 3, max(1, len(everyone) // 3)
        random.Random(seed // turns).shuffle(everyone)
        held = set(everyone[seed % turns * count :][:count])
        test = pool.subset([i for i, who in enumerate(whose) if who in held])
        pool = pool.subset([i for i, who in enumerate(whose) if who not in held])
    labelled = few_shot(pool, shots, seed)
    if test is None:
        chosen = set(labelled.indices)
        rest = [i for i in range(len(pool)) if pool.indices[i] not in chosen]
        test = pool.subset(sorted(random.Random(seed).sample(rest, min(tested, len(rest)))))
    train, val = hold_out(labelled, 0.2, seed)
    return Data(train, val, test, pool.classes, [])


def _apart(examples: Examples, whose: list[int]) -> Examples:
    """The same, of whom nobody is on both sides when some are held out."""
    units = [0] * len(examples.labels)
    for index, who in zip(examples.indices, whose, strict=True):
        units[index] = who
    return Examples(
        examples.get,
        examples.labels,
        examples.classes,
        names=examples.names,
        sample_rate=examples.sample_rate,
        indices=examples.indices,
        units=units,
        apart="speaker",
    )


def _last_classes(examples: Examples, count: int) -> Examples:
    keep, first = examples.classes[-count:], len(examples.classes) - count
    return Examples(
        examples.get,
        [max(label - first, 0) for label in examples.labels],
        keep,
        names=examples.names,
        sample_rate=examples.sample_rate,
        indices=[i for i in examples.indices if examples.labels[i] >= first],
    )


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("data", nargs="+")
    parser.add_argument("--backbones", nargs="+", default=["vpt:vit-p8-64"])
    parser.add_argument(
        "--shots",
        type=int,
        nargs="+",
        default=[5, 20, 100],
        help="of each class; a fifth of them validates a prompt that is named",
    )
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--prompt", default="auto")
    parser.add_argument("--epochs", type=int, default=10, help="of a prompt that is named")
    parser.add_argument("--precision", default="no", help="of its training")
    parser.add_argument(
        "--apart", help="expression whose first group finds the speaker in a file's name"
    )
    parser.add_argument("--last", type=int, help="only this many classes, the last ones")
    parser.add_argument(
        "--tested", type=int, default=1000, help="at most so many where the data have no test split"
    )
    parser.add_argument("--out", type=Path, default=Path("runs/transfer.jsonl"))
    options = parser.parse_args(argv)
    options.out.parent.mkdir(parents=True, exist_ok=True)
    known = (
        [json.loads(line) for line in options.out.read_text(encoding="utf-8").splitlines()]
        if options.out.exists()
        else []
    )
    settings = {
        k: v
        for k, v in vars(options).items()
        if k in ("prompt", "epochs", "precision", "apart", "last", "tested")
    }
    console = Console()
    for name in options.data:
        table = Table("backbone", "per class", "nearest mean", "linear probe", options.prompt)
        table.title = f"{Path(name).stem}, {options.seeds} seeds"
        for opened in options.backbones:
            backbone = open_backbone(opened)
            size = Path(name).stat().st_size if Path(name).is_file() else 0
            facts = {
                "data": name,
                "bytes": size,
                "backbone": opened,
                "weights": backbone.fingerprint()[:16],
            } | settings
            parts = None
            for shots in options.shots:
                rows = []
                for seed in range(options.seeds):
                    key = facts | {"shots": shots, "seed": seed}
                    row = next((r for r in known if r.items() >= key.items()), None)
                    if row is None:
                        parts = parts or open_data(name, backbone.inputs)
                        data = split(
                            parts, shots, seed, options.apart, options.last, options.tested
                        )
                        row = key | measure(data, backbone, seed, options)
                        with options.out.open("a", encoding="utf-8") as file:
                            file.write(json.dumps(row) + "\n")
                        print(
                            name,
                            opened,
                            shots,
                            seed,
                            *(f"{m} {row[m]:.1%}" for m in METHODS),
                            flush=True,
                        )
                    rows.append(row)
                cells = ("{:.1%} ± {:.1%}".format(*mean_std([r[m] for r in rows])) for m in METHODS)
                table.add_row(opened, str(shots), *cells)
        console.print(table)


def measure(
    data: Data, backbone: vpt.Backbone, seed: int, options: argparse.Namespace
) -> dict[str, float]:
    """Test accuracy of each method on one split."""
    how = {"epochs": options.epochs, "precision": options.precision}
    how = {} if options.prompt == "auto" else how
    result = vpt.adapt(data, backbone, options.prompt, seed=seed, progress=False, **how)
    result.model.close()
    report = result.metrics
    return {name: value["test"] for name, value in report["baselines"].items()} | {
        "prompted": report["test_accuracy"]
    }


if __name__ == "__main__":
    try:
        main()
    except vpt.errors.VptError as error:
        raise SystemExit(str(error)) from None
