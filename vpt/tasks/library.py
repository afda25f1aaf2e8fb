"""Many prompts on one frozen model: one of them at a time, or each sample of a batch its own."""

from __future__ import annotations

import difflib
import threading
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from vpt.backbones import Attachment, Backbone, Output, Raw
from vpt.backbones.finding.structure import refuse_recomputing
from vpt.errors import PromptError, PromptFileError, VptError
from vpt.files import check_backbone, read, rebuild
from vpt.prompts import MultiTask, Prompt
from vpt.readouts import Readout
from vpt.sites import KeyValues, Pixels, Rows, Site, Tokens

Span = tuple[int, int]


@dataclass
class Task:
    """A prompt and its readout, with the prompt's sites by place."""

    prompt: Prompt
    readout: Readout
    pixels: list[Pixels] = field(default_factory=list)
    spans: dict[Span, list[Tokens]] = field(default_factory=dict)
    blocks: dict[int, list[KeyValues]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for site in self.prompt.sites():
            if isinstance(site, Pixels):
                self.pixels.append(site)
            elif isinstance(site, Tokens):
                self.spans.setdefault((site.first, site.last), []).append(site)
            elif isinstance(site, KeyValues):
                self.blocks.setdefault(site.block, []).append(site)


@dataclass
class _Batch:
    """The tasks of the batch that is running, and which of them each sample has `[B]`."""

    tasks: list[Task] = field(default_factory=list)
    index: Tensor = field(default_factory=lambda: torch.zeros(0, dtype=torch.long))


class PromptLibrary:
    """Prompts and readouts by task name, over one backbone.

    keep: how many of the tasks that were added as files stay loaded; those used longest ago go
        first. Threads may share it: their batches follow one another, and `use` is of its own
        thread. It serves: prompts are in eval mode, and a prompt added as an object is used as it
        is, not copied. Raises `PromptError` for what does not fit.
    """

    def __init__(self, backbone: Backbone, keep: int = 64) -> None:
        if keep < 1:
            raise PromptError(f"Found keep={keep}; needed is a whole number of at least 1.")
        self.backbone, self.keep = backbone, keep
        self._default: str | None = None
        self._own = threading.local()
        self._order: dict[str, None] = {}
        self._fingerprint, self._witness = backbone.fingerprint(), backbone.witness()
        self._files: dict[str, Path] = {}
        self._held: dict[str, Task] = {}
        self._loaded: OrderedDict[str, Task] = OrderedDict()
        self._batch = _Batch()
        self._places: set[Any] = set()
        self._grouped = False
        self.attachment: Attachment = backbone.insert([])

    # what is in it ----------------------------------------------------------------------
    @property
    def names(self) -> list[str]:
        """The tasks' names, in the order in which they were added."""
        return list(self._order)

    @property
    def current(self) -> str | None:
        """The task that acts where no other is asked for: of this thread's `use`, or of the last
        `swap`.
        """
        return getattr(self._own, "name", None) or self._default

    def __len__(self) -> int:
        return len(self._order)

    def __contains__(self, name: object) -> bool:
        return name in self._order

    def add(
        self, name: str, prompt: Prompt | str | Path | None, readout: Readout | None = None
    ) -> None:
        """Add a task: a prompt and its readout, or the path of a prompt file, which is loaded when
        it is first used.

        prompt: None for a bare readout. Raises `PromptError` for a name that is taken or parts that
            do not fit, `PromptFileError` for a file that is unsound or was made for another
            backbone.
        """
        if name in self:
            raise PromptError(
                f"The library has a task {name!r} already. Remove it first:"
                f" library.remove({name!r})."
            )
        if isinstance(prompt, (str, Path)):
            if readout is not None:
                raise PromptError("A prompt file holds its own readout; pass the path alone.")
            check_backbone(
                *read(prompt), self.backbone, str(prompt), self._fingerprint, self._witness
            )
            self._files[name] = Path(prompt)
            self._order[name] = None
            return
        prompt = Prompt() if prompt is None else prompt
        if not isinstance(prompt, Prompt) or not isinstance(readout, Readout):
            raise PromptError(
                f"Found prompt {type(prompt).__name__} and readout {type(readout).__name__} for"
                f" task {name!r}; needed are a prompt and a readout, or the path of a prompt file."
            )
        self._held[name] = self._fit(prompt, readout)
        self._order[name] = None

    def remove(self, name: str) -> None:
        """Take a task out. Raises `PromptError` for one that is not there."""
        self._require([name])
        for place in (self._held, self._files, self._loaded, self._order):
            place.pop(name, None)
        if self._default == name:
            self._default = None

    def swap(self, name: str) -> None:
        """Let this task act wherever no other is asked for; nothing is hooked anew. Raises
        `PromptError`.
        """
        self._require([name])
        self._default = name

    @contextmanager
    def use(self, name: str) -> Iterator[PromptLibrary]:
        """Inside, in this thread, this task acts wherever no other is asked for."""
        self._require([name])
        before = getattr(self._own, "name", None)
        self._own.name = name
        try:
            yield self
        finally:
            self._own.name = before

    def task(self, name: str) -> Task:
        """A task's prompt and readout, loaded if need be. Raises `PromptError`,
        `PromptFileError`.
        """
        with self.backbone.guard:
            self._require([name])
            if name in self._held:
                return self._held[name]
            if name not in self._loaded:
                self._loaded[name] = self._read_file(self._files[name])
            self._loaded.move_to_end(name)
            while len(self._loaded) > self.keep:
                self._loaded.popitem(last=False)
            return self._loaded[name]

    def _read_file(self, path: Path) -> Task:
        header, tensors = read(path)
        check_backbone(header, tensors, self.backbone, str(path), self._fingerprint, self._witness)
        try:
            with torch.inference_mode(False):  # or it could not be used outside of the caller's
                return self._fit(*rebuild(header, tensors))
        except (PromptError, PromptFileError) as error:
            raise PromptFileError(f"{path}: {error}") from error

    def close(self) -> None:
        """Take everything off the backbone; the tasks stay."""
        self.attachment.remove()

    def __enter__(self) -> PromptLibrary:
        """Use as a context: `close` follows."""
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def _require(self, names: Sequence[str]) -> None:
        unknown = sorted({str(name) for name in names if name not in self})
        if unknown:
            near = difflib.get_close_matches(unknown[0], self.names, 3) or self.names[:5]
            has = f"Near: {', '.join(near)}." if near else "It is empty."
            raise PromptError(f"The library has no task {', '.join(map(repr, unknown[:5]))}. {has}")

    def _fit(self, prompt: Prompt, readout: Readout) -> Task:
        """A task on this backbone, tried alone; its places are hooked from now on."""
        with self.backbone.guard:
            self._require_open()
            if isinstance(prompt, MultiTask) and not prompt.asks:
                prompt = prompt.export(prompt.tasks[0])
            if readout.asks:
                raise PromptError(
                    "Heads of several tasks cannot be in a library; add each task alone:"
                    " readout.export(task)."
                )
            readout.bind(self.backbone)
            task = Task(
                prompt.to(self.backbone.device).eval(), readout.to(self.backbone.device).eval()
            )
            Attachment(self.backbone, prompt.sites()).remove()  # says what does not fit
            if any(getattr(part, "selects", False) for part in prompt.modules()):
                raise PromptError(
                    "A prompt that is chosen or made for each sample cannot be in a library: use a"
                    " PromptedModel of its own. Of a MultiTask prompt, add one task:"
                    " prompt.export(task)."
                )
            self._require_shared(task)
            places = ({"pixels"} if task.pixels else set()) | task.spans.keys() | task.blocks.keys()
            if not places <= self._places:
                before, self._places = self._places, self._places | places
                try:
                    self._attach()
                except BaseException:
                    self._places = before
                    self._attach()
                    raise
        return task

    @torch.no_grad()
    def _require_shared(self, task: Task) -> None:
        """Raise `PromptError` for a prompt whose rows depend on the sample: its samples share them
        here.
        """
        for (first, _), tokens in task.spans.items():
            x = torch.randn(2, 1, self.backbone.widths[first], device=self.backbone.device)
            made = [_rows(site, x) for site in tokens]
            if any(not torch.equal(rows[0], rows[1]) for rows in made):
                raise PromptError(
                    "A prompt that is made from its input cannot be in a library: use a"
                    " PromptedModel of its own."
                )
        for block, prefixes in task.blocks.items():
            heads, size = self.backbone.heads[block] or (0, 0)
            keys = torch.randn(2, heads, 1, size, device=self.backbone.device)
            for rows, values, bias in [site.make(keys, keys) for site in prefixes]:
                alike = all(
                    len(part) == 1 or torch.equal(part[0], part[1]) for part in (rows, values)
                )
                if not alike or bias is not None:
                    raise PromptError(
                        "A prefix that is made from its input, or has a bias of its own, cannot be"
                        " in a library: use a PromptedModel of its own."
                    )

    def _require_open(self) -> None:
        if self.backbone.attachment is not self.attachment:
            raise PromptError(
                "This library was closed, or its backbone now carries another prompt. Make a new"
                " PromptLibrary."
            )

    # at work ----------------------------------------------------------------------------
    def __call__(self, x: Raw, tasks: Sequence[str] | None = None) -> Tensor | list[Tensor]:
        """Raw input of B samples → class scores `[B,C]`, or one tensor `[C]` per sample where tasks
        have different classes.

        tasks: a name per sample; by default all have the current one. Raises `PromptError` for an
            unknown task, or names that are not one per sample.
        """
        x = tuple(x) if isinstance(x, list) else x  # sound, as a DataLoader gives it
        count = len(x[0] if isinstance(x, tuple) else x)
        if isinstance(tasks, str) or (tasks is not None and len(tasks) != count):
            raise PromptError(
                f"Found tasks={tasks!r:.60} for {count} samples; needed is a list of one name per"
                " sample."
            )
        if tasks is None or not count:
            if self.current is None:
                raise PromptError(
                    "No task was chosen. Say tasks=[…], a name per sample, or library.swap(name)."
                )
            tasks = [self.current] * max(1, count)
        self._require(tasks)
        refuse_recomputing(self.backbone.model, "A library")
        with self.backbone.guard:
            self._require_open()
            distinct = list(dict.fromkeys(tasks))
            members = [self.task(name) for name in distinct]
            for member in members:
                member.prompt.eval()
            numbers = [distinct.index(name) for name in tasks[:count]]
            index = torch.tensor(numbers, device=self.backbone.device, dtype=torch.long)
            out = self._run(x, members, index)
        return self._read(out, members, index)

    def _run(self, x: Raw, members: list[Task], index: Tensor) -> Output:
        """One forward for all; a forward per task where attention cannot be told who has what."""
        if self._grouped and len(members) > 1:
            parts = [(index == t).nonzero()[:, 0] for t in range(len(members))]
            found = [
                self._run(_chosen(x, part), [task], torch.zeros_like(part))
                for part, task in zip(parts, members, strict=True)
            ]
            back = torch.argsort(torch.cat(parts))
            logits = [one.logits for one in found if one.logits is not None]
            return Output(
                torch.cat([one.features for one in found])[back],
                torch.cat(logits)[back] if logits else None,
            )
        self._batch = _Batch(members, index)
        try:
            return self.backbone.run(x)
        finally:
            self._batch = _Batch()

    def _read(self, out: Output, members: list[Task], index: Tensor) -> Tensor | list[Tensor]:
        if not len(index):
            return members[0].readout(
                out.logits if members[0].readout.reads == "logits" else out.features
            )
        scores: list[Tensor] = [out.features] * len(index)
        for t, task in enumerate(members):
            own = (index == t).nonzero()[:, 0]
            read_from = out.logits if task.readout.reads == "logits" else out.features
            if read_from is None:
                raise PromptError(
                    "A task's readout reads logits, and this model has no classifier."
                )
            for i, row in zip(own.tolist(), task.readout(read_from[own]), strict=True):
                scores[i] = row
        return torch.stack(scores) if len({len(row) for row in scores}) == 1 else scores

    # sites, made anew for each batch by what is in it -----------------------------------
    def _attach(self) -> None:
        spans = [place for place in self._places if isinstance(place, tuple)]
        inserted = [
            span
            for span in spans
            if span[0] != span[1]
            or self.backbone.reach.refused
            or self.backbone.blocks[span[0]].unknown
        ]
        meet = any(a is not b and a[0] <= b[1] and b[0] <= a[1] for a in inserted for b in inserted)
        self._grouped = meet or not all(_reachable(self.backbone, span) for span in spans)
        sites: list[Site] = [Pixels(self._pixels)] if "pixels" in self._places else []
        for first, last in spans:
            make = partial(self._tokens, (first, last))
            sites.append(Tokens(first, last, None, make, mixed=not self._grouped))
        sites += [
            KeyValues(place, None, partial(self._key_values, place))
            for place in self._places
            if isinstance(place, int)
        ]
        self.attachment.remove()
        self.attachment = self.backbone.insert(sites)

    def _pixels(self, x: Tensor, lengths: Tensor | None) -> tuple[Tensor, Tensor | None]:
        batch = self._batch
        for t, task in enumerate(batch.tasks):
            if not task.pixels:
                continue
            own = (batch.index == t).nonzero()[:, 0]
            part, part_lengths = x[own], None if lengths is None else lengths[own]
            for site in task.pixels:
                part, part_lengths = site.apply(part, part_lengths)
            x = x.index_copy(0, own, part.to(x.dtype))
            if lengths is not None and part_lengths is not None:
                lengths = lengths.index_copy(0, own, part_lengths.to(lengths.dtype))
        return x, lengths

    def _tokens(self, span: Span, x: Tensor) -> Tensor | Rows:
        """Each task's tokens in this span `[T,P,D]`, padded to the longest; `[B,P,D]` where all
        samples of a batch have one task.
        """
        batch, empty = self._batch, x.new_zeros(1, 0, x.shape[-1])
        if not batch.tasks:  # the bare model
            if self._grouped:
                return empty.expand(len(x), -1, -1)
            return Rows(empty, torch.zeros(len(x), dtype=torch.long, device=x.device))
        rows = [
            torch.cat([empty, *(_rows(s, x[:1]) for s in task.spans.get(span, []))], dim=1)
            for task in batch.tasks
        ]
        joined, bias = _padded(rows, batch.index)
        return joined.expand(len(x), -1, -1) if self._grouped else Rows(joined, batch.index, bias)

    def _key_values(
        self, block: int, keys: Tensor, values: Tensor
    ) -> tuple[Tensor, Tensor, Tensor | None]:
        """Each sample's prefix in this block `[B,heads,P,d]`, padded to the longest."""
        batch = self._batch
        if not batch.tasks:
            return keys[..., :0, :], values[..., :0, :], None
        found: list[tuple[Tensor, Tensor]] = []
        for task in batch.tasks:
            made = [site.make(keys[:1], values[:1]) for site in task.blocks.get(block, [])]
            found.append(
                (
                    torch.cat([keys[:1, :, :0], *(k for k, *_ in made)], dim=2),
                    torch.cat([values[:1, :, :0], *(v for _, v, _ in made)], dim=2),
                )
            )
        all_keys, bias = _padded([k for k, _ in found], batch.index)
        all_values, _ = _padded([v for _, v in found], batch.index)
        return all_keys[batch.index], all_values[batch.index], bias


def _padded(rows: list[Tensor], index: Tensor) -> tuple[Tensor, Tensor | None]:
    """Rows `[1,…,P_t,D]` of T tasks → `[T,…,P,D]`, and the bias `[B,1,1,P]` that hides the padding
    of each sample, if any.
    """
    lengths = [part.shape[-2] for part in rows]
    longest = max(lengths)
    joined = torch.cat(
        [
            F.pad(part, (0, 0, 0, longest - length))
            for part, length in zip(rows, lengths, strict=True)
        ]
    )
    if min(lengths) == longest:
        return joined, None
    hidden = (
        torch.arange(longest, device=joined.device)
        >= torch.tensor(lengths, device=joined.device)[:, None]
    )
    bias = torch.zeros(hidden.shape, device=joined.device).masked_fill(hidden, float("-inf"))
    return joined, bias[index][:, None, None]


def _rows(site: Tokens, x: Tensor) -> Tensor:
    """The tokens of a prompt that is the same for every sample."""
    made = site.make(x)
    if isinstance(made, Rows):
        raise PromptError(
            "A prompt of several tasks cannot be in a library: take one task out of it:"
            " prompt.export(task)."
        )
    return made


def _chosen(x: Raw, chosen: Tensor) -> Raw:
    if isinstance(x, tuple):
        waves, lengths = x
        return waves[chosen.to(waves.device)], lengths[chosen.to(lengths.device)]
    return x[chosen.to(x.device)]


def _reachable(backbone: Backbone, span: Span) -> bool:
    """Whether attention in all blocks of a span can be told which keys are padding."""
    try:
        backbone.reach.need_attention(range(span[0], span[1] + 1))
    except PromptError:
        return False
    return True


def open_library(folder: str | Path, backbone: Backbone, keep: int = 64) -> PromptLibrary:
    """A library of all prompt files in a folder, named as they are (`flowers.vpt`, or a run's
    folder `flowers/prompt.vpt`).

    Raises `PromptFileError` for a folder without any, or naming every file that does not fit.
    """
    files, wrong = prompt_files(folder), []
    library = PromptLibrary(backbone, keep)
    try:
        for name, path in files.items():
            try:
                library.add(name, path)
            except VptError as error:
                wrong.append(str(error))
        if wrong:
            raise PromptFileError(f"{len(wrong)} prompt files do not fit. " + " ".join(wrong[:5]))
    except BaseException:
        library.close()
        raise
    return library


def prompt_files(folder: str | Path) -> dict[str, Path]:
    """Task name → prompt file, by name. Raises `PromptFileError` for a folder without any."""
    folder = Path(folder)
    found = {path.stem: path for path in sorted(folder.glob("*.vpt"))}
    runs = {path.parent.name: path for path in sorted(folder.glob("*/prompt.vpt"))}
    if both := sorted(found.keys() & runs.keys()):
        raise PromptFileError(
            f"Found two prompts called {both[0]!r}: {found[both[0]]} and {runs[both[0]]}. Rename"
            " one of them."
        )
    found |= runs
    if not found:
        raise PromptFileError(
            f"Found no prompt files in {folder}; needed are NAME.vpt, or runs' folders"
            " NAME/prompt.vpt."
        )
    return found
