"""Sites attached to a backbone: hooks that are owned, counted, and undone by their own handles."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from vpt.backbones.acting.arranging import Arrangement
from vpt.backbones.finding.strangers import foreign_hooks, global_hooks
from vpt.backbones.finding.structure import Args, recomputes
from vpt.backbones.frozen import Frozen
from vpt.errors import PromptError
from vpt.sites import Bare, Pixels, Site

LOGGER = logging.getLogger("vpt")


class Attachment:
    """The sites of one prompt at work on one backbone. Bound methods only, so that deepcopy and
    pickle follow it.

    via: how deep tokens act. "insert": put in and cut off, the slow and obvious way. "record": as
        keys and values, the same function for less work; and a last block of which only the first
        tokens are read does no more than these need. "auto": recorded where that can be, inserted
        elsewhere. Raises `PromptError` when a site does not fit, and at the end of a forward in
        which a site did not act.
    """

    def __init__(self, backbone: Frozen, sites: Sequence[Site] = (), via: str = "auto") -> None:
        if via not in ("auto", "insert", "record"):
            raise PromptError(
                f"Found via={via!r}; needed is 'auto', 'insert' (tokens go through the blocks)"
                " or 'record'."
            )
        self.backbone = backbone
        self.sites = tuple(sites)
        self.via = via
        self.enabled = True
        self._heard: list[Tensor] = []
        arranged = Arrangement(backbone, self.sites, via)
        self.acts = arranged.acts  # or else sites only look on, and the model is as without hooks
        self._actors = arranged.actors
        self._exits = arranged.exits()
        self.recordings = arranged.recordings
        self._interceptions = list(arranged.interceptions.values())
        self._readers: list[RemovableHandle] = [
            layer.register_forward_pre_hook(self._read_classifier) for layer in backbone.classifiers
        ]
        self._handles: list[RemovableHandle] = []
        self._learner: int | None = None  # the thread that learns under activation checkpointing
        self._said = False
        self._hooks = set(foreign_hooks(backbone.model.modules()))
        self._seen_by_others = bool(self._hooks or global_hooks())
        self._install()

    # at work ----------------------------------------------------------------------------
    def _install(self) -> None:
        # exits first, so that hooks stand in the order in which they were made
        for end in self._exits:
            self._handles += end.install()
        for actor in self._actors:
            self._handles += actor.install()

    def _uninstall(self) -> None:
        for interception in self._interceptions:
            interception.end()
        while self._handles:
            self._handles.pop().remove()

    def _read_classifier(self, module: nn.Module, args: Args) -> None:
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
    def wants_bare(self) -> bool:
        """Whether a site wants to know what the bare model makes of the input."""
        return self.enabled and any(isinstance(site, Bare) for site in self.sites)

    def tell_bare(self, features: Tensor) -> None:
        """Hand the bare model's features `[B,D]` to the sites that want them."""
        for site in self.sites:
            if isinstance(site, Bare):
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
            actor.begin(narrows)
        try:
            with self.listening() as heard:
                yield heard
            for actor in self._actors if self.enabled else ():
                if actor.silent:
                    raise PromptError(actor.silence(self.backbone.reach))
        finally:
            for actor in self._actors:
                actor.end()

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
        late = bool(self.recordings) and set(foreign_hooks(inside)) - self._hooks
        if late and not self._said:
            self._said = True
            LOGGER.warning(
                "%s got hooks inside its blocks after the prompt was attached. If they mix tokens,"
                " the prompt acts otherwise than it should: attach it again"
                " (model.swap(model.prompt)), and that is checked.",
                type(self.backbone.model).__name__,
            )

    def start_afresh(self) -> None:
        """In a forked process: forget what another thread, which is not here, was in the midst
        of.
        """
        for interception in self._interceptions:
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
        recordings = self.recordings
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
