"""Sites attached to a backbone: hooks that are owned, counted, and undone by their own handles."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import torch
from accelerate.utils import send_to_device
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from vpt.backbones.acting.insertion import Exit, Insertion
from vpt.backbones.acting.interception import Interception
from vpt.backbones.acting.narrowing import Narrowing, can_narrow
from vpt.backbones.acting.recording import Recording
from vpt.backbones.finding.strangers import foreign_hooks, global_hooks
from vpt.backbones.finding.structure import recomputes
from vpt.backbones.frozen import Frozen
from vpt.errors import PromptError
from vpt.sites import KeyValues, Pixels, Query, Site, Tokens

LOGGER = logging.getLogger("vpt")


class Attachment:
    """The sites of one prompt at work on one backbone. Bound methods only, so that deepcopy and
    pickle follow it.

    exact: how deep tokens act. "insert": put in and cut off, the slow and obvious way. "record": as
        keys and values, the same function for less work; and a last block of which only the first
        tokens are read does no more than these need. "auto": recorded where that can be, inserted
        elsewhere. Raises `PromptError` when a site does not fit, and at the end of a forward in
        which a site did not act.
    """

    def __init__(self, backbone: Frozen, sites: Sequence[Site] = (), exact: str = "auto") -> None:
        if exact not in ("auto", "insert", "record"):
            raise PromptError(
                f"Found exact={exact!r}; needed is 'auto', 'insert' (tokens go through the blocks)"
                " or 'record'."
            )
        self.backbone = backbone
        self.sites = tuple(sites)
        self.exact = exact
        self.enabled = True
        self._heard: list[Tensor] = []
        self._check_fit()
        self._interceptions: dict[int, Interception] = {}
        self._actors: list[Insertion | Recording | Interception | Narrowing] = []
        # the outer of two spans enters first and leaves last
        for site in sorted(self.sites, key=_by_span):
            if isinstance(site, Tokens):
                self._actors.append(self._tokens(site))
            elif isinstance(site, KeyValues):
                self._interception(site.block).sites.append(site)
        self._actors += self._narrowing()
        self._actors += self._interceptions.values()
        ends: dict[int, list[Insertion]] = {}
        for actor in self._actors:
            if isinstance(actor, Insertion):
                ends.setdefault(actor.site.last, []).append(actor)
        self._exits = [Exit(spans) for spans in ends.values()]
        self._readers: list[RemovableHandle] = [
            layer.register_forward_pre_hook(self._read_classifier) for layer in backbone.classifiers
        ]
        self._handles: list[RemovableHandle] = []
        self._learner: int | None = None  # the thread that learns under activation checkpointing
        self._said = False
        self._hooks = set(foreign_hooks(backbone.model.modules()))
        self._seen_by_others = bool(self._hooks or global_hooks())
        self._install()

    def _interception(self, block: int) -> Interception:
        return self._interceptions.setdefault(block, Interception(self.backbone.blocks[block]))

    def _recorded(self, site: Tokens) -> bool:
        """Whether this site acts as keys and values: it spans one block, and the caller or the
        model would have it so.
        """
        if site.first != site.last or self.exact != "auto":
            return self.exact == "record" and site.first == site.last
        unknown = 0 <= site.first < self.backbone.depth and self.backbone.blocks[site.first].unknown
        if unknown or "deep" in self.backbone.reach.refused:
            return False  # there was nothing to compare with
        try:
            self.backbone.reach.need_tokens(site.first, site.last, recorded=True)
        except PromptError:
            return False
        return True

    def _tokens(self, site: Tokens) -> Insertion | Recording:
        """The actor for a span: recorded where windows or the caller want it, inserted
        elsewhere.
        """
        blocks = self.backbone.blocks
        if blocks[site.first].windowed or self._recorded(site):
            return Recording(site, self._interception(site.first))
        # transformers does when compiled, or when a clip has padding
        makes_masks = hasattr(self.backbone.model, "config")
        for i in range(site.first, site.last + 1):
            if blocks[i].masked or (makes_masks and blocks[i].heads):
                self._interception(i).inserted = True
            if site.whose is not None:
                self._interception(i).padded.append(site)
        return Insertion(site, blocks)

    def _narrowing(self) -> list[Narrowing]:
        """For the last block, unless tokens are inserted there, or nothing acts at all."""
        backbone, last = self.backbone, self.backbone.depth - 1
        inserted = any(
            isinstance(actor, Insertion) and actor.site.last == last for actor in self._actors
        )
        if (
            self.exact == "insert"
            or inserted
            or not self.sites
            or not backbone.first_read
            or "recorded" in backbone.reach.refused
        ):
            return []
        return (
            [Narrowing(backbone.first_read, self._interception(last))]
            if can_narrow(backbone.blocks[last])
            else []
        )

    # fit --------------------------------------------------------------------------------
    def _check_fit(self) -> None:
        """Ask every site for its rows once, on an empty example, and compare shapes with the
        backbone's.
        """
        open_spans: list[Tokens] = []
        with torch.no_grad():
            if self.wants_query:
                self.tell_query(
                    torch.zeros(1, self.backbone.out_features, device=self.backbone.device)
                )
            for site in self.sites:
                if isinstance(site, Pixels):
                    self._check_pixels(site)
                elif isinstance(site, Tokens):
                    self._check_tokens(site)
                    if any(_cross(site, other) for other in open_spans):
                        raise PromptError(
                            "Two token spans cross; needed are spans that contain one another or do"
                            " not meet."
                        )
                    open_spans.append(site)
                elif isinstance(site, KeyValues):
                    self._check_key_values(site)

    def _check_pixels(self, site: Pixels) -> None:
        self.backbone.reach.need_pixels()
        example, lengths = self.backbone.inputs.prepare(
            send_to_device(self.backbone.inputs.example(1), self.backbone.device)
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

    def _check_tokens(self, site: Tokens) -> None:
        self.backbone.reach.need_tokens(site.first, site.last, self._recorded(site))
        if site.whose is not None:  # nothing is known yet but that attention must see who has what
            self.backbone.reach.need_attention(range(site.first, site.last + 1))
        block = self.backbone.blocks[site.first]
        found = site.make(torch.zeros(1, 1, block.width, device=self.backbone.device)).shape
        if found[-1] != block.width or (
            site.whose is None and tuple(found) != (1, site.count, block.width)
        ):
            raise PromptError(
                f"Found prompt tokens {list(found)} for block {site.first}, whose tokens have width"
                f" {block.width}; needed are [1,{site.count},{block.width}]. Make the prompt for"
                f" this backbone: X.like(backbone, count={site.count})."
            )

    def _check_key_values(self, site: KeyValues) -> None:
        self.backbone.reach.need_blocks(site.block)
        self.backbone.reach.need_prefix([site.block])
        heads = self.backbone.heads[site.block] or (0, 0)
        example = torch.zeros(1, heads[0], 1, heads[1], device=self.backbone.device)
        keys, values, _ = site.make(example, example)
        needed = (heads[0], site.count, heads[1])
        if site.count and not tuple(keys.shape[1:]) == tuple(values.shape[1:]) == needed:
            raise PromptError(
                f"Found prefix keys {list(keys.shape)} and values {list(values.shape)} for block"
                f" {site.block}; needed are [1,{needed[0]},{needed[1]},{needed[2]}]."
            )

    # at work ----------------------------------------------------------------------------
    def _install(self) -> None:
        # exits first, so that hooks stand in the order in which they were made
        for part in (*self._exits, *self._actors):
            self._handles += part.install()

    def _uninstall(self) -> None:
        for interception in self._interceptions.values():
            interception.release()
        while self._handles:
            self._handles.pop().remove()

    def _read_classifier(self, module: nn.Module, args: tuple) -> None:
        self._heard.append(args[0])

    @contextmanager
    def listening(self) -> Iterator[list[Tensor]]:
        """Around one forward: the list in which what its final linear layers read, `[B,D]` each,
        will stand.
        """
        before, self._heard = self._heard, []
        try:
            yield self._heard
        finally:
            self._heard = before

    def pixels(self, x: Tensor, lengths: Tensor | None) -> tuple[Tensor, Tensor | None]:
        """Apply the `Pixels` sites in order; the caller's tensor is never changed."""
        for site in self.sites:
            if isinstance(site, Pixels) and self.enabled:
                x, lengths = site.apply(x, lengths)
        return x, lengths

    @property
    def wants_query(self) -> bool:
        """Whether a site wants to know what the bare model makes of the input."""
        return self.enabled and any(isinstance(site, Query) for site in self.sites)

    def tell_query(self, features: Tensor) -> None:
        """Hand the bare model's features `[B,D]` to the sites that want them."""
        for site in self.sites:
            if isinstance(site, Query):
                site.receive(features)

    @contextmanager
    def watching(self) -> Iterator[list[Tensor]]:
        """Around one forward: count what acts, refuse silence, let go of everything afterwards;
        gives what `listening` does.
        """
        recomputing = recomputes(self.backbone.model)
        if recomputing:
            self._require_one_thread()
        # or what happens here had to happen once more in the backward pass, or others would see
        # zeros
        narrows = not recomputing and not self._observed()
        for actor in self._actors:
            actor.acted = 0
            if isinstance(actor, Narrowing):
                actor.active = narrows
        try:
            with self.listening() as heard:
                yield heard
            acting = [
                actor for actor in self._actors if self.enabled and not isinstance(actor, Narrowing)
            ]
            silent = [actor for actor in acting if actor.silent]
            if silent:
                raise PromptError(_silence(self.backbone, silent[0]))
        finally:
            for actor in self._actors:
                if isinstance(actor, Narrowing):
                    actor.active = False
            for interception in self._interceptions.values():
                interception.release()

    def _require_one_thread(self) -> None:
        """Raise `PromptError` where blocks run again in the backward pass of another thread, in the
        midst of this forward.
        """
        me, learner = threading.get_ident(), self._learner
        if learner not in (None, me) and any(
            thread.ident == learner for thread in threading.enumerate()
        ):
            raise PromptError(
                "Under activation checkpointing blocks run again in the backward pass, so only one"
                " thread can use the model, and another one learned with it. Switch it off"
                " (model.set_grad_checkpointing(False)), or use one thread."
            )
        if torch.is_grad_enabled():
            self._learner = me

    def _observed(self) -> bool:
        """Whether others' hooks see the last block or what comes behind it; those inside earlier
        blocks do not matter.
        """
        # it cannot look, and hooks that come later are not compiled either
        if torch.compiler.is_compiling():
            return self._seen_by_others
        earlier = {id(m) for block in self.backbone.blocks[:-1] for m in block.module.modules()}
        near = [m for m in self.backbone.model.modules() if id(m) not in earlier]
        self._seen_by_others = bool(foreign_hooks(near) or global_hooks())
        self._say_late_hooks()
        return self._seen_by_others

    def _say_late_hooks(self) -> None:
        """Once: that hooks came inside blocks after the prompt was attached, so that nobody looked
        at what they do to it.
        """
        inside = [
            m
            for block in self.backbone.blocks
            for m in block.module.modules()
            if m is not block.module
        ]
        late = bool(self._recordings()) and set(foreign_hooks(inside)) - self._hooks
        if late and not self._said:
            self._said = True
            LOGGER.warning(
                "%s got hooks inside its blocks after the prompt was attached. If they mix tokens,"
                " the prompt acts otherwise than it should: attach it again"
                " (model.swap(model.prompt)), and that is checked.",
                type(self.backbone.model).__name__,
            )

    def _recordings(self) -> list[Recording]:
        return [actor for actor in self._actors if isinstance(actor, Recording)]

    def start_afresh(self) -> None:
        """In a forked process: forget what another thread, which is not here, was in the midst
        of.
        """
        for interception in self._interceptions.values():
            interception.abandon()
        if self.backbone.attachment is self:
            self._uninstall()
            self.enabled = True
            self._install()

    @contextmanager
    def baked(self, run: Callable[[], object]) -> Iterator[None]:
        """Inside, recorded tokens act through keys and values computed once, on entry; a change of
        the prompt is not seen.

        run: one forward of the backbone. Raises `PromptError` for tokens that differ between
            samples.
        """
        recordings = self._recordings()
        try:
            with torch.inference_mode(False), torch.no_grad():
                for recording in recordings:
                    recording.baking = True
                run()
            for recording in recordings:
                recording.baking = False
            yield
        finally:
            for recording in recordings:
                recording.baking, recording.held = False, None

    @contextmanager
    def off(self) -> Iterator[None]:
        """Run the bare model inside this context; other threads wait for its end."""
        with self.backbone.guard:
            was = self.enabled
            self._uninstall()
            self.enabled = False
            try:
                yield
            finally:
                if was:  # not inside another such context
                    self.enabled = True
                    if self.backbone.attachment is self:  # nor removed meanwhile
                        self._install()

    def remove(self) -> None:
        """Take every hook off again; the model is as it was. Calling it twice does no harm."""
        with self.backbone.guard:
            self._uninstall()
            while self._readers:
                self._readers.pop().remove()
            if self.backbone.attachment is self:
                self.backbone.attachment = None


def _by_span(site: Site) -> tuple[int, bool, int]:
    """Those that only look on come first, then the outer spans."""
    return (
        (site.first, bool(site.count or site.whose), -site.last)
        if isinstance(site, Tokens)
        else (0, False, 0)
    )


def _cross(a: Tokens, b: Tokens) -> bool:
    a, b = sorted((a, b), key=_by_span)
    return b.first <= a.last < b.last


def _silence(backbone: Frozen, actor: Insertion | Recording | Interception) -> str:
    if isinstance(actor, Interception):
        return backbone.reach.no_attention(backbone.blocks.index(actor.block))
    span = f"blocks {actor.site.first} to {actor.site.last}"
    name = type(backbone.model).__name__
    return (
        f"Prompt tokens at {span} of {name} reached nothing: the blocks were not called (compiled,"
        " or skipped)."
    )
