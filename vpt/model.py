"""A backbone, a prompt and a readout joined."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from torch import Tensor, nn

from vpt.backbones import Attachment, Backbone, Raw
from vpt.errors import BackboneError, PromptError
from vpt.prompts import Prompt
from vpt.readouts import Readout


class PromptedModel(nn.Module):
    """Raw input → class scores `[B,C]`, with the prompt acting on a frozen backbone.

    backbone: from `vpt.load_backbone`. prompt: None for a bare readout. exact: how deep tokens act, "insert" (through the
    blocks, as in VPT's equation 6) or "record" (as the keys and values that they are to a frozen block: the same function for
    less work); "auto" records wherever that can be.
    Raises `PromptError` when prompt or readout do not fit, or another prompt is attached already.
    """

    def __init__(self, backbone: Backbone, prompt: Prompt | None, readout: Readout, *, exact: str = "auto") -> None:
        super().__init__()
        if not isinstance(backbone, Backbone):
            raise BackboneError(f"Found {type(backbone).__name__} as backbone; needed is vpt.load_backbone(model).")
        self.backbone = backbone
        self.exact = exact
        self.prompt: Prompt
        self.readout: Readout
        self._join(prompt, readout)

    def _join(self, prompt: Prompt | None, readout: Readout) -> None:
        prompt = prompt if prompt is not None else Prompt()
        if not isinstance(prompt, Prompt) or not isinstance(readout, Readout):
            raise PromptError(f"Found prompt {type(prompt).__name__} and readout {type(readout).__name__}; needed are e.g. "
                              "vpt.DeepTokens.like(backbone) and vpt.Linear(backbone.out_features, classes).")  # fmt: skip
        readout.bind(self.backbone)
        prompt, readout = prompt.to(self.backbone.device), readout.to(self.backbone.device)
        self.attachment = self._attach(prompt)
        self.prompt, self.readout = prompt, readout

    def _attach(self, prompt: Prompt) -> Attachment:
        """Attach in eval mode: what an attachment tries out must not move running statistics."""
        training = prompt.training
        prompt.eval()
        try:
            return self.backbone.insert(prompt.sites(), self.exact)
        finally:
            prompt.train(training)

    @property
    def classes(self) -> list[str] | None:
        """Class names of the scores, where they are known."""
        return self.readout.classes

    def outputs(self, x: Raw) -> Tensor:
        """Raw input → what the readout reads: features `[B,D]` or logits `[B,K]`, prompts acting."""
        if self.backbone.attachment is not self.attachment:
            raise PromptError("This model was closed, or its backbone now carries another prompt. Make a new PromptedModel.")
        return self.backbone.logits(x) if self.readout.reads == "logits" else self.backbone.features(x)

    def forward(self, x: Raw) -> Tensor:
        """Raw input → class scores `[B,C]`."""
        return self.readout(self.outputs(x))

    def trained_parameters(self) -> dict[str, list[nn.Parameter]]:
        """What learns by gradient, by part: "prompt" and "readout"."""
        return {
            "prompt": [p for p in self.prompt.parameters() if p.requires_grad],
            "readout": [p for p in self.readout.parameters() if p.requires_grad and self.readout.trainable],
        }

    @contextmanager
    def prompts_off(self) -> Iterator[None]:
        """Inside this context the backbone runs bare."""
        with self.attachment.off():
            yield

    @contextmanager
    def baked(self) -> Iterator[PromptedModel]:
        """For serving: inside this context deep tokens are not run through their blocks' projections again in every forward.

        Their keys and values are computed on entry (under the autocast that holds there) and kept until the end: a prompt that
        changes meanwhile is not seen, nor does it learn. Raises `PromptError` for a model in training mode.
        """
        if self.prompt.training:
            raise PromptError("This model is in training mode, and a baked prompt learns nothing. Call model.eval() first.")
        with self.attachment.baked():
            yield self

    def swap(self, prompt: Prompt | None, readout: Readout | None = None) -> PromptedModel:
        """Exchange the prompt (and readout); the old ones stay usable. On a misfit the model is left as it was."""
        self.attachment.remove()
        try:
            self._join(prompt, readout if readout is not None else self.readout)
        except (PromptError, BackboneError):
            self.attachment = self._attach(self.prompt)
            raise
        return self

    def close(self) -> nn.Module:
        """Take everything off and return the bare model, bit for bit as it was found. The prompt keeps what it learned."""
        self.attachment.remove()
        return self.backbone.release()

    def __enter__(self) -> PromptedModel:
        """Use as a context: `close` follows, also after an exception."""
        return self

    def __exit__(self, *error: object) -> None:
        self.close()
