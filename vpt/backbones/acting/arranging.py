"""Which actor carries out which site, and in which order their hooks stand."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

from torch import Tensor

from vpt.backbones.acting.actor import Actor
from vpt.backbones.acting.fit import check_fit
from vpt.backbones.acting.insertion import Exit, Insertion
from vpt.backbones.acting.interception import Interception
from vpt.backbones.acting.narrowing import Narrowing, can_narrow
from vpt.backbones.acting.observing import Observing
from vpt.backbones.acting.reading import Looking, Reading, Telling, calls_other_attention
from vpt.backbones.acting.recording import Recording
from vpt.backbones.frozen import Frozen
from vpt.errors import PromptError
from vpt.sites import KeyValues, Observe, Pixels, Queries, Site, Tokens


class Arrangement:
    """The actors that carry out sites on a backbone, by kind.

    via: how deep tokens act, as for `Attachment`. Raises `PromptError` for a site that does not
        fit.
    """

    def __init__(self, backbone: Frozen, sites: Sequence[Site], via: str) -> None:
        self.backbone = backbone
        self.sites = sites
        self.via = via
        check_fit(backbone, sites, self._is_recorded)
        self.insertions: list[Insertion] = []
        self.recordings: list[Recording] = []
        self.readings: list[Looking] = []
        self.interceptions: dict[int, Interception] = {}
        spans: list[Actor] = []
        # of two spans the outer one enters first and leaves last
        for site in sorted(sites, key=_by_span):
            if isinstance(site, Tokens):
                spans.append(self._tokens(site))
            elif isinstance(site, KeyValues):
                self._interception(site.block).sites.append(site)
            elif isinstance(site, Observe):
                spans += self._observe(site)
        # known only now: which attention is reached anyway
        self.readings += [
            reading
            for site in sites
            if isinstance(site, (Queries, Observe))
            for reading in self._reading(site)
        ]
        spans = [*self.readings, *spans]
        looking = [*self.interceptions.values(), *(r.interception for r in self.readings)]
        for interception in looking:
            at = backbone.blocks.index(interception.block)
            spans_here = (i for i in self.insertions if i.site.first <= at <= i.site.last)
            interception.spans = list(spans_here)
        # what only looks on leaves the model bit for bit as it is
        self.acts = any(isinstance(site, (Pixels, Tokens, KeyValues)) for site in sites)
        self.narrowings = self._narrow() if self.acts else []
        # hooks of one block stand in this order: attention comes last, when all rows are there
        self.actors: list[Actor] = [*spans, *self.narrowings, *self.interceptions.values()]

    def exits(self) -> list[Exit]:
        """One for each block behind which spans end."""
        ends: dict[int, list[Insertion]] = {}
        for insertion in self.insertions:
            ends.setdefault(insertion.site.last, []).append(insertion)
        return [Exit(spans) for spans in ends.values()]

    def _interception(self, block: int) -> Interception:
        return self.interceptions.setdefault(block, Interception(self.backbone.blocks[block]))

    def _observe(self, site: Observe) -> list[Observing]:
        tells = [site.tokens] if site.tokens is not None else []
        if site.summary is not None:
            tells.append(partial(self._summed, site.summary))
        behind = site.block == self.backbone.depth
        block = self.backbone.blocks[site.block - behind]
        return [Observing(tell, block, behind) for tell in tells]

    def _summed(self, tell: Callable[[Tensor], None], tokens: Tensor) -> None:
        tell(self.backbone.summary(tokens))

    def _reading(self, site: Queries | Observe) -> list[Looking]:
        if isinstance(site, Observe) and site.attention is None:
            return []
        block = self.backbone.blocks[site.block]
        apart = site.block not in self.interceptions and calls_other_attention(block)
        interception = Interception(block) if apart else self._interception(site.block)
        if isinstance(site, Queries):
            return [Reading(site, interception, apart)]
        return [Telling(site.attention, interception, apart)] if site.attention else []

    def _tokens(self, site: Tokens) -> Insertion | Recording:
        """Recorded where windows or the caller want it, inserted elsewhere."""
        blocks = self.backbone.blocks
        if blocks[site.first].windowed or self._is_recorded(site):
            self.recordings.append(Recording(site, self._interception(site.first)))
            return self.recordings[-1]
        insertion = Insertion(site, blocks)
        # transformers makes masks when compiled, or when a clip has padding
        makes_masks = hasattr(self.backbone.model, "config")
        for i in range(site.first, site.last + 1):
            if blocks[i].masked or (makes_masks and blocks[i].heads):
                self._interception(i).inserted = True
            if site.mixed:
                self._interception(i).padded.append(insertion)
        self.insertions.append(insertion)
        return insertion

    def _is_recorded(self, site: Tokens) -> bool:
        """Whether this site acts as keys and values: it spans one block, and the caller or the
        model would have it so.
        """
        if site.first != site.last or self.via != "auto":
            return self.via == "record" and site.first == site.last
        unknown = 0 <= site.first < self.backbone.depth and self.backbone.blocks[site.first].unknown
        if unknown or "deep" in self.backbone.reach.refused:
            return False  # there was nothing to compare with
        try:
            self.backbone.reach.need_tokens(site.first, site.last, recorded=True)
        except PromptError:
            return False
        return True

    def _narrow(self) -> list[Narrowing]:
        """For the last block, unless tokens are inserted there."""
        backbone, last = self.backbone, self.backbone.depth - 1
        inserted = any(insertion.site.last == last for insertion in self.insertions)
        # who runs the block again needs all its tokens
        again = any(
            reading.apart and reading.interception.block is backbone.blocks[last]
            for reading in self.readings
        )
        again |= any(isinstance(site, Observe) and site.block > last for site in self.sites)
        if self.via == "insert" or inserted or again or not backbone.first_read:
            return []
        if "recorded" in backbone.reach.refused or not can_narrow(backbone.blocks[last]):
            return []
        return [Narrowing(backbone.first_read, self._interception(last))]


def _by_span(site: Site) -> tuple[int, bool, int]:
    """Those that only look on come first, then the outer spans."""
    if isinstance(site, Observe):
        return site.block, False, 0
    return (site.first, True, -site.last) if isinstance(site, Tokens) else (0, False, 0)
