"""A model, its input and its structure: called, read, and kept still. It knows nothing of
prompts.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from functools import partial
from typing import Any

import torch
from accelerate.utils import send_to_device
from torch import Tensor, nn
from torch.func import functional_call

from vpt.backbones.finding.pooling import Output, class_token_named, pooled, summed
from vpt.backbones.finding.reach import Reach
from vpt.backbones.finding.structure import (
    Block,
    Structure,
    logits_of,
    refuse_checkpointing,
    refuse_compiled,
)
from vpt.backbones.finding.watching import watch
from vpt.backbones.guard import Guard
from vpt.backbones.inputs.images import Images
from vpt.backbones.inputs.waveform import InputSpec
from vpt.backbones.owners import claim, disown, flags_of, give_back, owns, set_again
from vpt.errors import BackboneError, VptError
from vpt.sites import Settings

WATCHED = 3  # batch of the forward that is watched; heads or windows are rarely 3


class Frozen(nn.Module):
    """A model that stays as it is: always in eval mode, no parameter ever needs a gradient.

    model: the module itself. inputs: what raw input looks like. pool: how tokens `[B,N,D]` become
        features where the model does not pool itself. overrides: weights in place of the model's
        own while it runs. settings: (path, name) → attributes of its parts, likewise. reach: its
        blocks, and which prompts they can carry. guard: one forward at a time. out_features: D of
        its features. first_read: how many of the last block's tokens, the first ones, reach the
        answer; 0: all. `Backbone` measures both. Raises `BackboneError` for an unfit structure.
    """

    out_features: int = 0
    first_read: int = 0
    # what acts in its forwards; a `Backbone` gives the place to one at a time
    attachment: Any = None

    def __init__(
        self,
        model: nn.Module,
        inputs: InputSpec,
        *,
        blocks: str | None = None,
        pool: str | None = None,
        overrides: dict[str, Tensor] | None = None,
        settings: Settings | None = None,
    ) -> None:
        super().__init__()
        refuse_compiled(model)
        refuse_checkpointing(model)
        if pool not in (None, "first", "mean"):
            raise BackboneError(
                f"Found pool={pool!r}; needed is 'first', 'mean', or None for the model's own"
                " pooling."
            )
        self.model = model
        self.inputs = inputs
        self.class_token = class_token_named(model)
        self.pool = pool or ("first" if self.class_token else "mean")
        self._lengths: Tensor | None = None  # of the forward that runs
        self.guard = Guard()
        self._own_pooling = pool is None
        self._overrides = overrides or {}
        self._settings = settings or {}
        self._as_found: tuple[list[Any], list[Any]] | None = None
        self._finalizer: weakref.finalize[..., Frozen] | None = None
        self.hold()
        self._structure = self._observe(blocks)
        self.reach = Reach(type(model).__name__, self._structure.blocks)

    def _observe(self, blocks: str | None) -> Structure:
        try:
            x, lengths = self.inputs.prepare(
                send_to_device(self.inputs.example(WATCHED), self.device)
            )
            return watch(self.model, WATCHED, blocks, lambda: self.call(x, lengths))
        except VptError:
            raise
        except Exception as error:
            raise BackboneError(
                f"{type(self.model).__name__} could not run on inputs of shape"
                f" [B,{','.join(map(str, self.inputs.shape))}]: {type(error).__name__}: {error}."
                " Check inputs=…."
            ) from error

    # what is known of the model ---------------------------------------------------------
    @property
    def blocks(self) -> list[Block]:
        """The transformer blocks in order; empty for a model without any."""
        return self._structure.blocks

    @property
    def depth(self) -> int:
        """Number of transformer blocks."""
        return len(self.blocks)

    @property
    def widths(self) -> list[int]:
        """D of each block's tokens."""
        return [block.width for block in self.blocks]

    @property
    def heads(self) -> list[tuple[int, int] | None]:
        """(heads, head_dim) of each block's attention; None where SDPA was never called."""
        return self.reach.heads

    @property
    def patch_dim(self) -> int:
        """Fan-in of the patch embedding, C · height · width of a patch."""
        return self._structure.patch_dim

    @property
    def classifiers(self) -> list[nn.Linear]:
        """The final linear layers: one, two in a distilled model (their outputs are averaged), or
        none.
        """
        return self._structure.classifiers

    @property
    def classes(self) -> int:
        """K, the number of logits; 0 without a classifier."""
        return self.classifiers[0].out_features if self.classifiers else 0

    @property
    def dtype(self) -> torch.dtype:
        """Of the model's weights."""
        return self._like().dtype

    @property
    def device(self) -> torch.device:
        """Where the model's weights are."""
        return self._like().device

    def _like(self) -> Tensor:
        return next((p for p in self.model.parameters() if p.is_floating_point()), torch.zeros(()))

    # calling it -------------------------------------------------------------------------
    def call(self, x: Tensor, lengths: Tensor | None) -> Any:
        """What the model itself gives for prepared input `[B,…]`; whatever is hooked on it acts."""
        self._lengths = lengths
        x, extra = self.inputs.arguments(x, lengths)
        x = x.to(self._like())
        if not self._overrides:
            return self.model(x, **extra)
        instead = {name: value.to(self._like()) for name, value in self._overrides.items()}
        with self._set() if self._settings else nullcontext():
            return functional_call(self.model, instead, (x,), extra)

    def adjust(self, model: nn.Module) -> None:
        """Give a copy of the model, for good, what its input needs: positions of another length,
        settings.
        """
        for name, value in self._overrides.items():
            path, _, own = name.rpartition(".")
            module = model.get_submodule(path)
            old = getattr(module, own)
            fresh = value.to(old)
            if isinstance(old, nn.Parameter):
                fresh = nn.Parameter(fresh, old.requires_grad)
            setattr(module, own, fresh)
        for (path, name), setting in self._settings.items():
            setattr(model.get_submodule(path), name, setting)

    @contextmanager
    def _set(self) -> Iterator[None]:
        """Inside, some settings of the model are those that its input needs; they are put back,
        whatever happens.
        """
        places = [
            (self.model.get_submodule(path), name, value)
            for (path, name), value in self._settings.items()
        ]
        own = [(module, name, getattr(module, name)) for module, name, _ in places]
        try:
            for module, name, value in places:
                setattr(module, name, value)
            yield
        finally:
            for module, name, value in own:
                setattr(module, name, value)

    def summary(self, tokens: Tensor) -> Tensor:
        """Tokens `[B,N,D]` of the forward that runs → two sums of them `[B,2,D]`, as `summed`."""
        count = valid(tokens.shape[1]) if (valid := self._valid(self._lengths)) else None
        return summed(tokens, self.class_token, count)

    def _valid(self, lengths: Tensor | None) -> Callable[[int], Tensor] | None:
        """How many of N tokens are valid in each clip of these lengths; None: all are."""
        if lengths is None or isinstance(self.inputs, Images):
            return None
        return partial(self.inputs.token_lengths, lengths)

    def read(self, answer: Any, heard: list[Tensor], lengths: Tensor | None) -> Output:
        """What the model gave, as features and logits. heard: what its final linear layers read in
        that forward.
        """
        if heard:
            return Output(torch.stack(heard).mean(0).float(), logits_of(answer).float())  # type: ignore[union-attr]
        return Output(self._pooled(answer, lengths).float(), None)

    def _pooled(self, answer: Any, lengths: Tensor | None) -> Tensor:
        return pooled(answer, self.pool, self._own_pooling, self._valid(lengths))

    # kept still, whatever the caller does -----------------------------------------------
    def hold(self) -> None:
        """Take the model, if it is not taken, and keep it still. Raises `BackboneError` where
        another backbone has it.
        """
        if not torch.compiler.is_compiling() and not owns(self, self.model):
            claim(self, self.model)
            if self._as_found is None:
                self._as_found = (
                    [(p, p.requires_grad) for p in self.model.parameters()],
                    [(m, m.training) for m in self.model.modules()],
                )
            if self._finalizer is None or not self._finalizer.alive:
                self._finalizer = weakref.finalize(self, give_back, flags_of(self.model))
                self._finalizer.atexit = False
        for parameter in self.model.parameters():
            if parameter.requires_grad:
                parameter.requires_grad_(False)
        if any(module.training for module in self.model.modules()):
            self.model.eval()

    def train(self, mode: bool = True) -> Frozen:
        """Stay in eval mode whatever is asked (dropout, drop-path and LayerDrop would change what
        prompts learn).
        """
        super().train(False)
        return self

    def release(self) -> nn.Module:
        """The bare model with its training and requires_grad flags as they were found, for anyone
        to use. Raises nothing.

        It is taken again when this is next used, unless another backbone has it by then.
        """
        if self._as_found is not None:
            set_again(*self._as_found)
        self._as_found = None
        if self._finalizer is not None:
            self._finalizer.detach()
        disown(self, self.model)
        return self.model

    def __getstate__(self) -> dict[str, object]:
        """A copy owns nothing yet."""
        return self.__dict__ | {"_finalizer": None}
