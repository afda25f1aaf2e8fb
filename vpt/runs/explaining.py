"""Why a model says what it says: what each place of the input adds to the score of a class.

What queries read is a weighted mean of a block's values, and a linear readout adds up what they
read. So the score is a sum over places, queries, heads and blocks, and each addend can be named:
nothing is estimated.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor

from vpt.errors import PromptError
from vpt.errors.needs import whole
from vpt.model import PromptedModel
from vpt.prompts import Prompt, QueryTokens, Stack
from vpt.readouts import Average, Linear
from vpt.readouts.named import Named
from vpt.runs.grids import grid_of, shapes_of
from vpt.sites import Attended, Observe, Raw, Site


@dataclass(frozen=True)
class Explanation:
    """What each place adds to the score of a class, against the mean score of all classes.

    target: the class `[B]`. score: of it `[B]`; where probabilities are averaged, that of the part
        which reads queries. maps: of each place `[B,rows,columns]`; of sound,
        rows are frequencies (low ones first) and columns time, or there is one row. outside: what
        tokens without a place add `[B]` (the class token). rest: what no query read `[B]` (the
        bias, other features). parts: the same by block, query and head `[B,blocks,count,heads]`,
        without `rest` (0 where a block has fewer queries than another). queries: the same by block,
        query and place `[B,blocks,count,rows,columns]`, of which `maps` is the sum. attention: of
        each query to each place, the mean over heads `[B,blocks,count,rows,columns]`.

    score = maps.sum((1, 2)) + outside + rest.
    """

    target: Tensor
    score: Tensor
    maps: Tensor
    outside: Tensor
    rest: Tensor
    parts: Tensor
    queries: Tensor
    attention: Tensor


class _Watched(Prompt):
    """A prompt as it is, and observers beside it. It is never saved."""

    def __init__(self, prompt: Prompt, watch: list[Site]) -> None:
        super().__init__()
        self.prompt = prompt
        self.watch = watch
        self.train(prompt.training)

    def sites(self) -> tuple[Site, ...]:
        return (*self.prompt.sites(), *self.watch)

    @property
    def reads(self) -> int:
        return self.prompt.reads

    def read(self) -> Tensor:
        return self.prompt.read()

    def describe(self) -> str:
        return self.prompt.describe()


@torch.no_grad()
def explain(model: PromptedModel, x: Raw, target: Tensor | int | None = None) -> Explanation:
    """What each place of raw input adds to a class's score, exactly.

    model: whose linear readout reads queries, alone or beside other features. x: raw input of one
    or more examples, as for the model. target: the class, or one for each example `[B]`; by default
    what the model says. Raises `PromptError` for a model without such queries (`vpt.occlusion`
    explains any of pictures), and where its tokens have no places.
    """
    queries, readout, start = _readers(model)
    seen: dict[int, Attended] = {}
    watch: list[Site] = [
        Observe(block, attention=partial(seen.__setitem__, block)) for block in queries.blocks
    ]
    was = model.training
    model.eval()
    try:
        with shapes_of(model.backbone) as shapes, watching(model, watch):
            seen.clear()
            out = model.outputs(x)
    finally:
        model.train(was)
    scores = readout(out[:, start[0] : start[0] + readout.features])
    target = targets_of(model.readout(out), target)
    score = lead_of(scores, target)
    weight = (readout.weight[target] - readout.weight.mean(0)).detach()  # [B,F]
    unit, mean = torch.ones_like(weight[0]), torch.zeros_like(weight[0])
    if readout.standardised:
        unit, mean = readout.scale * readout.features**-0.5, readout.mean
    places, parts, attention = [], [], []
    at = start[1]
    for index, block in enumerate(queries.blocks):
        shares, values = _looks(queries.queries[index], seen[block], len(scores))
        heads, size = values.shape[1], values.shape[3]
        count = queries.counts[index]
        width = count * heads * size
        own = slice(at, at + width)
        at += width
        shape = (count, heads, size)
        w = (weight[:, own] * unit[own]).unflatten(1, shape)  # [B,M,H,d]
        pull = torch.einsum("bmhd,bhnd->bmhn", w, values)
        # what standardising subtracts is subtracted place by place, by how much each is looked at
        pull = pull - torch.einsum("bmhd,mhd->bmh", w, mean[own].view(shape))[..., None]
        adds = shares.transpose(1, 2) * pull  # [B,M,H,N]
        parts.append(_padded(adds.sum(3), queries.count))
        places.append(_padded(adds.sum(2), queries.count))  # [B,M,N]
        attention.append(_padded(shares.mean(1), queries.count))  # [B,M,N]
    each = torch.stack(places, 1)  # [B,blocks,M,N]
    total = each.sum((1, 2))
    grid, extra = grid_of(shapes, total.shape[1])
    by_query = each[..., extra:].unflatten(3, grid)
    outside = total[:, :extra].sum(1)
    looks = torch.stack(attention, 1)[..., extra:].unflatten(3, grid)
    rest = score - total.sum(1)
    by_head = torch.stack(parts, 1)
    maps = by_query.sum((1, 2))
    return Explanation(target, score, maps, outside, rest, by_head, by_query, looks)


def _padded(values: Tensor, count: int) -> Tensor:
    """`[B,M,…]` → `[B,count,…]`, with zeros behind."""
    missing = count - values.shape[1]
    return torch.cat([values, values.new_zeros(len(values), missing, *values.shape[2:])], 1)


def _readers(model: PromptedModel) -> tuple[QueryTokens, Linear, tuple[int, int]]:
    """The queries, the linear readout that reads them, where its features begin among those of the
    model's readout, and where what queries read begins among its own. Raises `PromptError`.
    """
    prompts = list(model.prompt.prompts) if isinstance(model.prompt, Stack) else [model.prompt]
    found = [prompt for prompt in prompts if isinstance(prompt, QueryTokens)]
    whole_readout = model.readout
    parts: list[Any] = (
        list(whole_readout.parts) if isinstance(whole_readout, Average) else [whole_readout]
    )
    begin = 0
    for part in parts:
        if isinstance(part, Linear) and part.named.queries and len(found) == 1:
            if found[0].through:
                break
            names = part.named.names
            before = names[: names.index("queries")]
            width = sum(Named(name).width(model.backbone, 0) for name in before)
            return found[0], part, (begin, width)
        begin += int(getattr(part, "features", 0))
    raise PromptError(
        f"Found {model.prompt.describe()} under {type(whole_readout).__name__}; needed are queries"
        " (queries:4, as --prompt auto may choose) whose attention a linear readout reads."
        " vpt.occlusion explains any model of pictures."
    )


def lead_of(scores: Tensor, target: Tensor) -> Tensor:
    """By how much classes `[B]` lead the mean of all, in scores `[B,C]`: what is explained."""
    return scores.gather(1, target[:, None])[:, 0] - scores.mean(1)


def queries_of(model: PromptedModel) -> QueryTokens:
    """The queries whose reading is explained. Raises `PromptError` for a model without any."""
    return _readers(model)[0]


def targets_of(scores: Tensor, target: Tensor | int | None) -> Tensor:
    """The classes that are explained `[B]`: those that were asked for, or the likeliest. Raises
    `PromptError` for a class that there is not.
    """
    count = scores.shape[1]
    if target is None:
        return scores.argmax(1)
    if isinstance(target, int):
        whole(PromptError, target=target, least=0, most=count - 1)
        return torch.full((len(scores),), target, device=scores.device)
    if target.shape != (len(scores),) or int(target.min()) < 0 or int(target.max()) >= count:
        raise PromptError(
            f"Found targets {target.tolist()[:8]}; needed is a class from 0 to {count - 1} for each"
            f" of {len(scores)} examples."
        )
    return target.to(scores.device)


@contextmanager
def watching(model: PromptedModel, watch: list[Site]) -> Iterator[None]:
    """Inside, observers stand beside the prompt."""
    prompt = model.prompt
    model.swap(_Watched(prompt, watch))
    try:
        yield
    finally:
        model.swap(prompt)


def _looks(queries: Tensor, seen: Attended, batch: int) -> tuple[Tensor, Tensor]:
    """How much each query of each head looks at each token `[B,H,M,N]`, and the values
    `[B,H,N,d]`. Raises `PromptError` where the block cuts windows.
    """
    if len(seen.keys) != batch:
        raise PromptError(
            "Found a model that cuts its tokens into windows, whose places are not told apart;"
            " vpt.occlusion explains it, if it takes pictures."
        )
    rows = seen.project(queries[None].to(seen.keys.dtype)).float()
    scale = seen.scale if seen.scale is not None else rows.shape[-1] ** -0.5
    scores = (rows * scale) @ seen.keys.float().mT
    if seen.valid is not None:
        scores = scores.masked_fill(~seen.valid, float("-inf"))
    return torch.softmax(scores, dim=-1), seen.values.float()
