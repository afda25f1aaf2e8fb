"""Whether sites fit a backbone: each is asked for its rows once, on an empty example."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from accelerate.utils import send_to_device
from torch import Tensor

from vpt.backbones.frozen import Frozen
from vpt.errors import PromptError
from vpt.sites import Attended, Bare, KeyValues, Observe, Pixels, Queries, Rows, Site, Tokens


@torch.no_grad()
def check_fit(backbone: Frozen, sites: Sequence[Site], recorded: Callable[[Tokens], bool]) -> None:
    """Raise `PromptError` for a site that the backbone cannot carry, or whose rows have another
    shape than it needs.

    recorded: whether a site of tokens will act as keys and values.
    """
    spans: list[Tokens] = []
    for site in sites:
        if isinstance(site, Bare):
            site.receive(torch.zeros(1, backbone.out_features, device=backbone.device))
    for site in sites:
        if isinstance(site, Pixels):
            _check_pixels(backbone, site)
        elif isinstance(site, Tokens):
            _check_tokens(backbone, site, recorded(site))
            if any(_cross(site, other) for other in spans):
                raise PromptError(
                    "Two token spans cross; needed are spans that contain one another or do not"
                    " meet."
                )
            spans.append(site)
        elif isinstance(site, KeyValues):
            _check_key_values(backbone, site)
        elif isinstance(site, Queries):
            _check_queries(backbone, site)
        elif isinstance(site, Observe):
            _check_observe(backbone, site)


def _check_pixels(backbone: Frozen, site: Pixels) -> None:
    backbone.reach.need_pixels()
    example, lengths = backbone.inputs.prepare(
        send_to_device(backbone.inputs.example(1), backbone.device)
    )
    try:
        shape = site.apply(example, lengths)[0].shape
    except RuntimeError as error:
        raise PromptError(
            f"A pixel prompt does not fit inputs of shape {list(example.shape)}: {error}"
        ) from error
    if shape != example.shape:
        raise PromptError(
            f"A pixel prompt gave {list(shape)} for inputs of shape {list(example.shape)}."
        )


def _check_tokens(backbone: Frozen, site: Tokens, recorded: bool) -> None:
    backbone.reach.need_tokens(site.first, site.last, recorded)
    if site.mixed:  # nothing is known yet but that attention must see who has what
        backbone.reach.need_attention(range(site.first, site.last + 1))
    width = backbone.blocks[site.first].width
    made = site.make(torch.zeros(1, 1, width, device=backbone.device))
    found = list((made.rows if isinstance(made, Rows) else made).shape)
    count = site.count if site.count is not None else found[1]
    if found != [found[0] if site.mixed else 1, count, width]:
        raise PromptError(
            f"Found prompt tokens {found} for block {site.first}, whose tokens have width {width};"
            f" needed are [1,{count},{width}]. Make the prompt for this backbone:"
            f" X.like(backbone, count={count})."
        )


def _check_key_values(backbone: Frozen, site: KeyValues) -> None:
    backbone.reach.need_blocks(site.block)
    backbone.reach.need_prefix([site.block])
    example = _one_key(backbone, site.block)
    keys, values, _ = site.make(example, example)
    if site.count is None:
        return
    needed = (example.shape[1], site.count, example.shape[3])
    if not tuple(keys.shape[1:]) == tuple(values.shape[1:]) == needed:
        raise PromptError(
            f"Found prefix keys {list(keys.shape)} and values {list(values.shape)} for block"
            f" {site.block}; needed are [1,{needed[0]},{needed[1]},{needed[2]}]."
        )


def _check_queries(backbone: Frozen, site: Queries) -> None:
    backbone.reach.need_queries([site.block], site.through)
    width = backbone.blocks[site.block].width
    found = list(site.make(torch.zeros(1, 1, width, device=backbone.device)).shape)
    count = site.count if site.count is not None else found[1]
    if found != [1, count, width]:
        raise PromptError(
            f"Found queries {found} for block {site.block}, whose tokens have width {width}; needed"
            f" are [1,{count},{width}]. Make the prompt for this backbone:"
            f" vpt.QueryTokens.like(backbone, count={count})."
        )


def _check_observe(backbone: Frozen, site: Observe) -> None:
    behind = site.block == backbone.depth and site.attention is None
    backbone.reach.need_blocks(site.block - behind)
    width = backbone.blocks[site.block - behind].width
    if site.tokens is not None:
        site.tokens(torch.zeros(1, 1, width, device=backbone.device))
    if site.summary is not None:
        site.summary(torch.zeros(1, 2, width, device=backbone.device))
    if site.attention is not None:
        backbone.reach.need_attention([site.block])
        example = _one_key(backbone, site.block)
        site.attention(Attended(example, example, None, lambda rows: example))


def _one_key(backbone: Frozen, block: int) -> Tensor:
    """Keys, or values, of one token in a block's attention, `[1,heads,1,head_dim]`."""
    heads, size = backbone.heads[block] or (0, 0)
    return torch.zeros(1, heads, 1, size, device=backbone.device)


def _cross(a: Tokens, b: Tokens) -> bool:
    a, b = sorted((a, b), key=lambda span: (span.first, -span.last))
    return b.first <= a.last < b.last
