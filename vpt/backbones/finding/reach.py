"""Which places of a model prompts can reach, and why not where they cannot."""

from __future__ import annotations

from collections.abc import Sequence

from vpt.backbones.finding.structure import Block
from vpt.errors import BackboneError, PromptError


class Reach:
    """The blocks of a model, and which sites they can carry. refused: prompt form → what `check`
    found wrong with it.
    """

    def __init__(self, model: str, blocks: list[Block]) -> None:
        self.model = model
        self.blocks = blocks
        self.refused: dict[str, str] = {}

    @property
    def depth(self) -> int:
        """Number of transformer blocks."""
        return len(self.blocks)

    @property
    def heads(self) -> list[tuple[int, int] | None]:
        """(heads, head_dim) of each block's attention; None where `scaled_dot_product_attention`
        was never called.
        """
        return [(b.heads, b.head_dim) if b.heads and b.head_dim else None for b in self.blocks]

    def need_blocks(self, *indices: int) -> None:
        """Raise `BackboneError` for a model without transformer blocks, `PromptError` for a block
        it does not have.
        """
        if self.depth == 0:
            raise BackboneError(
                f"{self.model} has no transformer blocks (looked for a list of 2 or more equal"
                " modules holding attention). Token prompts need blocks; pixel prompts do not: use"
                " Border, or name the blocks with blocks='path.to.blocks'."
            )
        for index in indices:
            if not 0 <= index < self.depth:
                raise PromptError(
                    f"Found a prompt for block {index}; {self.model} has blocks 0 to"
                    f" {self.depth - 1}."
                )

    def need_tokens(self, first: int, last: int, recorded: bool = False) -> None:
        """Raise `PromptError` where tokens cannot be put in front before block `first` and cut off
        after block `last`.

        recorded: or, where they are to act as keys and values of one block instead, where that
            cannot be.
        """
        self.need_blocks(first, last)
        self._require_sound("recorded" if recorded else "deep" if first == last else "shallow")
        for index in range(first, last + 1):
            block = self.blocks[index]
            if block.unknown and not recorded:
                raise PromptError(
                    f"Block {block.name} of {self.model} gets a tensor with one entry per token"
                    f" ({block.unknown}); inserted tokens would not be in it. Use the model's SDPA"
                    " attention (transformers: attn_implementation='sdpa'), or a pixel prompt."
                )
            if block.grid and not block.windowed:
                raise PromptError(
                    f"The blocks of {self.model} take maps, and their attention sees no windows as"
                    " sequences: there is no place in them for tokens. Use a pixel prompt (Border,"
                    " Patch, Full)."
                )
            if block.windowed and first != last:
                instead = (
                    "Use DeepTokens or Prefix, which act at each window's attention"
                    if block.heads
                    else "Use Border or Full"
                )
                raise PromptError(
                    f"{self.model} cuts its tokens into windows, through which no token can be"
                    f" carried from block {first} to {last}. {instead}, or another pixel prompt."
                )
        if recorded or self.blocks[first].windowed:
            self.need_attention([first])

    def need_attention(self, indices: Sequence[int]) -> None:
        """Raise `PromptError` for a block whose attention never called
        `scaled_dot_product_attention`.
        """
        for index in indices:
            if self.blocks[index].calls > 1:
                raise PromptError(
                    f"Block {index} of {self.model} attends {self.blocks[index].calls} times; keys"
                    " and values beside one of them would be another prompt than is meant. Use"
                    " DeepTokens (inserted), or a pixel prompt."
                )
            if self.heads[index] is None:
                raise PromptError(self.no_attention(index))

    def need_queries(self, indices: Sequence[int], through: bool = True) -> None:
        """Raise `PromptError` for blocks that no query can read. through: what it reads goes on
        through the rest of the block.
        """
        self.need_blocks(*indices)
        self.need_attention(indices)
        if through and any(self.blocks[index].windowed for index in indices):
            raise PromptError(
                f"{self.model} cuts its tokens into windows: what a query reads in each of them"
                " cannot go through the rest of the block. Read the attention alone:"
                " QueryTokens.like(backbone, through=False)."
            )

    def need_prefix(self, indices: Sequence[int]) -> None:
        """Raise `PromptError` where keys and values cannot act beside those of a block."""
        self._require_sound("prefix")
        self.need_attention(indices)

    def need_pixels(self) -> None:
        """Raise `PromptError` where no change of the input can be learned."""
        self._require_sound("pixels")

    def _require_sound(self, form: str) -> None:
        """Raise `PromptError` for a form that `check` found wrong when the model was opened."""
        if form in self.refused:
            other = (
                "Use another form: pixel prompts (Border, Patch, Full) need nothing of the model's"
                " inside."
            )
            if "pixels" in self.refused:
                other = (
                    "Nothing can be learned through this model; a readout of its features alone can"
                    " (prompt None)."
                )
            what = f"{form.capitalize()} prompts do not act as they should on {self.model}"
            raise PromptError(f"{what}: {self.refused[form]}. {other}")

    def no_attention(self, index: int) -> str:
        """Why a key/value prefix at block `index` reaches nothing, and what to do."""
        block = self.blocks[index]
        instead = "a pixel prompt" if block.windowed or block.grid else "DeepTokens"
        return (
            f"Block {index} of {self.model} ({type(block.attention).__name__}) never called torch's"
            " scaled_dot_product_attention, so keys and values put beside its own reach nothing."
            " Use the model's SDPA attention (transformers: attn_implementation='sdpa'), or"
            f" {instead}."
        )
