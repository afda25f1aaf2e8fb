"""When a run keeps the activations before a prompt that begins late, and what it says about
that.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from vpt.backbones import Backbone, FeatureCache, cannot_skip, first_block
from vpt.model import PromptedModel
from vpt.sites import Site

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
    backbone, cache, keep = model.backbone, model.backbone.cache, model.backbone.queries.keep
    if when:
        backbone.cache, backbone.queries.keep = None, False
    try:
        yield
    finally:
        backbone.cache, backbone.queries.keep = cache, keep


def full(cache: FeatureCache) -> str:
    """That not all has a place."""
    return (
        f"{len(cache.kept)} inputs fit into {cache.budget / (1 << 30):g} GiB; the others are"
        " computed anew each time. cache='bf16' keeps twice as many."
    )
