"""A frozen model that runs: raw input in, features and logits out, with whatever is attached."""

from __future__ import annotations

from functools import cached_property
from typing import Any

import torch
from accelerate.utils import send_to_device
from torch import Tensor

from vpt.backbones.acting.attachment import Attachment
from vpt.backbones.finding.structure import logits_of, refuse_recomputing
from vpt.backbones.frozen import Frozen, Output
from vpt.backbones.inputs.images import Raw
from vpt.backbones.keeping.activations import FeatureCache
from vpt.backbones.keeping.memo import Memo, input_keys
from vpt.errors import BackboneError

QUERIES = 64 << 20  # bytes: 20,000 samples of 768 features


class Running(Frozen):
    """A frozen model, what is attached to it, and what is kept of its inputs.

    attachment: the prompt at work, or None. cache: of activations, for prompts that begin late.
    """

    attachment: Attachment | None = None
    cache: FeatureCache | None = None

    @cached_property
    def bare_features(self) -> Memo:
        """The bare model's features, by input."""
        return Memo(QUERIES)

    def run(self, x: Raw) -> Output:
        """Raw input → `Output`; attached prompts act. Raises `InputError`, and `PromptError` for a
        site that did not act.

        Threads may share a backbone; their forwards follow one another.
        """
        if torch.compiler.is_compiling():  # which knows no locks
            return self._run(x)
        with self.guard:
            return self._run(x)

    def _run(self, x: Raw) -> Output:
        self.hold()
        attachment = self.attachment or Attachment(self)
        if self.guard.renewed:
            self.guard.renewed = False
            attachment.start_afresh()
        try:
            prepared, lengths = self.inputs.prepare(send_to_device(x, self.device))
            if prepared.shape[0] == 0:  # some front ends and models cannot
                logits = prepared.new_zeros(0, self.classes) if self.classes else None
                return Output(prepared.new_zeros(0, self.out_features), logits)
            if attachment.wants_bare:
                refuse_recomputing(self.model, "A prompt made from a query")
                attachment.tell_bare(self._bare(prepared, lengths, attachment))
            with attachment.watching() as heard:
                prepared, lengths = attachment.pixels(prepared, lengths)
                answer = self._answer(prepared, lengths, attachment)
                return self.read(answer, heard, lengths)
        finally:
            if attachment is not self.attachment:
                attachment.remove()

    def _answer(self, prepared: Tensor, lengths: Tensor | None, attachment: Attachment) -> Any:
        """What the model gives for preprocessed input, from what is kept of it where that can
        be.
        """
        if (
            self.cache is None
            or torch.compiler.is_compiling()
            or not self.cache.fits(attachment.sites)
        ):
            return self.call(prepared, lengths)
        return self.cache.answer(prepared, lengths, attachment)

    @torch.compiler.disable  # it takes hooks off, and looks things up
    def _bare(self, prepared: Tensor, lengths: Tensor | None, attachment: Attachment) -> Tensor:
        """The bare model's features `[B,D]` of preprocessed input, without gradient."""

        def compute(missing: list[int]) -> Tensor:
            some = None if lengths is None else lengths[missing]
            with torch.no_grad(), attachment.off(), attachment.listening() as heard:
                answer = self._answer(prepared[missing], some, attachment)
                return self.read(answer, heard, some).features

        if not self.bare_features.keep:
            return compute(list(range(len(prepared))))
        return self.bare_features.recall(input_keys(self.dtype, prepared, lengths), compute)

    def forward(self, x: Raw) -> Output:
        """Same as `run`."""
        return self.run(x)

    def features(self, x: Raw) -> Tensor:
        """Raw input → features `[B,D]`: what the model's final classifier reads, or its pooled
        tokens.
        """
        return self.run(x).features

    def logits(self, x: Raw) -> Tensor:
        """Raw input → logits `[B,K]`. Raises `BackboneError` for a model without a classifier."""
        logits = self.run(x).logits
        if logits is None:
            name = type(self.model).__name__
            raise BackboneError(
                f"{name} has no classifier, so it has no logits. Read its features instead:"
                " vpt.Linear."
            )
        return logits

    def straight(self, x: Raw) -> Tensor:
        """What the model itself answers, with no hook of ours at work: `check` compares with it."""
        prepared, lengths = self.inputs.prepare(send_to_device(x, self.device))
        answer = self.call(prepared, lengths)
        return (logits_of(answer) if self.classifiers else self._pooled(answer, lengths)).float()  # type: ignore[union-attr]
