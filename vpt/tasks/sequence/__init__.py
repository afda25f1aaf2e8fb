"""Tasks that come one after another, each with classes of its own, and no data kept: prompts, and
what they must beat. Known as `vpt.continual`.
"""

from vpt.tasks.sequence.outcome import Outcome
from vpt.tasks.sequence.running import BASELINES, RECIPE, check_tasks, run, split

__all__ = ["BASELINES", "RECIPE", "Outcome", "check_tasks", "run", "split"]
