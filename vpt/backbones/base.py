"""A frozen model with its preprocessing and its reachable places."""

from __future__ import annotations

import logging
import weakref
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from functools import partial
from typing import Any, NamedTuple

import torch
from accelerate.utils import send_to_device
from torch import Tensor, nn
from torch.func import functional_call

from vpt.backbones.acting.attachment import Attachment
from vpt.backbones.acting.narrowing import tokens_read
from vpt.backbones.finding.fingerprints import fingerprint_of
from vpt.backbones.finding.pooling import class_token_named, pooled
from vpt.backbones.finding.reach import Reach
from vpt.backbones.finding.strangers import foreign_hooks, settings_of
from vpt.backbones.finding.structure import Structure, logits_of, refuse_checkpointing, refuse_compiled, refuse_recomputing
from vpt.backbones.finding.watching import watch
from vpt.backbones.guard import Guard
from vpt.backbones.inputs.images import Images, Raw
from vpt.backbones.inputs.waveform import InputSpec
from vpt.backbones.keeping.activations import FeatureCache, input_keys
from vpt.backbones.keeping.queries import Queries
from vpt.backbones.owners import claim, disown, flags_of, give_back, owns, set_again
from vpt.errors import BackboneError, PromptError, VptError
from vpt.sites import KeyValues, Site, Tokens

LOGGER = logging.getLogger("vpt")
WATCHED = 3  # the batch of the forward that is watched; 3 heads or windows are rare, so that a dimension of 3 is the batch


class Output(NamedTuple):
    """One forward's two outputs: features `[B,D]`, and logits `[B,K]` where the model has a classifier."""

    features: Tensor
    logits: Tensor | None


