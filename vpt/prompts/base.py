"""What every prompt is: a small module that says where it acts, and how to build it again."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal, get_args

import torch
from torch import Tensor, nn

from vpt.errors import PromptError
from vpt.errors.needs import whole
from vpt.sites import BackboneLike, Config, Raw, Site

Init = Literal["uniform", "zeros", "data", "means"]
FROM_EXAMPLES = ("data", "means")
MEANS = 64  # tokens of which each row is the mean, with init="means"
MOST = 4096  # tokens of a prompt: attention over more would exhaust the memory before it says so


class Prompt(nn.Module):
    """A learned prompt. `type(self)(**self.config())` rebuilds it; its state dict holds what was
    learned.

    selects: whether the input decides which of its parts act, so that on a given batch some may
        not. task_names: names of the tasks among which each sample's must be told; empty for
        prompts that ask nothing.
    """

    selects = False

    @property
    def task_names(self) -> list[str]:
        """Names of the tasks among which each sample's must be told."""
        return []

    def sites(self) -> tuple[Site, ...]:
        """Where the prompt acts."""
        return ()

    def config(self) -> Config:
        """Plain values (numbers, strings, lists) that rebuild an untrained prompt of the same
        shape.
        """
        return {}

    @classmethod
    def rebuild(cls, config: Config) -> Prompt:
        """An untrained prompt of the same shape, from what `config` gave."""
        return cls(**config)

    @classmethod
    def like(cls, backbone: BackboneLike) -> Prompt:
        """A prompt that suits a backbone. Each form says here which words it takes, `seed` and
        `blocks` among them where it has any.
        """
        raise PromptError(f"{cls.__name__} cannot be made for a backbone from text.")

    def describe(self) -> str:
        """One line for people: what it is and where it acts."""
        return type(self).__name__ if type(self) is not Prompt else "none: the model as it is"

    @property
    def reads(self) -> int:
        """How many numbers it reads of the blocks for each example; 0 for prompts that only act."""
        return 0

    def read(self) -> Tensor:
        """What it read in the forward that has just run `[B,reads]`. Raises `PromptError` where
        there was none.
        """
        raise PromptError(f"{type(self).__name__} reads nothing.")

    def penalty(self) -> Tensor | None:
        """What `fit` adds to the loss for the batch that was just seen: a scalar, or None."""
        return None

    def start_from(self, backbone: BackboneLike, examples: Raw, seed: int = 0) -> None:
        """Begin at what the backbone itself makes of `examples` (raw input), bare; nothing for
        forms that act on the input.
        """

    def grow(self, seed: int = 0) -> None:
        """Get ready for the next task of a sequence: prompts with parts per task get new ones, and
        the older learn no more.
        """


def vpt_bound(patch_dim: int, width: int) -> float:
    """v of VPT's initialisation U(−v, v), v = √(6 / (C·ph·pw + D)) (Jia et al. 2022, as in their
    code).
    """
    return math.sqrt(6 / (patch_dim + width))


def choose_blocks(blocks: Sequence[int] | Literal["all"], depth: int) -> list[int]:
    """The block numbers meant by `blocks`, in order, checked against `depth`. Raises
    `PromptError`.
    """
    chosen = list(range(depth)) if blocks == "all" else sorted(int(b) for b in blocks)
    if not chosen or len(set(chosen)) < len(chosen) or chosen[0] < 0 or chosen[-1] >= depth:
        raise PromptError(
            f"Found blocks={blocks!r}; needed are different numbers from 0 to {depth - 1}, or"
            " 'all'."
        )
    return chosen


def head_sizes(
    heads: int | Sequence[int], head_dim: int | Sequence[int], blocks: Sequence[int]
) -> list[tuple[int, int]]:
    """(heads, head_dim) of each block, from one of each for all or a list. Raises `PromptError`."""
    whole(PromptError, blocks=len(blocks))
    sizes = [
        [size] * len(blocks) if isinstance(size, int) else list(size) for size in (heads, head_dim)
    ]
    if any(len(size) != len(blocks) for size in sizes):
        raise PromptError(
            f"Found heads={heads}, head_dim={head_dim} for {len(blocks)} blocks; needed is one of"
            " each per block."
        )
    for number, size in zip(*sizes, strict=True):
        whole(PromptError, heads=number, head_dim=size)
    return list(zip(*sizes, strict=True))


