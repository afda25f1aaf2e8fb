"""What one pass of the bare model over examples leaves: features, sums of every block, and the keys
and values of some.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial

import torch
from torch import Tensor
from torch.utils.data import DataLoader

from vpt.backbones import Backbone
from vpt.data import Examples
from vpt.prompts import Prompt
from vpt.readouts.named import Named
from vpt.report.progress import progress_bar
from vpt.sites import Attended, Observe, Site
from vpt.training.evaluation import accelerator_in
from vpt.training.side_by_side import Memory

BUDGET = 2 << 30  # bytes of keys and values


@dataclass
class Kept:
    """Of n inputs, which are the windows of some examples, in order.

    y: labels of the examples `[m]`. clips: which example each input is of `[n]`. features: the
        model's own `[n,D]`. sums: of the tokens before each block, and behind the last,
        `[n,2,D]`. read: what a prompt's queries read `[n,Q]`, if one was there. memories: of the
        blocks that were asked for, by number; empty where they have no place. full: whether they
        had none.
    """

    y: Tensor
    clips: Tensor
    features: Tensor
    sums: dict[int, Tensor]
    read: Tensor | None = None
    memories: dict[int, Memory] = field(default_factory=dict)
    full: bool = False

    def named(self, text: str, backbone: Backbone) -> Tensor:
        """Features by name, `[n,F]`."""
        return Named(text).of(self.features, self.sums, self.read, backbone)

    def of_examples(self, values: Tensor) -> Tensor:
        """The mean over the inputs of each example: `[n,…]` → `[m,…]`."""
        if len(values) == len(self.y):
            return values
        count = torch.bincount(self.clips, minlength=len(self.y)).to(values)
        sums = values.new_zeros(len(self.y), *values.shape[1:]).index_add_(0, self.clips, values)
        return sums / count.view(-1, *[1] * (values.ndim - 1))


def keep(
    backbone: Backbone,
    examples: Examples,
    *,
    blocks: Sequence[int] = (),
    prompt: Prompt | None = None,
    budget: int = BUDGET,
    progress: bool = False,
    what: str = "one pass over the data",
) -> Kept:
    """Run a model once over examples.

    backbone: with nothing attached.
    examples: as for it.
    blocks: whose keys and values are kept.
    prompt: whose queries read on the way.
    budget: bytes for keys and values; they are held in half precision where that is needed, and
        not at all where that is not enough.
    progress: whether to show how far it is.
    what: what it is called then.
    """
    backbone.to(accelerator_in("no").device)
    prompt = prompt.to(backbone.device).eval() if prompt is not None else None
    heard, clips = examples.windows()
    parts: dict[object, list[Tensor]] = {}
    memories: dict[int, Memory] = {}
    state = {"full": 0, "start": 0, "batch": 1}

    def take(name: object, value: Tensor) -> None:
        parts.setdefault(name, []).append(value.float().cpu())

    def remember(block: int, seen: Attended) -> None:
        if state["full"]:
            return
        if block not in memories:
            each = seen.keys[: len(seen.keys) // state["batch"]].numel() * 2 * len(blocks)
            if each * 2 * len(heard) > budget:
                state["full"] = 1
                memories.clear()
                return
            half = each * seen.keys.element_size() * len(heard) > budget
            memories[block] = Memory.empty(seen, len(heard), state["batch"], half)
        memories[block].write(state["start"], seen, state["batch"])

    sites: list[Site] = [
        Observe(place, summary=partial(take, place)) for place in range(1, backbone.depth + 1)
    ]
    sites += [Observe(block, attention=partial(remember, block)) for block in blocks]
    sites += prompt.sites() if prompt is not None else ()
    attachment = backbone.insert(sites)
    parts.clear()  # of what was tried out
    memories.clear()
    state["full"] = 0
    try:
        with torch.no_grad(), progress_bar(progress) as bar:
            loader = DataLoader(heard, batch_size=32)
            task = bar.add_task(what, total=len(loader))
            for batch in loader:
                state["batch"] = len(torch.as_tensor(batch[1]))
                take("features", backbone.features(batch[0]))
                if prompt is not None and prompt.reads:
                    take("read", prompt.read())
                state["start"] += state["batch"]
                bar.advance(task)
    finally:
        attachment.remove()
    joined = {name: torch.cat(values) for name, values in parts.items()}
    return Kept(
        torch.tensor(examples.targets),
        torch.tensor(clips),
        joined["features"],
        {place: joined[place] for place in range(1, backbone.depth + 1)},
        joined.get("read"),
        memories,
        bool(state["full"]),
    )
