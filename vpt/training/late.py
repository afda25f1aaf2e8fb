"""When a run keeps the activations before a prompt that begins late, and what it says about
that.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import chain

import torch
from accelerate import Accelerator
from torch.utils.data import DataLoader

from vpt.backbones import Backbone, FeatureCache, cannot_skip, first_block
from vpt.data import Examples
from vpt.model import PromptedModel
from vpt.report.progress import progress_bar
from vpt.sites import Site
from vpt.training.evaluation import Batch, tasks_of

GIGABYTES = 2.0
UNSTEADY = (
    "The training examples are not the same when they are read again (the data set changes them at"
    " random): nothing is kept of them."
)
Say = Callable[[str], None]


@contextmanager
def late_features(
    backbone: Backbone, sites: tuple[Site, ...], how: str, say: Say, gigabytes: float = GIGABYTES
) -> Iterator[None]:
    """Inside, what enters the first prompted block is computed once per input and kept, where that
    block is not the first.

    sites: of the prompt, which need not be attached; one that is must be in eval mode.

    how: "auto", "bf16" (kept in half the memory, rounded) or "off". gigabytes: how much may be
        kept. say: is told what is done. Nothing happens where a cache is at work already, or where
        the prompt acts on the input or from block 0 on.
    """
    first = first_block(sites)
    if how == "off" or first == 0 or backbone.cache is not None:
        yield
        return
    cache = FeatureCache(backbone, first, budget=int(gigabytes * (1 << 30)), half=how == "bf16")
    if (reason := cannot_skip(backbone, cache)) is not None:
        say(
            f"The prompt begins at block {first} of {backbone.depth}, but what enters it is not"
            f" kept: {reason}."
        )
        yield
        return
    say(
        f"The prompt begins at block {first} of {backbone.depth}: what enters it is computed once"
        f" for each input and kept (up to {gigabytes:g} GiB; cache='off' keeps nothing)."
    )
    backbone.cache = cache
    try:
        yield
    finally:
        backbone.cache = None


@contextmanager
def without_cache(model: PromptedModel, when: bool = True) -> Iterator[None]:
    """Inside, nothing is looked up or kept: for inputs that are never the same twice."""
    backbone, cache, keep = model.backbone, model.backbone.cache, model.backbone.bare_features.keep
    if when:
        backbone.cache, backbone.bare_features.keep = None, False
    try:
        yield
    finally:
        backbone.cache, backbone.bare_features.keep = cache, keep


@torch.no_grad()
def fill_cache(
    model: PromptedModel,
    train: Examples,
    accelerator: Accelerator,
    workers: int,
    shown: bool,
    say: Say,
) -> bool:
    """Compute what is kept of the training examples, in their order, so that it is the same after a
    kill. Returns whether they are the same when they are read again.

    model: with its cache, or with a prompt that asks the bare model.
    train: the training examples.
    accelerator: on which it is computed.
    workers: processes that read and prepare the data.
    shown: whether it is shown how far it is.
    say: is told what is not kept.
    """
    cache = model.backbone.cache
    if cache is None and not model.attachment.wants_bare:
        return True
    what = "what the bare model makes of the data"
    if cache is not None:
        what = "what enters the first prompted block"
    loaders = [
        DataLoader(view.windows()[0], batch_size=64, num_workers=workers) for view in train.views()
    ]

    def look_at(batch: Batch) -> None:
        with model.asked(tasks_of(model, batch)):
            model.outputs(batch[0])

    with progress_bar(shown) as bar, accelerator.autocast():
        task = bar.add_task(what, total=sum(map(len, loaders)))
        for batch in chain.from_iterable(loaders):
            look_at(batch)
            bar.advance(task)
        if cache is None:
            return True
        hits = cache.hits
        look_at(next(iter(loaders[0])))  # once more
    if cache.hits == hits and cache.kept:
        cache.clear()
        say(UNSTEADY)
        return False
    if cache.full:
        say(_full_notice(cache))
    return True


def _full_notice(cache: FeatureCache) -> str:
    """That not all has a place."""
    return (
        f"{len(cache.kept)} inputs fit into {cache.budget / (1 << 30):g} GiB; the others are"
        " computed anew each time. cache='bf16' keeps twice as many."
    )