class Backbone(Reach, nn.Module):
    """A frozen model: always in eval mode, no parameter ever needs a gradient, raw input in, features and logits out.

    depth: number of transformer blocks (0 for a CNN). widths: D of each block. heads: (heads, head_dim) of each block's
    attention, None where `scaled_dot_product_attention` is not called. out_features: D of `features`. class_names: of
    `logits`, or None. read: how many of the last block's tokens, the first ones, reach the answer; 0 for all. inputs: what raw
    input looks like. pool: how tokens `[B,N,D]` become features where the model does not pool itself: "first" (its default if it
    has a class token) or "mean" (over valid positions for sound). cache: of activations, for prompts that begin late.
    Raises `BackboneError` where the structure cannot be used.
    """

    def __init__(
        self,
        model: nn.Module,
        inputs: InputSpec,
        *,
        identity: dict[str, Any] | None = None,
        class_names: Sequence[str] | None = None,
        blocks: str | None = None,
        pool: str | None = None,
        overrides: dict[str, Tensor] | None = None,
        settings: dict[tuple[str, str], Any] | None = None,
    ) -> None:
        super().__init__()
        refuse_compiled(model)
        refuse_checkpointing(model)
        if pool not in (None, "first", "mean"):
            raise BackboneError(f"Found pool={pool!r}; needed is 'first', 'mean', or None for the model's own pooling.")
        self.model = model
        self.inputs = inputs
        self.identity = identity or {"kind": "module", "source": type(model).__name__}
        self.pool = pool or ("first" if class_token_named(model) else "mean")
        self._own_pooling = pool is None
        self._overrides = overrides or {}
        self._settings = settings or {}
        self.attachment: Attachment | None = None
        self.cache: FeatureCache | None = None
        self.queries = Queries()
        self.guard = Guard()
        self._rounded: dict[str, str] = {}  # fingerprint of rounded weights → of those they came from
        self.refused: dict[str, str] = {}  # prompt form → what `check` found wrong with it
        self.look_again: Callable[[Backbone], None] = _trust  # what is done where others' hooks came or went
        self._as_found: tuple[list, list] | None = None
        self._finalizer: weakref.finalize | None = None
        self._hold()
        try:
            self._structure = self._observe(blocks)
        except VptError:
            raise
        except Exception as error:
            raise BackboneError(
                f"{type(model).__name__} could not run on inputs of shape [B,{','.join(map(str, inputs.shape))}]: "
                f"{type(error).__name__}: {error}. Check inputs=…."
            ) from error
        self.class_names = list(class_names) if class_names is not None else None
        if self.class_names is not None and len(self.class_names) != self.classes:
            raise BackboneError(f"Found {len(self.class_names)} class names for a model with {self.classes} classes.")
        self.out_features = self._measure()
        if not self.classifiers and self.out_features == getattr(model, "num_classes", None):
            name = type(model).__name__
            LOGGER.warning("The classifier of %s was not found: its %d logits are taken for features.", name, self.out_features)

    def _measure(self) -> int:
        """Find out how many of the last block's tokens are read, as the model is now; the width of its features."""
        self._measured = (settings_of(self.model), foreign_hooks(self.model.modules()))
        features, self.read = tokens_read(self.blocks, lambda: self.run(self.inputs.example(1)).features)
        return features.shape[1]

    def _look(self) -> None:
        """Before something is attached: measure and check again what was found, if others changed the model since."""
        now = (settings_of(self.model), foreign_hooks(self.model.modules()))
        if now == self._measured:
            return
        hooked = now[1] != self._measured[1]
        if self._measure() != self.out_features:
            raise BackboneError("The model was changed: its features have another width. Open it again: vpt.load_backbone(…).")
        if hooked:
            self.look_again(self)

    def _observe(self, blocks: str | None) -> Structure:
        x, lengths = self.inputs.prepare(send_to_device(self.inputs.example(WATCHED), self.device))
        return watch(self.model, WATCHED, blocks, lambda: self._call(x, lengths))

    # what is known of the model ------------------------------------------------------------------------------------
    @property
    def patch_dim(self) -> int:
        """Fan-in of the patch embedding, C · height · width of a patch: half of VPT's initialisation bound."""
        return self._structure.patch_dim

    @property
    def classifiers(self) -> list[nn.Linear]:
        """The final linear layers: one, two in a distilled model (their outputs are averaged), or none."""
        return self._structure.classifiers

    @property
    def classes(self) -> int:
        """K, the number of logits; 0 without a classifier."""
        return self.classifiers[0].out_features if self.classifiers else 0

    def fingerprint(self) -> str:
        """SHA-256 over names, shapes and bytes of every weight and buffer; independent of device.

        Of weights that `round_weights` rounded, it is that of the weights they came from.
        """
        found = fingerprint_of(self.model, self.inputs)
        return self._rounded.get(found, found)

    def round_weights(self, dtype: torch.dtype) -> None:
        """Hold the frozen weights in another precision; prompts, readouts and audio front ends stay as they are."""
        before = self.fingerprint()
        self.model.to(dtype)
        self._overrides = {name: value.to(dtype) for name, value in self._overrides.items()}
        self.came_from(before)

    def came_from(self, fingerprint: str) -> None:
        """The weights are those of this fingerprint, held in another precision."""
        self._rounded[self.fingerprint()] = fingerprint

    @torch.no_grad()
    def witness(self) -> Tensor:
        """What the bare model makes of one fixed input: features, and up to 64 logits, in fp32 on the CPU.

        The weights' hash knows nothing of activation, heads, pooling, hooks or packed int8 weights; this does.
        """
        bare = self.attachment.off() if self.attachment is not None else nullcontext()
        with bare, torch.inference_mode(False), torch.autocast(self.device.type, enabled=False):
            out = self.run(self.inputs.witness())
        parts = [out.features[0], *([out.logits[0, :64]] if out.logits is not None else [])]
        return torch.cat(parts).float().cpu()

    @property
    def dtype(self) -> torch.dtype:
        """Of the model's weights."""
        return self._like().dtype

    @property
    def device(self) -> torch.device:
        """Where the model's weights are."""
        return self._like().device

    # running it ----------------------------------------------------------------------------------------------------
    def run(self, x: Raw) -> Output:
        """Raw input → `Output`; attached prompts act. Raises `InputError`, and `PromptError` for a site that did not act.

        Threads may share a backbone; their forwards follow one another.
        """
        if torch.compiler.is_compiling():  # which knows no locks
            return self._run(x)
        with self.guard:
            return self._run(x)

    def _run(self, x: Raw) -> Output:
        self._hold()
        attachment = self.attachment or Attachment(self, ())
        if self.guard.renewed:
            self.guard.renewed = False
            attachment.start_afresh()
        try:
            prepared, lengths = self.inputs.prepare(send_to_device(x, self.device))
            if not len(prepared):  # some front ends and models cannot
                return Output(*(prepared.new_zeros(0, n) if n else None for n in (self.out_features, self.classes)))  # type: ignore[arg-type]
            if attachment.wants_query:
                refuse_recomputing(self.model, "A prompt made from a query")
                attachment.tell_query(self._query(prepared, lengths, attachment))
            with attachment.watching():
                prepared, lengths = attachment.pixels(prepared, lengths)
                answer = self._answer(prepared, lengths, attachment)
                return self._read(answer, attachment.classifier_inputs, lengths)
        finally:
            if attachment is not self.attachment:
                attachment.remove()

    def _answer(self, prepared: Tensor, lengths: Tensor | None, attachment: Attachment) -> Any:
        """What the model gives for preprocessed input, from what is kept of it where that can be."""
        if self.cache is None or torch.compiler.is_compiling() or not self.cache.fits(attachment.sites):
            return self._call(prepared, lengths)
        return self.cache.answer(prepared, lengths, attachment)

    @torch.compiler.disable  # it takes hooks off, and looks things up
    def _query(self, prepared: Tensor, lengths: Tensor | None, attachment: Attachment) -> Tensor:
        """The bare model's features `[B,D]` of preprocessed input, without gradient."""

        def compute(missing: list[int]) -> Tensor:
            some = None if lengths is None else lengths[missing]
            try:
                with torch.no_grad(), attachment.off():
                    answer = self._answer(prepared[missing], some, attachment)
                    return self._read(answer, attachment.classifier_inputs, some).features
            finally:
                attachment.classifier_inputs.clear()

        if not self.queries.keep:
            return compute(list(range(len(prepared))))
        return self.queries.answer(input_keys(self, prepared, lengths), compute)

    def straight(self, x: Raw) -> Tensor:
        """What the model itself answers, with no hook of ours at work: the reference that `check` compares with."""
        prepared, lengths = self.inputs.prepare(send_to_device(x, self.device))
        answer = self._call(prepared, lengths)
        return (logits_of(answer) if self.classifiers else self._pooled(answer, lengths)).float()  # type: ignore[union-attr]

    def forward(self, x: Raw) -> Output:
        """Same as `run`."""
        return self.run(x)

    def features(self, x: Raw) -> Tensor:
        """Raw input → features `[B,D]`: what the model's final classifier reads, or its pooled tokens."""
        return self.run(x).features

    def logits(self, x: Raw) -> Tensor:
        """Raw input → logits `[B,K]`. Raises `BackboneError` for a model without a classifier."""
        logits = self.run(x).logits
        if logits is None:
            name = type(self.model).__name__
            raise BackboneError(f"{name} has no classifier, so it has no logits. Read its features instead: vpt.Linear.")
        return logits

    def _call(self, x: Tensor, lengths: Tensor | None) -> Any:
        x, extra = self.inputs.arguments(x, lengths)
        x = x.to(self._like())
        if not self._overrides:
            return self.model(x, **extra)
        instead = {name: value.to(self._like()) for name, value in self._overrides.items()}
        with self._set() if self._settings else nullcontext():
            return functional_call(self.model, instead, (x,), extra)

    @contextmanager
    def _set(self) -> Iterator[None]:
        """Inside, some settings of the model are those that its input needs; they are put back, whatever happens."""
        places = [(self.model.get_submodule(path), name, value) for (path, name), value in self._settings.items()]
        own = [(module, name, getattr(module, name)) for module, name, _ in places]
        try:
            for module, name, value in places:
                setattr(module, name, value)
            yield
        finally:
            for module, name, value in own:
                setattr(module, name, value)

    def _read(self, answer: Any, classifier_inputs: list[Tensor], lengths: Tensor | None) -> Output:
        if classifier_inputs:
            return Output(torch.stack(classifier_inputs).mean(0).float(), logits_of(answer).float())  # type: ignore[union-attr]
        return Output(self._pooled(answer, lengths).float(), None)

    def _pooled(self, answer: Any, lengths: Tensor | None) -> Tensor:
        valid = None if lengths is None or isinstance(self.inputs, Images) else partial(self.inputs.token_lengths, lengths)
        return pooled(answer, self.pool, self._own_pooling, valid)

    # prompts -------------------------------------------------------------------------------------------------------
    def insert(self, sites: Sequence[Site], exact: str = "auto") -> Attachment:
        """Attach sites; they act on every forward until the attachment is removed. Raises `PromptError`.

        exact: how deep tokens act, "insert" (through the blocks) or "record" (as keys and values: the same function); "auto"
        records wherever that can be.
        """
        refuse_checkpointing(self.model)
        with self.guard:  # two threads that attach at once: one is refused
            if self.attachment is not None:
                raise PromptError("This backbone already has a prompt attached. Use model.swap(prompt) to exchange it, or "
                                  "model.close() to take it off first.")  # fmt: skip
            self._hold()
            self._look()
            self.queries.clear()
            self.attachment = Attachment(self, tuple(sites), exact)
            return self.attachment

    def record(self, x: Raw) -> list[dict[str, Tensor]]:
        """What each block sees on raw input, prompts off: `tokens` `[B,N,D]`, and `keys`, `values` `[B,heads,N,d]`."""
        if self.attachment is not None:
            raise PromptError("Detach the prompt before recording the backbone's own tokens: model.close().")
        seen: list[dict[str, Tensor]] = [{} for _ in self.blocks]

        def tokens(block: dict[str, Tensor], sequence: Tensor) -> Tensor:
            block["tokens"] = sequence.detach()
            return sequence[:, :0]

        def keys_values(block: dict[str, Tensor], keys: Tensor, values: Tensor) -> tuple[Tensor, Tensor, None]:
            block["keys"], block["values"] = keys.detach(), values.detach()
            return keys[..., :0, :], values[..., :0, :], None

        sites: list[Site] = [Tokens(i, i, 0, partial(tokens, block)) for i, block in enumerate(seen)]
        sites += [KeyValues(i, 0, partial(keys_values, seen[i])) for i, heads in enumerate(self.heads) if heads]
        attachment = self.insert(sites, "insert")
        try:
            with torch.no_grad():
                self.run(x)
        finally:
            attachment.remove()
        return seen

    # frozen, whatever the caller does ------------------------------------------------------------------------------
    def _like(self) -> Tensor:
        return next((p for p in self.model.parameters() if p.is_floating_point()), torch.zeros(()))

    def _hold(self) -> None:
        """Take the model, if it is not taken, and keep it still."""
        if not torch.compiler.is_compiling() and not owns(self):
            claim(self)
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

    def train(self, mode: bool = True) -> Backbone:
        """Stay in eval mode whatever is asked (dropout, drop-path and LayerDrop would change what prompts learn)."""
        super().train(False)
        return self

    def release(self) -> nn.Module:
        """The bare model with its training and requires_grad flags as they were found, for anyone to use. Raises nothing.

        The backbone takes it again when it is next used, unless another one has it by then.
        """
        if self.attachment is not None:
            self.attachment.remove()
        if self._as_found is not None:
            set_again(*self._as_found)
        self._as_found = None
        if self._finalizer is not None:
            self._finalizer.detach()
        disown(self)
        return self.model

    def __getstate__(self) -> dict[str, Any]:
        """A copy owns nothing yet."""
        return self.__dict__ | {"_finalizer": None}


def _trust(backbone: Backbone) -> None:
    """Nothing: what a backbone does that was made without `load_backbone`."""
