"""A frozen model that admits one prompt at a time, runs with it, and gives features and logits."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from functools import partial

import torch
from torch import Tensor, nn

from vpt.backbones.acting.attachment import Attachment
from vpt.backbones.acting.narrowing import tokens_read
from vpt.backbones.finding.fingerprints import fingerprint_of
from vpt.backbones.finding.strangers import foreign_hooks, settings_of
from vpt.backbones.finding.structure import refuse_checkpointing
from vpt.backbones.inputs.images import Raw
from vpt.backbones.inputs.waveform import InputSpec
from vpt.backbones.running import Running
from vpt.errors import BackboneError, PromptError
from vpt.sites import Attended, Config, Observe, Settings, Site

LOGGER = logging.getLogger("vpt")


class Backbone(Running):
    """A frozen model, raw input in, features and logits out; prompts are attached to it, one at a
    time.

    depth: number of transformer blocks (0 for a CNN). widths: D of each block. heads: (heads,
        head_dim) of each block's attention, None where `scaled_dot_product_attention` is not
        called. class_names: of `logits`, or None. inputs: what raw input looks like. pool: how
        tokens `[B,N,D]` become features where the model does not pool itself: "first" (its default
        if it has a class token) or "mean" (over valid positions for sound). cache: of activations,
        for prompts that begin late. Raises `BackboneError` where the structure cannot be used.
    """

    def __init__(
        self,
        model: nn.Module,
        inputs: InputSpec,
        *,
        identity: Config | None = None,
        class_names: Sequence[str] | None = None,
        blocks: str | None = None,
        pool: str | None = None,
        overrides: dict[str, Tensor] | None = None,
        settings: Settings | None = None,
    ) -> None:
        super().__init__(
            model, inputs, blocks=blocks, pool=pool, overrides=overrides, settings=settings
        )
        self.identity = identity or {"kind": "module", "source": type(model).__name__}
        # what is done where others' hooks came or went
        self.look_again: Callable[[Backbone], None] = _trust
        # fingerprint of rounded weights → of those they came from
        self._rounded: dict[str, str] = {}
        self.class_names = list(class_names) if class_names is not None else None
        if self.class_names is not None and len(self.class_names) != self.classes:
            raise BackboneError(
                f"Found {len(self.class_names)} class names for a model with {self.classes}"
                " classes."
            )
        self.out_features = self._measure()
        if not self.classifiers and self.out_features == getattr(model, "num_classes", None):
            name = type(model).__name__
            LOGGER.warning(
                "The classifier of %s was not found: its %d logits are taken for features.",
                name,
                self.out_features,
            )

    def _measure(self) -> int:
        """Find out how many of the last block's tokens are read, as the model is now; the width of
        its features.
        """
        self._measured = (settings_of(self.model), foreign_hooks(self.model.modules()))
        features, self.first_read = tokens_read(
            self.blocks, lambda: self.run(self.inputs.example(1)).features
        )
        return features.shape[1]

    def _look(self) -> None:
        """Before something is attached: measure and check again what was found, if others changed
        the model since.
        """
        now = (settings_of(self.model), foreign_hooks(self.model.modules()))
        if now == self._measured:
            return
        hooked = now[1] != self._measured[1]
        if self._measure() != self.out_features:
            raise BackboneError(
                "The model was changed: its features have another width. Open it again:"
                " vpt.load_backbone(…)."
            )
        if hooked:
            self.look_again(self)

    def fingerprint(self) -> str:
        """SHA-256 over names, shapes and bytes of every weight and buffer; independent of device.

        Of weights that `round_weights` rounded, it is that of the weights they came from.
        """
        found = fingerprint_of(self.model, self.inputs)
        return self._rounded.get(found, found)

    def round_weights(self, dtype: torch.dtype) -> None:
        """Hold the frozen weights in another precision; prompts, readouts and audio front ends stay
        as they are.
        """
        before = self.fingerprint()
        self.model.to(dtype)
        self._overrides = {name: value.to(dtype) for name, value in self._overrides.items()}
        self.came_from(before)

    def came_from(self, fingerprint: str) -> None:
        """The weights are those of this fingerprint, held in another precision."""
        self._rounded[self.fingerprint()] = fingerprint

    @torch.no_grad()
    def witness(self) -> Tensor:
        """What the bare model makes of one fixed input: features, and up to 64 logits, in fp32 on
        the CPU.

        The weights' hash knows nothing of activation, heads, pooling, hooks or packed int8 weights;
        this does.
        """
        bare = self.attachment.off() if self.attachment is not None else nullcontext()
        with bare, torch.inference_mode(False), torch.autocast(self.device.type, enabled=False):
            out = self.run(self.inputs.witness())
        parts = [out.features[0], *([out.logits[0, :64]] if out.logits is not None else [])]
        return torch.cat(parts).float().cpu()

    # prompts ----------------------------------------------------------------------------
    def insert(self, sites: Sequence[Site], via: str = "auto") -> Attachment:
        """Attach sites; they act on every forward until the attachment is removed. Raises
        `PromptError`.

        via: how deep tokens act, "insert" (through the blocks) or "record" (as keys and values:
            the same function); "auto" records wherever that can be.
        """
        refuse_checkpointing(self.model)
        with self.guard:  # two threads that attach at once: one is refused
            if self.attachment is not None:
                raise PromptError(
                    "This backbone already has a prompt attached. Use model.swap(prompt) to"
                    " exchange it, or model.close() to take it off first."
                )
            self.hold()
            self._look()
            self.bare_features.clear()
            self.attachment = Attachment(self, tuple(sites), via)
            return self.attachment

    def record(self, x: Raw) -> list[dict[str, Tensor]]:
        """What each block sees on raw input, prompts off: `tokens` `[B,N,D]`, and `keys`, `values`
        `[B,heads,N,d]`.
        """
        if self.attachment is not None:
            raise PromptError(
                "Detach the prompt before recording the backbone's own tokens: model.close()."
            )
        seen: list[dict[str, Tensor]] = [{} for _ in self.blocks]

        def tokens(block: dict[str, Tensor], sequence: Tensor) -> None:
            block["tokens"] = sequence.detach()

        def keys_values(block: dict[str, Tensor], seen: Attended) -> None:
            block |= {"keys": seen.keys.detach(), "values": seen.values.detach()}

        attachment = self.insert(
            [
                Observe(
                    i,
                    tokens=partial(tokens, block),
                    attention=partial(keys_values, block) if heads else None,
                )
                for i, (block, heads) in enumerate(zip(seen, self.heads, strict=True))
            ],
            "insert",
        )
        try:
            with torch.no_grad():
                self.run(x)
        finally:
            attachment.remove()
        return seen

    def release(self) -> nn.Module:
        """The bare model with its training and requires_grad flags as they were found, for anyone
        to use. Raises nothing.

        The backbone takes it again when it is next used, unless another one has it by then.
        """
        if self.attachment is not None:
            self.attachment.remove()
        return super().release()


def _trust(backbone: Backbone) -> None:
    """Nothing: what a backbone does that was made without `load_backbone`."""
