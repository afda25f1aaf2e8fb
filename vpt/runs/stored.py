"""A pass over examples that a store has the most of: only what it lacks goes through the model."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import Tensor

from vpt.backbones import Backbone
from vpt.data import Examples, Source
from vpt.data.files import Files
from vpt.errors import StoreError, VptError
from vpt.files import write_atomically
from vpt.prompts import Prompt, QueryTokens
from vpt.runs.digests import keys_of, of_file
from vpt.runs.kept import Kept, keep
from vpt.runs.passes import SOURCES
from vpt.runs.querying import queries_for
from vpt.runs.store import Store
from vpt.sites import takes_images
from vpt.training.memory import Memory, read_all

SHARD = 256  # inputs
CLOSE = 1e-3  # of the largest number: what another machine or batch size may make of an input


@contextmanager
def stored(
    store: str | Path | None, backbone: Backbone, data: object = None, queries: bool = True
) -> Iterator[Store | None]:
    """Inside, passes of this model take what the store has, and leave there what it lacks.

    store: a folder, made if it is not there; None goes without.
    backbone: the model.
    data: as `vpt.data.look` lists them: pictures that the store has are not looked into again.
    queries: whether a new one has the keys and values that queries read, which take most of its
        place.

    Raises `StoreError` for one that is of another model or preparation, or damaged.
    """
    if store is None:
        yield None
        return
    start = queries_for(backbone) if queries else None
    opened = Store.open(store, backbone, start.blocks if start is not None else ())
    passes = SOURCES[backbone] = Passes(backbone, opened)
    if isinstance(data, Source):
        data.known = passes.knows
    try:
        yield opened
    finally:
        del SOURCES[backbone]
        if isinstance(data, Source):
            data.known = None


@dataclass
class Begun:
    """How a prompt begins, as a small file of a store."""

    prompt: Prompt
    path: Path

    def load(self) -> bool:
        """Let the prompt begin as it did before; whether that is known."""
        try:
            self.prompt.load_state_dict(load_file(self.path))
        except (OSError, SafetensorError, RuntimeError):  # it is not there, or damaged
            return False
        return True

    def keep(self) -> None:
        """Remember how it begins, if that can be written: it only saves time."""
        with suppress(VptError):
            write_atomically(self.path, save(self.prompt.state_dict()))


@dataclass
class Passes:
    """Passes of a backbone with a store."""

    backbone: Backbone
    store: Store

    def missing(self, examples: Examples) -> int:
        """How many inputs the model would have to see."""
        heard, _ = examples.windows()
        return sum(key not in self.store for key in keys_of(heard))

    def knows(self, files: Files, index: int) -> bool:
        """Whether a file of a picture was read before, and found to be sound."""
        if not takes_images(self.backbone.inputs):
            return False
        try:
            return of_file(files, index, 0) in self.store
        except OSError:  # whoever reads it says why
            return False

    def begun(self, prompt: Prompt, examples: Examples, seed: int) -> Begun:
        """How a prompt begins among these examples, with this seed."""
        told = json.dumps([type(prompt).__name__, prompt.config(), seed], sort_keys=True)
        key = hashlib.sha256(b"".join([told.encode(), *keys_of(examples)])).hexdigest()
        return Begun(prompt, self.store.folder / f"begun-{key[:32]}.start")

    def kept(
        self,
        examples: Examples,
        blocks: Sequence[int],
        prompt: Prompt | None,
        logits: bool,
        budget: int,
        progress: bool,
        what: str,
    ) -> Kept | None:
        """As `keep`; None where the store is of no use for this."""
        reads = list(prompt.blocks) if isinstance(prompt, QueryTokens) else []
        other = prompt is not None and prompt.sites() and not isinstance(prompt, QueryTokens)
        if other or not set(blocks) | set(reads) <= set(self.store.blocks):
            return None
        heard, clips = examples.windows()
        keys = keys_of(heard)
        self._fill(heard, keys, progress, what)
        live = self._checked(heard, keys)
        found = Kept(
            torch.tensor(examples.targets),
            torch.tensor(clips),
            self.store.rows(keys, "features"),
            {
                place: self.store.rows(keys, f"sums.{place}")
                for place in range(1, self.backbone.depth + 1)
            },
            logits=self.store.rows(keys, "logits") if logits and self.store.has("logits") else None,
        )
        if blocks and self._bytes(live, len(keys), len(blocks)) > budget:
            return replace(found, full=True)
        memories = {block: self._memory(live.memories[block], block, keys) for block in blocks}
        found = replace(found, memories=memories)
        if isinstance(prompt, QueryTokens):
            found = replace(found, read=self._read(live, prompt, keys))
        return found

    def _fill(self, heard: Examples, keys: list[bytes], progress: bool, what: str) -> None:
        """Run the model over what is not there yet, a shard at a time."""
        new = {key: i for i, key in enumerate(keys) if key not in self.store}
        todo = list(new.values())
        for start in range(0, len(todo), SHARD):
            some = todo[start : start + SHARD]
            part = heard.subset(some)
            named = f"{what} ({start + len(some)} of {len(todo)})" if len(todo) > SHARD else what
            kept = keep(
                self.backbone,
                part,
                blocks=self.store.blocks,
                logits=True,
                budget=1 << 62,
                progress=progress,
                what=named,
                live=True,
            )
            self.store.add([keys[i] for i in some], _tensors(kept))

    def _checked(self, heard: Examples, keys: list[bytes]) -> Kept:
        """The first input, run now: for what is not numbers (how queries are projected), and to see
        that the model still says what the store says.
        """
        live = keep(self.backbone, heard.subset([0]), blocks=self.store.blocks, live=True)
        there = self.store.rows(keys[:1], "features")
        apart = float((live.features - there).abs().max())
        if not apart <= CLOSE * max(1.0, float(there.abs().max())):
            raise StoreError(
                f"{self.store.folder} has other features of {heard.name(0)} than this model gives"
                f" now (by {apart:.1e}). Build it anew (vpt features), or go without."
            )
        return live

    def _bytes(self, live: Kept, count: int, blocks: int) -> int:
        one = next(iter(live.memories.values()))
        return 2 * one.keys[0].numel() * count * blocks * 2

    def _memory(self, live: Memory, block: int, keys: Sequence[bytes]) -> Memory:
        found, values = (self.store.rows(keys, f"{name}.{block}") for name in ("keys", "values"))
        valid = self.store.rows(keys, f"valid.{block}") if live.valid is not None else None
        return replace(live, keys=found, values=values, valid=valid, _places={})

    @torch.no_grad()
    def _read(self, live: Kept, prompt: QueryTokens, keys: Sequence[bytes]) -> Tensor:
        """What queries read of all inputs, some at a time."""
        prompt = prompt.to(self.backbone.device).eval()
        queries = [rows[None] for rows in prompt.queries]
        read = []
        for start in range(0, len(keys), SHARD):
            some = keys[start : start + SHARD]
            memories = [self._memory(live.memories[b], b, some) for b in prompt.blocks]
            for index in torch.arange(len(some)).split(32):
                read.append(read_all(memories, queries, index)[:, 0].float().cpu())
        return torch.cat(read)


def _tensors(kept: Kept) -> dict[str, Tensor]:
    """What of a pass goes to disk: keys and values in half precision."""
    found = {"features": kept.features}
    found |= {f"sums.{place}": sums for place, sums in kept.sums.items()}
    if kept.logits is not None:
        found["logits"] = kept.logits
    for block, memory in kept.memories.items():
        half = memory.halved()
        found |= {f"keys.{block}": half.keys, f"values.{block}": half.values}
        if memory.valid is not None:
            found[f"valid.{block}"] = memory.valid
    return found
