"""Several prompts at once."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from vpt.errors import PromptError
from vpt.prompts.base import Prompt
from vpt.prompts.registry import build, parse_one, register
from vpt.sites import BackboneLike, Config, Raw, Site


@register("", "several prompts at once")
class Stack(Prompt):
    """Several prompts at once, each acting at its own place; pixel prompts act in the order given.

    prompts: e.g. `[Border.like(…), DeepTokens.like(…)]`. Raises `PromptError` for anything else, or
        for none.
    """

    def __init__(self, prompts: Sequence[Prompt]) -> None:
        super().__init__()
        prompts = list(prompts)
        if not prompts or not all(isinstance(p, Prompt) for p in prompts):
            raise PromptError(
                f"Found Stack({[type(p).__name__ for p in prompts]}); needed is a list of one or"
                " more prompts."
            )
        if any(p.task_names for p in prompts):
            raise PromptError(
                "A prompt of several tasks cannot be in a Stack. Take one task out of it:"
                " prompt.export(task)."
            )
        self.prompts = nn.ModuleList(prompts)

    @classmethod
    def rebuild(cls, config: Config) -> Stack:
        """From the members' names and configs."""
        return cls([build(part["name"], part["config"]) for part in config["prompts"]])

    @property
    def members(self) -> list[Prompt]:
        """The prompts, in order."""
        return [prompt for prompt in self.prompts if isinstance(prompt, Prompt)]

    def sites(self) -> tuple[Site, ...]:
        """The sites of every member, in order."""
        return tuple(site for prompt in self.members for site in prompt.sites())

    def config(self) -> Config:
        """The members' names and configs."""
        return {"prompts": [{"name": type(p).__name__, "config": p.config()} for p in self.members]}

    def describe(self) -> str:
        """The members' descriptions."""
        return " + ".join(p.describe() for p in self.members)

    @property
    def reads(self) -> int:
        """The sum of what the members read."""
        return sum(p.reads for p in self.members)

    def read(self) -> Tensor:
        """What the members read `[B,reads]`, in order."""
        return torch.cat([p.read() for p in self.members if p.reads], dim=1)

    def penalty(self) -> Tensor | None:
        """The sum of the members' penalties."""
        found = [penalty for p in self.members if (penalty := p.penalty()) is not None]
        return torch.stack(found).sum() if found else None

    def start_from(self, backbone: BackboneLike, examples: Raw, seed: int = 0) -> None:
        """Every member begins so that can."""
        for prompt in self.members:
            prompt.start_from(backbone, examples, seed)

    def grow(self, seed: int = 0) -> None:
        """Every member grows."""
        for prompt in self.members:
            prompt.grow(seed)


def parse(text: str, backbone: BackboneLike, seed: int = 0) -> Prompt:
    """ "deep:10" → that prompt for the backbone; "border:8+deep:2" → a `Stack` of both. Raises
    `PromptError`.
    """
    prompts = [parse_one(part.strip(), backbone, seed) for part in text.split("+")]
    return prompts[0] if len(prompts) == 1 else Stack(prompts)
