"""Label maps: the model's K classes stand for the C that are wanted, with nothing trained (model
reprogramming).

Random and frequency maps: Tsai et al. 2020, Chen et al. CVPR 2023 (ILM-VP). Bayesian maps, BLM and
BLM+: Cai et al. NeurIPS 2024.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from vpt.errors import DataError, PromptError
from vpt.readouts.base import Readout, Refresh
from vpt.readouts.mappings import bayesian, one_to_one
from vpt.readouts.registry import register
from vpt.sites import BackboneLike, Config

HOW = ("random", "frequency", "iterative", "bayes", "bayes+")


@register("map:HOW", "the model's classes mapped: bayes, bayes+, iterative, frequency, random")
class LabelMap(Readout):
    """Logits of C classes from the model's own K: out = logits · W, W `[K,C]` counted, not trained.

    With n[s,t] = how many training examples of class t the prompted model takes for its class s:
    "random": distinct source classes drawn from `seed`, one per class. "frequency": the pairs of
    largest n, greedily, each source used once; counted before training. "iterative": the same,
    counted anew each epoch. "bayes" (BLM): W[s,t] ∝ n[s,t] / (Σ_t' n[s,t'] + smoothing), each
    column summing to 1. "bayes+" (BLM+): n adds up the probabilities of each example's ⌊top · C⌋
    (at least one) likeliest source classes instead of ones.

    classes: names of the C classes, or how many. sources: source classes per class, averaged
        ("random" to "iterative").
    refresh: "epoch" (an extra pass over the training data per epoch) or "reuse" (the logits of the
        epoch's own updates, free but older); the first three say for themselves. source_classes:
        names or number of the model's own, taken from it by default. Raises `PromptError`.
    """

    reads = "logits"
    trainable = False
    counts: Tensor
    weights: Tensor

    def __init__(
        self,
        classes: int | Sequence[str],
        how: str = "bayes",
        *,
        seed: int = 0,
        sources: int = 1,
        smoothing: float = 1.0,
        top: float = 0.15,
        refresh: str | None = None,
        source_classes: int | Sequence[str] | None = None,
    ) -> None:
        super().__init__(classes)
        if self.count is None or how not in HOW:
            raise PromptError(
                f"Found LabelMap({classes!r}, {how!r}); needed are classes and one of"
                f" {', '.join(HOW)}."
            )
        numbers = all(isinstance(n, int) and not isinstance(n, bool) for n in (sources, seed))
        if not numbers or sources < 1 or not 0 <= smoothing < math.inf or not 0 < top <= 1:
            raise PromptError(
                f"Found sources={sources}, smoothing={smoothing}, top={top}; needed are whole and ≥"
                " 1, ≥ 0, in (0, 1]."
            )
        counted = {"random": ("never",), "frequency": ("once",)}.get(how, ("epoch", "reuse"))
        if refresh is not None and refresh not in counted:
            raise PromptError(
                f"Found refresh={refresh!r} for a map that is {how!r}; needed is"
                f" {' or '.join(counted)}."
            )
        self.refresh: Refresh = refresh or counted[0]  # type: ignore[assignment]
        self.how = how
        self.seed = seed
        self.sources = sources
        self.smoothing = smoothing
        self.top = top
        self.source_classes: int | list[str] | None = None
        if source_classes is not None:
            self._allocate(
                source_classes if isinstance(source_classes, int) else list(source_classes)
            )

    def _allocate(self, source_classes: int | list[str]) -> None:
        self.source_classes = source_classes
        number = source_classes if isinstance(source_classes, int) else len(source_classes)
        if isinstance(source_classes, bool) or number < 1:
            raise PromptError(
                f"Found source_classes={source_classes!r}; needed are the model's own classes, or"
                " their number."
            )
        wanted = self.count or 0
        if number < wanted * self.sources and not self.how.startswith("bayes"):
            raise PromptError(
                f"The model has {number} classes; {wanted} classes with {self.sources} each need"
                f" {wanted * self.sources}. Use fewer sources, or how='bayes', which shares them."
            )
        self.register_buffer("counts", torch.zeros(number, wanted))
        self.register_buffer("weights", torch.zeros(number, wanted))
        if self.how == "random" and self.weights.device.type != "meta":
            drawn = torch.randperm(number, generator=torch.Generator().manual_seed(self.seed))[
                : wanted * self.sources
            ]
            self.weights[drawn, torch.arange(wanted).repeat_interleave(self.sources)] = (
                1 / self.sources
            )

    @classmethod
    def like(
        cls, backbone: BackboneLike, classes: Sequence[str], how: str = "bayes", seed: int = 0
    ) -> LabelMap:
        """The model's own classes, mapped to those of the data as `how` says."""
        return cls(classes, how, seed=seed)

    def bind(self, backbone: BackboneLike) -> None:
        """Take the model's own classes. Raises `PromptError` for a model without a classifier, or
        with more or fewer classes.
        """
        if not backbone.classes:
            raise PromptError(
                "LabelMap reads the model's own classifier, and this model has none. Use"
                " vpt.Linear."
            )
        own = backbone.class_names or backbone.classes
        if self.source_classes is None:
            self._allocate(own)
        elif len(self.counts) != backbone.classes:
            raise PromptError(
                f"Found a label map from {len(self.counts)} classes; this model has"
                f" {backbone.classes}."
            )
        elif (
            isinstance(self.source_classes, list)
            and backbone.class_names
            and self.source_classes != list(backbone.class_names)
        ):
            raise PromptError(
                f"Found a label map from {self.source_classes[:3]}, …; this model has"
                f" {backbone.class_names[:3]}, …"
            )

    def reset(self) -> None:
        """Forget what was counted; the map itself stays in use until `settle`."""
        self.counts.zero_()

    @torch.no_grad()
    def update(self, out: Tensor, y: Tensor) -> None:
        """Count logits `[B,K]` of examples of classes `[B]`. Raises `DataError` for a label out of
        range.
        """
        if len(y) and not (int(y.min()) >= 0 and int(y.max()) < self.counts.shape[1]):
            raise DataError(
                f"Found labels from {int(y.min())} to {int(y.max())}; there are"
                f" {self.counts.shape[1]} classes."
            )
        if y.dtype != torch.long or out.shape[1] != len(self.counts):
            raise DataError(
                f"Found logits {list(out.shape)} and labels of {y.dtype}; needed are"
                f" [B,{len(self.counts)}] and int64."
            )
        kept = (
            max(1, math.floor(self.top * self.counts.shape[1] + 1e-9))
            if self.how == "bayes+"
            else 1
        )
        values, places = torch.softmax(out.detach().float(), dim=1).topk(
            min(kept, out.shape[1]), dim=1
        )
        values = values if self.how == "bayes+" else torch.ones_like(values)
        self.counts.index_put_(
            (places, y[:, None].expand_as(places)), values.to(self.counts.dtype), accumulate=True
        )

    def settle(self) -> None:
        """Make the map from what was counted."""
        if self.how == "random":
            return
        if self.how.startswith("bayes"):
            self.weights.copy_(bayesian(self.counts, self.smoothing))
        else:
            self.weights.copy_(one_to_one(self.counts, self.sources))

    def statistics(self) -> list[Tensor]:
        """The counts."""
        return [self.counts]

    def forward(self, out: Tensor) -> Tensor:
        """Logits `[B,K]` → `[B,C]`. Raises `PromptError` before anything was counted."""
        if self.source_classes is None or (
            not torch.compiler.is_compiling() and not bool(self.weights.any())
        ):
            raise PromptError(
                "This LabelMap has counted no examples. Call update(logits, labels) and settle(),"
                " or vpt.fit."
            )
        return out @ self.weights.to(out.dtype)

    def mapping(self, top: int = 3) -> dict[str, list[tuple[str, float]]]:
        """For each class its `top` source classes of largest weight: {class: [(source class,
        weight), …]}, by name if known.
        """
        if self.source_classes is None:
            raise PromptError(
                "This LabelMap knows no model yet; join it to one: PromptedModel(backbone, prompt,"
                " label_map)."
            )
        sources = (
            self.source_classes
            if isinstance(self.source_classes, list)
            else [str(s) for s in range(len(self.weights))]
        )
        names = self.classes or [str(c) for c in range(self.weights.shape[1])]
        values, places = self.weights.T.topk(min(top, len(sources)), dim=1)
        rows = zip(places.tolist(), values.tolist(), strict=True)
        found = [[(sources[p], v) for p, v in zip(ps, vs, strict=True) if v > 0] for ps, vs in rows]
        return dict(zip(names, found, strict=True))

    def config(self) -> Config:
        """How it counts, and the classes on both sides."""
        names = ("how", "seed", "sources", "smoothing", "top", "refresh", "source_classes")
        return {**super().config(), **{name: getattr(self, name) for name in names}}
