"""What a run got wrong, from its answers: examples worth a look, classes taken for each other, how
sure it was.
"""

from __future__ import annotations

from collections import Counter
from pathlib import Path

from vpt.report import charts
from vpt.runs.showing import Show
from vpt.sites import Config

MOST = 12  # examples shown of a kind
MATRIX = 20  # classes of a matrix that can still be read
BINS = 10
SURE = 0.95  # from which a label that is denied is worth a look

Row = dict[str, str]  # of predictions.csv


def groups(
    shown: list[Row], rows: list[Row], show: Show, suspects: Config | None = None
) -> tuple[list[Config], bool]:
    """Examples worth a look, with pictures; and whether some could not be shown.

    shown: answers of the part that the page is about. rows: of all parts. show: how an example
        looks, by name. suspects: labels that look wrong (`vpt.runs.suspects`), where that is known.
    """

    def sure(row: Row) -> float:
        return float(row["probability"])

    wrong = sorted((row for row in shown if row["answer"] != row["label"]), key=sure, reverse=True)
    right = sorted((row for row in shown if row["answer"] == row["label"]), key=sure)
    if suspects is None:
        denied = [
            row
            for row in rows
            if row["part"] == "out_of_fold" and row["answer"] != row["label"] and sure(row) >= SURE
        ]
        doubtful = sorted(denied, key=sure, reverse=True)
    else:
        doubtful = [_suspect(one) for one in suspects["examples"]]
    kinds = [
        ("The surest mistakes", "", wrong),
        ("Right, but least sure", "", right),
        (
            "Labels to look at",
            "Examples whose label is denied by what learned from the others, the least believed"
            " first: the label may be wrong, or the example odd.",
            doubtful,
        ),
    ]
    found: list[Config] = [
        {"title": title, "note": note, "examples": [_item(row, show) for row in some[:MOST]]}
        for title, note, some in kinds
    ]
    items = [item for group in found for item in group["examples"]]
    return found, any(not item["picture"] for item in items)


def _suspect(one: Config) -> Row:
    """A label that looks wrong, as a row of answers."""
    believed = f"{one['believed']:.4f}"
    return {
        "part": "out_of_fold",
        "file": one["file"],
        "label": one["label"],
        "answer": one["likely"],
        "probability": f"{1 - one['believed']:.4f}",
        "probability of label": believed,
    }


def _item(row: Row, show: Show) -> Config:
    seen = show(row["part"], row["file"])
    return {
        "file": row["file"],
        "picture": seen.picture if seen else "",
        "sound": seen.sound if seen else "",
        "alt": f"{Path(row['file']).name}: answered {row['answer']}, labelled {row['label']}",
        "answer": row["answer"],
        "label": row["label"],
        "probability": f"{float(row['probability']):.0%}",
        "of_label": f"{float(row['probability of label']):.0%}",
    }


def alike(shown: list[Row]) -> list[Config]:
    """The classes that are most often taken for each other."""
    pairs = Counter(
        tuple(sorted((row["label"], row["answer"])))
        for row in shown
        if row["answer"] != row["label"]
    )
    return [
        {"text": f"{one} and {other} ({count})"} for (one, other), count in pairs.most_common(5)
    ]


def matrix(shown: list[Row], classes: list[str]) -> Config | None:
    """How often each class is taken for each; of many classes, those with most mistakes."""
    if not shown or len(classes) < 2:
        return None
    counts = Counter((row["label"], row["answer"]) for row in shown)
    others = {row["answer"] for row in shown} - set(classes)  # that only the model has
    classes = [*classes, *sorted(others)]
    caption = "Numbers of examples; the darker, the larger the share of the row."
    if len(classes) > MATRIX:
        wrong = Counter(row["label"] for row in shown if row["answer"] != row["label"])
        some = {name for name, _ in wrong.most_common(MATRIX)}
        caption += f" Of {len(classes)} classes, the {len(some)} with most mistakes."
        classes = [name for name in classes if name in some]
    rows = []
    for label in classes:
        total = sum(n for (own, _), n in counts.items() if own == label)
        cells = [
            {
                "n": counts[label, said],
                "share": f"{counts[label, said] / total if total else 0:.2f}",
                "kind": "right" if said == label else "wrong",
            }
            for said in classes
        ]
        rows.append({"name": label, "cells": cells})
    return {"classes": classes, "rows": rows, "caption": caption} if classes else None


def classes(counts: Config, scored: Config) -> list[Config]:
    """Accuracy of each class, the worst first, and how many examples each part has."""
    right, n = scored.get("per_class", {}), scored.get("per_class_n", {})
    order = sorted(counts, key=lambda name: right.get(name, 2.0))
    return [
        {
            "name": name,
            "right": f"{right[name]:.0%}" if name in right else "–",
            "n": n.get(name, 0),
            "counts": list(counts[name].values()),
        }
        for name in order
    ]


def reliability(shown: list[Row]) -> str | None:
    """How often it is right by how sure it is, drawn; None of no answers."""
    bins: dict[int, list[tuple[float, bool]]] = {}
    for row in shown:
        sure = float(row["probability"])
        bins.setdefault(min(int(sure * BINS), BINS - 1), []).append(
            (sure, row["answer"] == row["label"])
        )
    if not bins:
        return None
    points = [
        (sum(s for s, _ in some) / len(some), sum(r for _, r in some) / len(some), len(some))
        for _, some in sorted(bins.items())
    ]
    return charts.reliability(points, "how sure it is, and how often right")
