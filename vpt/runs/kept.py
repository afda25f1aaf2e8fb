"""What one pass of the bare model over examples leaves: features, sums of every block, and the keys
and values of some.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import partial

import torch
from torch import Tensor
from torch.utils.data import DataLoader

from vpt.backbones import Backbone
from vpt.data import Examples
from vpt.prompts import Prompt, QueryTokens
from vpt.readouts.named import Named
from vpt.report.progress import progress_bar
from vpt.runs.passes import SOURCES
from vpt.sites import Attended, Observe, Site
from vpt.training.evaluation import accelerator_in, of_clips, refuse_nan
from vpt.training.memory import Memory, read_all

BUDGET = 2 << 30  # bytes of keys and values
BATCH = 32


@dataclass
class Kept:
    """Of n inputs, which are the windows of some examples, in order.

    y: labels of the examples `[m]`. clips: which example each input is of `[n]`. features: the
        model's own `[n,D]`. sums: of the tokens before each block, and behind the last,
        `[n,2,D]`. read: what a prompt's queries read `[n,Q]`, if one was there. memories: of the
        blocks that were asked for, by number; empty where they have no place. full: whether they
        had none. tokens: some that enter these blocks `[n,k,D]`, and where in the sequence they
        stand `[n,k]`, the same for all blocks. logits: the model's own scores `[n,K]`, if they
        were asked for and it has a classifier.
    """

    y: Tensor
    clips: Tensor
    features: Tensor
    sums: dict[int, Tensor]
    read: Tensor | None = None
    memories: dict[int, Memory] = field(default_factory=dict)
    full: bool = False
    tokens: dict[int, Tensor] = field(default_factory=dict)
    places: Tensor | None = None
    logits: Tensor | None = None

    def named(self, text: str, backbone: Backbone) -> Tensor:
        """Features by name, `[n,F]`."""
        return Named(text).of(self.features, self.sums, self.read, backbone)

    def take(self, chosen: Sequence[int]) -> Kept:
        """What was kept of these examples alone, in this order."""
        inputs = [(self.clips == number).nonzero()[:, 0] for number in chosen]
        rows = torch.cat(inputs)
        return Kept(
            self.y[torch.tensor(chosen)],
            torch.repeat_interleave(
                torch.arange(len(inputs)), torch.tensor([len(own) for own in inputs])
            ),
            self.features[rows],
            {place: sums[rows] for place, sums in self.sums.items()},
            self.read[rows] if self.read is not None else None,
            {block: memory.take(rows) for block, memory in self.memories.items()},
            self.full,
            {block: tokens[rows] for block, tokens in self.tokens.items()},
            self.places[rows] if self.places is not None else None,
            self.logits[rows] if self.logits is not None else None,
        )

    def joined(self, other: Kept) -> Kept:
        """Features, sums, keys and values of these examples, and then those of others, of the same
        model.
        """
        both = self.memories.keys() & other.memories.keys()
        return Kept(
            torch.cat([self.y, other.y]),
            torch.cat([self.clips, other.clips + len(self.y)]),
            torch.cat([self.features, other.features]),
            {place: torch.cat([sums, other.sums[place]]) for place, sums in self.sums.items()},
            memories={block: self.memories[block].joined(other.memories[block]) for block in both},
        )

    def of_blocks(self, blocks: Sequence[int]) -> list[Memory]:
        """Keys and values of these blocks, in this order."""
        return [self.memories[block] for block in blocks]

    @torch.no_grad()
    def with_read(self, prompt: QueryTokens) -> Kept:
        """The same, with what these queries read of the kept keys and values."""
        memories = self.of_blocks(prompt.blocks)
        queries = [rows[None] for rows in prompt.queries]
        every = torch.arange(len(self.clips)).split(BATCH)
        read = torch.cat([read_all(memories, queries, some)[:, 0] for some in every])
        return replace(self, read=read.cpu())

    def of_examples(self, values: Tensor) -> Tensor:
        """The mean over the inputs of each example: `[n,…]` → `[m,…]`."""
        return values if len(values) == len(self.y) else of_clips(values, self.clips)


class _Memories:
    """Keys and values of some blocks, written batch by batch, as long as they have a place.

    count: inputs in all. blocks: how many there will be. budget: bytes. batch: size of the batch
        that runs; start: its first input.
    """

    def __init__(self, count: int, blocks: int, budget: int) -> None:
        self.count = count
        self.blocks = blocks
        self.budget = budget
        self.start = 0
        self.batch = 1
        self.clear()

    def clear(self) -> None:
        """Forget what was tried out."""
        self.of: dict[int, Memory] = {}
        self.full = False

    def write(self, block: int, seen: Attended) -> None:
        """What the attention of a block sees of the batch."""
        if self.full:
            return
        if block not in self.of:
            numbers = 2 * seen.keys.numel() // self.batch * self.count * self.blocks
            if numbers * 2 > self.budget:  # in half precision
                self.clear()
                self.full = True
                return
            half = numbers * seen.keys.element_size() > self.budget
            self.of[block] = Memory.empty(seen, self.count, self.batch, half)
        self.of[block].write(self.start, seen, self.batch)


def keep(
    backbone: Backbone,
    examples: Examples,
    *,
    blocks: Sequence[int] = (),
    each: int = 0,
    seed: int = 0,
    prompt: Prompt | None = None,
    logits: bool = False,
    budget: int = BUDGET,
    progress: bool = False,
    what: str = "one pass over the data",
    live: bool = False,
) -> Kept:
    """Run a model once over examples. Raises `BackboneError` where it gives NaN.

    backbone: with nothing attached.
    examples: as for it.
    blocks: whose keys and values are kept.
    each: how many tokens of each input, drawn at random, are kept before these blocks.
    seed: of this draw.
    prompt: whose queries read on the way.
    logits: whether the model's own scores are kept.
    budget: bytes for keys and values; they are held in half precision where that is needed, and
        not at all where that is not enough.
    progress: whether to show how far it is.
    what: what it is called then.
    live: run the model over all of them, whatever a store has (`vpt.runs.stored`).
    """
    if not live and not each and (source := SOURCES.get(backbone)) is not None:
        found = source.kept(examples, blocks, prompt, logits, budget, progress, what)
        if found is not None:
            return found
    backbone.to(accelerator_in("no").device)
    prompt = prompt.to(backbone.device).eval() if prompt is not None else None
    heard, clips = examples.windows()
    parts: dict[object, list[Tensor]] = defaultdict(list)
    memories = _Memories(len(heard), len(blocks), budget)

    def take(name: object, value: Tensor) -> None:
        parts[name].append(value.float().cpu())

    def draw(block: int, tokens: Tensor) -> None:
        count = tokens.shape[1]
        generator = torch.Generator().manual_seed(seed + memories.start)  # alike for all blocks
        order = torch.rand(len(tokens), count, generator=generator).argsort(1)[:, :each]
        rows = order[..., None].expand(-1, -1, tokens.shape[2])
        take(("tokens", block), tokens.cpu().gather(1, rows))
        if block == blocks[0]:
            parts["places"].append(order)

    places = range(1, backbone.depth + 1)
    sites: list[Site] = [Observe(place, summary=partial(take, place)) for place in places]
    sites += [Observe(block, attention=partial(memories.write, block)) for block in blocks]
    sites += [Observe(block, tokens=partial(draw, block)) for block in blocks if each]
    sites += prompt.sites() if prompt is not None else ()
    attachment = backbone.insert(sites)
    parts.clear()  # of what was tried out
    memories.clear()
    try:
        with torch.no_grad(), progress_bar(progress) as bar:
            loader = DataLoader(heard, batch_size=BATCH)
            task = bar.add_task(what, total=len(loader))
            for batch in loader:
                memories.batch = len(batch[1])
                out = backbone.run(batch[0])
                take("features", out.features)
                if logits and out.logits is not None:
                    take("logits", out.logits)
                if prompt is not None and prompt.reads:
                    take("read", prompt.read())
                memories.start += memories.batch
                bar.advance(task)
    finally:
        attachment.remove()
    joined = {name: torch.cat(values) for name, values in parts.items()}
    refuse_nan(backbone, joined["features"])
    return Kept(
        torch.tensor(examples.targets),
        torch.tensor(clips),
        joined["features"],
        {place: joined[place] for place in places},
        joined.get("read"),
        memories.of,
        memories.full,
        {block: joined["tokens", block] for block in blocks if each},
        joined.get("places"),
        joined.get("logits"),
    )
