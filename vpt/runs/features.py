"""The short form: from data to a feature store, built ahead of any task."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch

from vpt.backbones import Backbone
from vpt.data import load_data, look
from vpt.runs.kept import keep
from vpt.runs.opening import opened
from vpt.runs.stored import stored


@dataclass(frozen=True)
class Built:
    """A feature store. inputs: that it has; new: that were not there before. bytes: of all of it.
    blocks: whose keys and values it has.
    """

    folder: Path
    inputs: int
    new: int
    bytes: int
    blocks: list[int]


def features(
    data: object,
    out: str | Path,
    backbone: str | Path | Backbone | torch.nn.Module | None = None,
    *,
    queries: bool = True,
    label: str | None = None,
    skip_bad: bool = False,
    progress: bool = True,
) -> Built:
    """Run a model once over data, and keep what its frozen blocks make of them: `vpt.adapt`,
    `vpt.audit` and `vpt.reprogram` then take it from there (store=…), whatever the labels.

    data: as for `vpt.load_data`.
    out: a folder; what a store there has already is not computed again.
    backbone: as for `vpt.adapt`.
    queries: whether keys and values are kept, too, which queries read, in half precision: nearly
        all of the place that a store takes.
    label, skip_bad: as for `vpt.load_data`.
    progress: whether to show how far it is.

    Raises `StoreError` for a folder that holds something else, or is of another model.
    """
    source = look(data, label) if isinstance(data, (str, Path)) else data
    with opened(backbone, source) as model, stored(out, model, source, queries) as store:
        loaded = load_data(
            source, model.inputs, label=label, skip_bad=skip_bad, progress=progress, test_share=0
        )
        before = len(store) if store is not None else 0
        for name, part in loaded.parts.items():
            keep(model, part, progress=progress, what=f"one pass over the {name} data")
    if model is not backbone:
        model.release()
    if store is None:
        raise TypeError("a store was named")
    return Built(Path(out), len(store), len(store) - before, store.size, store.blocks)
