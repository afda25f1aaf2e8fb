"""What a run gives back."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from vpt.model import PromptedModel
from vpt.runs.answers import Answers
from vpt.runs.moments import Moments
from vpt.runs.report import AdaptReport
from vpt.sites import Config
from vpt.training.loop import History


@dataclass
class Result:
    """What `adapt` made: the fitted model, its report, its history, what every method says of each
    part, the run's folder and prompt file (if written), and what it remembers of the examples that
    it learned from (if that cost nothing).
    """

    model: PromptedModel
    report: AdaptReport
    history: History
    answers: dict[str, Answers]
    folder: Path | None = None
    file: Path | None = None
    moments: Moments | None = field(default=None, repr=False)

    @property
    def metrics(self) -> Config:
        """The report in plain values, as metrics.json has it."""
        return self.report.as_dict()
