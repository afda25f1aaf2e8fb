"""The training, validation and test examples of one data set, together."""

from __future__ import annotations

from dataclasses import dataclass, field

from vpt.data.examples import Examples

CALLED = {"train": "training", "val": "validation", "test": "test"}  # parts, for people


@dataclass
class Data:
    """Training, validation and test examples with their class names. test is None where there is
    none.

    skipped: files that were left out as bad, as (path, reason).
    made: part → how it came about.
    notes: what was understood of the source.
    careful: what looks wrong with it.
    lengths: of the files of sound, in seconds.
    """

    train: Examples
    val: Examples
    test: Examples | None
    classes: list[str]
    skipped: list[tuple[str, str]]
    made: dict[str, str] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    careful: list[str] = field(default_factory=list)
    lengths: list[float] = field(default_factory=list)

    @property
    def parts(self) -> dict[str, Examples]:
        """The parts that there are, by name."""
        given = {"train": self.train, "val": self.val, "test": self.test}
        return {name: part for name, part in given.items() if part is not None}
