"""Labels that look wrong, for people: a list with the worst first, and what is said of them."""

from __future__ import annotations

import torch

from vpt.data import Examples
from vpt.runs.doubting import Doubts
from vpt.sites import Config

DOUBTED = 0.5  # a label that is believed less counts against its class
MOST = 100  # that are listed
SAID = 0.04  # the share of all labels from which on it is said
MOSTLY = 0.5  # of a class


def suspects(doubts: Doubts, examples: Examples) -> Config:
    """What is thought of the labels, in plain values.

    count: how many are denied, which look more like another class. expected: how many are wrong, by
        what is believed. examples: those that are denied, the least believed first, of equals those
        that harm others most. said: sentences for people. classes: of which most labels are
        doubted, with what they look like.
    """
    y = torch.tensor(examples.targets)
    believed = [round(value, 2) for value in doubts.right.tolist()]
    pull = doubts.pull.tolist()
    order = sorted(range(len(y)), key=lambda i: (believed[i], -pull[i]))
    listed = [i for i in order if int(doubts.likely[i]) != int(y[i])]
    names = examples.classes
    rows = [
        {
            "file": examples.name(i),
            "label": names[y[i]],
            "likely": names[int(doubts.likely[i])],
            "believed": believed[i],
            "pull": pull[i],
        }
        for i in listed[:MOST]
    ]
    found: Config = {
        "count": len(listed),
        "expected": float((1 - doubts.right).sum()),
        "n": len(y),
        "classes": _classes(doubts, y, names),
        "examples": rows,
    }
    return found | {"said": _said(found)}


def _classes(doubts: Doubts, y: torch.Tensor, names: list[str]) -> dict[str, str]:
    """Classes most of whose labels are doubted → the class that they look like."""
    found = {}
    for c, name in enumerate(names):
        own = doubts.right[y == c]
        if len(own) and float((own < DOUBTED).double().mean()) > MOSTLY:
            shares = doubts.shares[y == c].mean(0)
            shares[c] = 0
            found[name] = names[int(shares.argmax())]
    return found


def _said(found: Config) -> list[str]:
    said = [
        f"most labels of {name} look wrong: they look like {other}"
        for name, other in found["classes"].items()
    ]
    if found["count"] and found["count"] >= SAID * found["n"]:
        are = "label looks" if found["count"] == 1 else "labels look"
        said.append(
            f"{found['count']} of {found['n']} {are} wrong to what learned from the others; the"
            f" first is {found['examples'][0]['file']}, labelled {found['examples'][0]['label']},"
            f" like {found['examples'][0]['likely']}"
        )
    return said