def heads_of(backbone: BackboneLike, blocks: Sequence[int]) -> Config:
    """`heads` and `head_dim` of these blocks' attention, one of each where all are alike. Raises
    `PromptError`.
    """
    backbone.reach.need_prefix(blocks)
    sizes = [size for i in blocks if (size := backbone.heads[i]) is not None]
    heads, head_dim = [one for one, _ in sizes], [one for _, one in sizes]
    if len(set(sizes)) == 1:
        return {"heads": heads[0], "head_dim": head_dim[0]}
    return {"heads": heads, "head_dim": head_dim}


def recorded_for(
    init: str, backbone: BackboneLike, examples: Raw | None
) -> list[dict[str, Tensor]] | None:
    """What each block sees on `examples`, for an `init` that draws from it; None for the others.
    Raises `PromptError` for an unknown initialisation, or for "data" or "means" without examples.
    """
    if init not in get_args(Init):
        raise PromptError(f"Found init={init!r}; needed is 'uniform', 'zeros', 'data' or 'means'.")
    if init not in FROM_EXAMPLES:
        return None
    if examples is None:
        raise PromptError(
            f"init={init!r} draws rows from the backbone's own tokens: pass examples=raw_inputs (a"
            " batch)."
        )
    return backbone.record(examples)


def draw_rows(rows: Tensor, count: int, seed: int, init: str = "data") -> Tensor:
    """`count` rows `[count, …]` from `rows` `[n, …]`: drawn without replacement where there are
    enough, or, for init="means", each the mean of 64 drawn ones.

    A token of an example carries what that example says: on a keyword transformer a probe under
    five of them was 14 points worse on speakers it had not heard, which validation on the same
    speakers does not show. A mean says nothing, and is no stranger.
    """
    generator = torch.Generator().manual_seed(seed)
    if init == "means":
        picked = torch.randint(len(rows), (count, MEANS), generator=generator)
        return rows[picked.to(rows.device)].float().mean(1)
    if len(rows) >= count:
        picked = torch.randperm(len(rows), generator=generator)[:count]
    else:
        picked = torch.randint(len(rows), (count,), generator=generator)
    return rows[picked.to(rows.device)].float()


def learned_rows(
    count: int | Sequence[int], widths: Sequence[int]
) -> nn.Parameter | nn.ParameterList:
    """Rows `[blocks,count,width]` drawn as VPT does, or a list of `[count,width]` where these
    differ.
    """
    counts = [count] * len(widths) if isinstance(count, int) else count
    rows = [
        torch.empty(n, w).uniform_(-vpt_bound(w, w), vpt_bound(w, w))
        for n, w in zip(counts, widths, strict=True)
    ]
    same = len({row.shape for row in rows}) == 1
    return nn.Parameter(torch.stack(rows)) if same else nn.ParameterList(rows)


@torch.no_grad()
def fill_rows(
    tokens: list[Tensor],
    blocks: list[int],
    backbone: BackboneLike,
    init: Init,
    examples: Raw | None,
    seed: int,
) -> None:
    """Initialise each block's tokens `[count, D]` in place as `init` says (Wang et al. 2024, SPT,
    for "data").
    """
    recorded = recorded_for(init, backbone, examples)
    generator = torch.Generator().manual_seed(seed)
    for i, (rows, block) in enumerate(zip(tokens, blocks, strict=True)):
        if recorded is not None:
            rows.copy_(
                draw_rows(recorded[block]["tokens"].flatten(0, 1), len(rows), seed + i, init)
            )
        elif init == "zeros":
            rows.zero_()
        else:
            bound = vpt_bound(backbone.patch_dim, rows.shape[1])
            rows.copy_((torch.rand(rows.shape, generator=generator) * 2 - 1) * bound)
