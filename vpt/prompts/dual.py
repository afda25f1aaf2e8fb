"""One prefix for all tasks and one expert per task, chosen by the sample: DualPrompt (Wang et al.,
ECCV 2022).
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from vpt.errors import PromptError
from vpt.errors.needs import whole
from vpt.prompts.base import MOST, choose_blocks, vpt_bound
from vpt.prompts.prefix import Prefix
from vpt.prompts.queried import Blocks, Queried, cosine, draw, freeze, half_of
from vpt.prompts.registry import register
from vpt.sites import BackboneLike, Config, Site


@register("dual:LENGTH", "a prefix for all, and an expert chosen by the query (DualPrompt)")
class DualPrompt(Queried):
    """A general prefix in some blocks, and in others the expert of one task: in training that of
    the newest, else of the key k_t nearest to the sample's query. The loss draws the newest key to
    its samples: CE + pull · (1/B) Σ_b (1 − cos(q_b, k_t)).

    general: config of a `Prefix`, or None. tasks: how many there are; `grow` adds one, and earlier
        experts and keys learn no more. As in LAMDA-PILOT's code one key chooses for all blocks, and
        the pull is a mean over the batch; CODA-Prompt's has a key per block and a sum, and prompts
        twice as long. experts: per task and block `[length,D]`; keys: per task `[D]` (with one_pass
        per task and block).
    """

    def __init__(
        self,
        length: int,
        heads: int | Sequence[int],
        head_dim: int | Sequence[int],
        blocks: Sequence[int],
        width: int | Sequence[int],
        general: Config | None = None,
        pull: float = 1.0,
        one_pass: bool = False,
        tasks: int = 1,
    ) -> None:
        super().__init__(length, heads, head_dim, blocks, width, one_pass)
        whole(PromptError, most=MOST, tasks=tasks)
        self.general = Prefix(**general) if general is not None else None
        self.pull = pull
        self.tasks = 0
        self.experts = nn.ParameterList()
        self.keys = nn.ParameterList()
        for _ in range(tasks):
            self.grow()

    @classmethod
    def like(
        cls,
        backbone: BackboneLike,
        length: int = 10,
        *,
        blocks: Blocks = None,
        general: int = 6,
        general_blocks: Blocks = None,
        pull: float = 1.0,
        one_pass: bool = False,
        seed: int = 0,
    ) -> DualPrompt:
        """Of a backbone's sizes.

        backbone: whose keys and values they join.
        length: of each expert, half keys and half values.
        blocks: of the experts; by default the three behind the general ones.
        general: length of the general prompt, half keys and half values; 0 for none.
        general_blocks: its blocks; 0 and 1 by default.
        pull: weight of the term that draws keys to their queries.
        one_pass: take the query from the prompted block's own tokens, instead of a forward more.
        seed: of what is drawn.
        """
        backbone.reach.need_blocks()
        early = [0, 1] if backbone.depth > 2 else [0] if backbone.depth > 1 and general else []
        first = (
            choose_blocks(general_blocks if general_blocks is not None else early, backbone.depth)
            if general and early
            else []
        )
        rest = [i for i in range(backbone.depth) if i not in first][:3]
        config = None
        if first:
            shared = Prefix.like(backbone, half_of(general, "general"), blocks=first, seed=seed)
            config = shared.config()
        prompt = cls(
            length, general=config, pull=pull, **cls.places(backbone, blocks, rest, one_pass)
        )
        if prompt.general is not None and config is not None:
            prompt.general.load_state_dict(shared.state_dict())
        prompt.tasks, prompt.experts, prompt.keys = 0, nn.ParameterList(), nn.ParameterList()
        prompt.grow(seed)
        return prompt

    def grow(self, seed: int = 0) -> None:
        """A new expert and key; the earlier ones learn no more."""
        freeze(self.experts)
        freeze(self.keys)
        generator = torch.Generator().manual_seed(seed + 1000 * self.tasks)
        like = next(self.parameters(), None)
        for i in range(len(self.blocks)):
            width = self._prompt_width(i)
            self.experts.append(
                draw((self.length, width), vpt_bound(width, width), generator, like)
            )
        for width in self.widths if self.one_pass else self.widths[:1]:
            self.keys.append(draw((width,), None, generator, like))
        self.tasks += 1

    def sites(self) -> tuple[Site, ...]:
        """Those of the general prefix, and of the experts."""
        return (*(self.general.sites() if self.general is not None else ()), *super().sites())

    def _keys(self, index: int) -> Tensor:
        """The tasks' keys `[T,D]` for the `index`-th prompted block."""
        each = len(self.keys) // self.tasks
        return torch.stack([self.keys[t * each + index % each] for t in range(self.tasks)])

    def weights(self, index: int, query: Tensor) -> Tensor:
        """Query `[B,D]` → 1 for the task whose key is nearest, 0 for the others `[B,T]`."""
        found = cosine(query, self._keys(index))
        return torch.zeros_like(found).scatter(1, found.argmax(1, keepdim=True), 1.0)

    def rows(self, index: int, query: Tensor) -> Tensor:
        """Query `[B,D]` → the newest expert `[1,1,length,D]` in training, else each sample's own
        `[B,1,length,D]`.
        """
        experts = [self.experts[t * len(self.blocks) + index] for t in range(self.tasks)]
        if self.training or self.newest:
            return experts[-1][None, None]
        return torch.stack(experts)[cosine(query, self._keys(index)).argmax(1)][:, None]

    def penalty(self) -> Tensor:
        """pull · (1/B) Σ_b (1 − cos(q_b, k_t)) for the newest task t (with one_pass, summed over
        the prompted blocks).
        """
        each = len(self.keys) // self.tasks
        return (
            self.pull
            * torch.stack(
                [(1 - cosine(self.query(i), self._keys(i)[-1:])).mean() for i in range(each)]
            ).sum()
        )

    def config(self) -> Config:
        """Sizes, the general prefix and the number of tasks."""
        general = self.general.config() if self.general is not None else None
        return {"general": general, "pull": self.pull, "tasks": self.tasks, **super().config()}

    def describe(self) -> str:
        """One line for people."""
        shared = (
            f"{self.general.describe()}, shared by all tasks, and "
            if self.general is not None
            else ""
        )
        return (
            f"{shared}{self.each} of {self.tasks} expert{'s' * (self.tasks > 1)} in blocks"
            f" {', '.join(map(str, self.blocks))}"
        )
