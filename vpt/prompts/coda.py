"""A sum of learned components, weighted for each sample by attention to its query: CODA-Prompt
(Smith et al., CVPR 2023).
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from vpt.errors import PromptError
from vpt.errors.needs import whole
from vpt.prompts.base import MOST
from vpt.prompts.queried import Blocks, Queried, draw, freeze
from vpt.prompts.registry import register
from vpt.sites import BackboneLike, Config


@register("coda:COMPONENTS", "components weighted by attention to the query (CODA-Prompt)")
class CODAPrompt(Queried):
    """p = Σ_m α_m P_m with α_m = cos(q ⊙ A_m, K_m), learned end to end (equations 4 to 6).

    Each task has `components` of its own in every prompted block; `grow` adds those of the next
    task, and the earlier ones learn no more, but still count. They start orthonormal to all before
    them (Gram–Schmidt, as in the authors' code; where there is no room left, in random directions).
    penalty_weight: λ of the penalty on what is not orthonormal (the paper's 0.1; its code needs
    none after such a start). prompts: per task and block `[components,length,D]`; keys, attention:
    `[components,D]`.
    """

    def __init__(
        self,
        components: int,
        length: int,
        heads: int | Sequence[int],
        head_dim: int | Sequence[int],
        blocks: Sequence[int],
        width: int | Sequence[int],
        penalty_weight: float = 0.0,
        one_pass: bool = False,
        tasks: int = 1,
    ) -> None:
        super().__init__(length, heads, head_dim, blocks, width, one_pass)
        whole(PromptError, most=MOST, components=components, tasks=tasks)
        self.components = components
        self.penalty_weight = penalty_weight
        self.tasks = 0
        self.prompts = nn.ParameterList()
        self.keys = nn.ParameterList()
        self.attention = nn.ParameterList()
        for _ in range(tasks):
            self.grow()

    @classmethod
    def like(
        cls,
        backbone: BackboneLike,
        components: int = 10,
        *,
        length: int = 8,
        blocks: Blocks = None,
        penalty_weight: float = 0.0,
        one_pass: bool = False,
        seed: int = 0,
    ) -> CODAPrompt:
        """Of a backbone's sizes.

        backbone: whose keys and values they join.
        components: of each task.
        length: of each, half keys and half values.
        blocks: their numbers; the first five by default.
        penalty_weight: of the components' orthogonality, added to the loss.
        one_pass: take the query from the prompted block's own tokens, instead of a forward more.
        seed: of what is drawn.
        """
        default = range(min(5, max(1, backbone.depth)))
        prompt = cls(
            components,
            length,
            penalty_weight=penalty_weight,
            **cls.places(backbone, blocks, default, one_pass),
        )
        prompt.tasks, prompt.prompts = 0, nn.ParameterList()
        prompt.keys, prompt.attention = nn.ParameterList(), nn.ParameterList()
        prompt.grow(seed)
        return prompt

    def grow(self, seed: int = 0) -> None:
        """Components of a new task, orthonormal to the earlier ones, which learn no more."""
        generator = torch.Generator().manual_seed(seed + 1000 * self.tasks)
        like = next(self.parameters(), None)
        for parts in (self.prompts, self.keys, self.attention):
            freeze(parts)
            for i in range(len(self.blocks)):
                shape = (
                    (self.length, self._prompt_width(i))
                    if parts is self.prompts
                    else (self.widths[i],)
                )
                old = self._all(parts, i) if self.tasks else None
                new = draw((self.components, *shape), None, generator, like)
                if not new.is_meta:
                    start = orthonormal(
                        self.components,
                        new[0].numel(),
                        None if old is None else old.flatten(1),
                        generator,
                    )
                    new.data.copy_(start.view_as(new))
                parts.append(new)
        self.tasks += 1

    def _all(self, parts: nn.ParameterList, index: int) -> Tensor:
        """Every task's part `[M,…]` for the `index`-th prompted block."""
        return torch.cat(
            [parts[i] for i in range(index, self.tasks * len(self.blocks), len(self.blocks))]
        )

    def weights(self, index: int, query: Tensor) -> Tensor:
        """α: query `[B,D]` → cos(q ⊙ A_m, K_m) `[B,M]`."""
        attended = F.normalize(query[:, None] * self._all(self.attention, index), dim=-1)
        return torch.einsum(
            "bmd,md->bm", attended, F.normalize(self._all(self.keys, index), dim=-1)
        )

    def rows(self, index: int, query: Tensor) -> Tensor:
        """Query `[B,D]` → Σ_m α_m P_m `[B,1,length,D]`."""
        return torch.einsum(
            "bm,mld->bld", self.weights(index, query), self._all(self.prompts, index)
        )[:, None]

    def penalty(self) -> Tensor | None:
        """λ Σ_blocks (‖KKᵀ−I‖² + ‖AAᵀ−I‖² + ‖PPᵀ−I‖²), each a mean of squares; None for λ = 0."""
        if not self.penalty_weight:
            return None
        parts = (self.keys, self.attention, self.prompts)
        found = [
            _off_orthonormal(self._all(part, i).flatten(1))
            for i in range(len(self.blocks))
            for part in parts
        ]
        return self.penalty_weight * torch.stack(found).sum()

    def config(self) -> Config:
        """Sizes and the number of tasks."""
        return {
            "components": self.components,
            "penalty_weight": self.penalty_weight,
            "tasks": self.tasks,
            **super().config(),
        }

    def describe(self) -> str:
        """One line for people."""
        return (
            f"{self.each} keys and values, a sum of {self.components * self.tasks} components"
            f" weighted for each sample, in blocks {', '.join(map(str, self.blocks))}"
        )


def _off_orthonormal(rows: Tensor) -> Tensor:
    return (
        (rows @ rows.T - torch.eye(len(rows), device=rows.device, dtype=rows.dtype)).square().mean()
    )


@torch.no_grad()
def orthonormal(count: int, width: int, old: Tensor | None, generator: torch.Generator) -> Tensor:
    """`count` random rows of length one `[count,width]`, orthogonal to one another and to `old`
    `[n,width]` while there is room.

    The result of Gram–Schmidt on rows drawn from N(0,1), by QR, in double precision.
    """
    rows = torch.randn(count, width, generator=generator).double()
    basis = rows[:0].T if old is None else torch.linalg.qr(old.detach().cpu().double().T)[0]
    room = max(0, width - basis.shape[1])
    free = rows[:room] - rows[:room] @ basis @ basis.T
    q, r = torch.linalg.qr(free.T)
    fitted = (q * torch.sign(torch.diagonal(r))).T
    return torch.cat([fitted, F.normalize(rows[room:], dim=1)]).float()
