"""One shared prompt for many tasks, and two vectors for each: multitask prompt tuning (Wang et al.,
ICLR 2023).
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial

import torch
from torch import Tensor, nn

from vpt.errors import PromptError
from vpt.prompts.base import Prompt
from vpt.prompts.prefix import Prefix
from vpt.prompts.registry import register
from vpt.prompts.tokens import DeepTokens, ShallowTokens
from vpt.sites import Config, KeyValues, Rows, Site, Tokens

Tasks = str | Sequence[str] | Tensor
SHAREABLE = {form.__name__: form for form in (ShallowTokens, DeepTokens, Prefix)}


@register("", "a shared prompt times two vectors for each task (MPT)")
class MultiTask(Prompt):
    """P_k = P ∘ (u_k v_kᵀ): a shared prompt times a matrix of rank one per task (Wang et al. 2023,
    section 3.1).

    shared: shallow or deep tokens, or a prefix, without dropout. tasks: names. In each block (of a
        prefix, for each head's keys and values) a task has u = 1 + columns `[T,…,count,1]` and v =
        1 + rows `[T,…,1,width]`, both learned from zero on: every task starts from the shared
        prompt itself, and weight decay draws it back there (near zero, as in peft, it would start
        with no prompt at all). With several tasks each sample's must be told (`asked`); with one it
        is that. Raises `PromptError` for another prompt, or names that are missing or not
        different.
    """

    selects = True

    def __init__(self, shared: Prompt | Config, tasks: Sequence[str]) -> None:
        super().__init__()
        if isinstance(shared, dict):
            if shared.get("name") not in SHAREABLE:
                raise PromptError(
                    f"Found a shared prompt {shared.get('name')!r}; needed is one of"
                    f" {', '.join(SHAREABLE)}."
                )
            shared = SHAREABLE[shared["name"]](**shared["config"])
        if type(shared).__name__ not in SHAREABLE:
            raise PromptError(
                f"Found MultiTask({type(shared).__name__}); needed is one of"
                f" {', '.join(SHAREABLE)}."
            )
        if shared.dropout.p:  # type: ignore[union-attr]
            raise PromptError(
                "A shared prompt with dropout is not supported; make it with dropout=0."
            )
        names = [] if isinstance(tasks, str) else list(tasks)
        if (
            not names
            or len(set(names)) < len(names)
            or not all(isinstance(name, str) and name for name in names)
        ):
            raise PromptError(
                f"Found tasks={tasks!r:.80}; needed is a list of different names, one per task."
            )
        self.shared = shared
        self.tasks = names
        pieces = [piece for place in self._pieces() for piece in place]
        self.columns = nn.ParameterList([torch.zeros(len(names), *p.shape[:-1], 1) for p in pieces])
        self.rows = nn.ParameterList(
            [torch.zeros(len(names), *p.shape[:-2], 1, p.shape[-1]) for p in pieces]
        )
        self._asked: Tensor | None = None

    def _pieces(self) -> list[list[Tensor]]:
        """The shared prompt's tensors `[…,count,width]` at each of its sites."""
        if isinstance(self.shared, ShallowTokens):
            return [[self.shared.tokens]]
        if isinstance(self.shared, Prefix):
            return [[k, v] for k, v in zip(self.shared.keys, self.shared.values, strict=True)]
        return [[rows] for rows in self.shared.tokens]  # type: ignore[union-attr]

    @property
    def task_names(self) -> list[str]:
        """The tasks, where there are several."""
        return self.tasks if len(self.tasks) > 1 else []

    # which task each sample has ---------------------------------------------------------
    @contextmanager
    def asked(self, tasks: Tensor | None) -> Iterator[None]:
        """Inside, each sample's task number `[B]` is known."""
        before, self._asked = self._asked, tasks
        try:
            yield
        finally:
            self._asked = before

    def _now(self, count: int, device: torch.device) -> tuple[list[int], Tensor]:
        """(the different tasks of the batch, −1 for the shared prompt alone; which of them each of
        `count` samples has `[B]`).
        """
        if self._asked is None:
            return [0 if len(self.tasks) == 1 else -1], torch.zeros(
                count, dtype=torch.long, device=device
            )
        asked = self._asked.expand(count) if len(self._asked) == 1 else self._asked
        if len(asked) != count:
            raise PromptError(
                f"Found {len(asked)} tasks for a batch of {count}; needed is one for each sample,"
                " or one for all."
            )
        different, index = torch.unique(asked, return_inverse=True)
        return different.tolist(), index.to(device)

    # the prompt -------------------------------------------------------------------------
    def of_task(self, place: int, task: int) -> list[Tensor]:
        """The prompt of task number `task` at the `place`-th site, `[…,count,width]`; of −1 the
        shared one.
        """
        pieces = self._pieces()
        if task < 0:
            return pieces[place]
        first = sum(len(before) for before in pieces[:place])
        return [
            p * ((1 + self.columns[first + i][task]) * (1 + self.rows[first + i][task]))
            for i, p in enumerate(pieces[place])
        ]

    def sites(self) -> tuple[Site, ...]:
        """Those of the shared prompt, each sample with the tokens of its task."""
        found: list[Site] = []
        for place, site in enumerate(self.shared.sites()):
            if isinstance(site, Tokens):
                make = partial(self._tokens if self.task_names else self._alone, place)
                found.append(Tokens(site.first, site.last, site.count, make, bool(self.task_names)))
            elif isinstance(site, KeyValues):
                found.append(KeyValues(site.block, site.count, partial(self._key_values, place)))
        return tuple(found)

    def _tokens(self, place: int, x: Tensor) -> Rows:
        """Tokens `[T,count,D]` of the batch's different tasks, and which each sample has."""
        different, index = self._now(x.shape[0], x.device)
        return Rows(torch.stack([self.of_task(place, task)[0] for task in different]), index)

    def _alone(self, place: int, x: Tensor) -> Tensor:
        """The one task's tokens for every sample `[B,count,D]`."""
        return self.of_task(place, 0)[0].expand(x.shape[0], -1, -1)

    def _key_values(self, place: int, keys: Tensor, values: Tensor) -> tuple[Tensor, Tensor, None]:
        if self._asked is None or len(self._asked) == 1:  # with windows, more than samples
            task = self._now(1, keys.device)[0][0]
            own_keys, own_values = self.of_task(place, task)
            return own_keys[None], own_values[None], None
        different, index = self._now(len(self._asked), keys.device)
        made = [self.of_task(place, task) for task in different]
        return (
            torch.stack([k for k, _ in made])[index],
            torch.stack([v for _, v in made])[index],
            None,
        )

    # to and from other prompts ----------------------------------------------------------
    def export(self, task: str) -> Prompt:
        """An ordinary prompt that does what this one does for `task`. Raises `PromptError` for an
        unknown one.
        """
        if task not in self.tasks:
            raise PromptError(f"Found task {task!r}; this prompt has {', '.join(self.tasks[:10])}.")
        number = self.tasks.index(task)
        prompt = copy.deepcopy(self.shared).requires_grad_(True)
        other = MultiTask(prompt, [task])
        with torch.no_grad():
            for place, own in enumerate(other._pieces()):
                for piece, value in zip(own, self.of_task(place, number), strict=True):
                    piece.copy_(value)
        return prompt

    def new_task(self, task: str, learn: str = "all") -> MultiTask:
        """A prompt for another task that starts from a copy of the shared one. learn: "all", or the
        task's two "factors" only.
        """
        if learn not in ("all", "factors"):
            raise PromptError(f"Found learn={learn!r}; needed is 'all' or 'factors'.")
        return MultiTask(copy.deepcopy(self.shared).requires_grad_(learn == "all"), [task])

    def config(self) -> Config:
        """The shared prompt's name and config, and the tasks."""
        return {
            "shared": {"name": type(self.shared).__name__, "config": self.shared.config()},
            "tasks": self.tasks,
        }

    def describe(self) -> str:
        """One line for people."""
        return (
            f"{self.shared.describe()}, shared by {len(self.tasks)} tasks with two vectors for each"
            " in every block"
        )


def task_numbers(tasks: Tasks, names: list[str]) -> Tensor:
    """Tasks as numbers `[B]` (`[1]` for one name)."""
    if isinstance(tasks, Tensor):
        if tasks.ndim != 1 or (
            len(tasks) and not 0 <= int(tasks.min()) <= int(tasks.max()) < len(names)
        ):
            raise PromptError(
                f"Found task numbers {tasks.tolist()!r:.60}; needed is one from 0 to"
                f" {len(names) - 1} per sample."
            )
        return tasks.long()
    given = [tasks] if isinstance(tasks, str) else [str(name) for name in tasks]
    unknown = sorted(set(given) - set(names))
    if unknown:
        raise PromptError(
            f"Found tasks {', '.join(unknown[:5])}; this model has {', '.join(names[:10])}."
        )
    return torch.tensor([names.index(name) for name in given], dtype=torch.long)
