"""Prompts. A new form is one file here, which registers itself; `import_all` finds it."""

from vpt.prompts.base import Prompt
from vpt.prompts.border import Border
from vpt.prompts.coda import CODAPrompt
from vpt.prompts.dual import DualPrompt
from vpt.prompts.full import Full
from vpt.prompts.hard import HardQueries
from vpt.prompts.l2p import L2P
from vpt.prompts.multi_task import MultiTask
from vpt.prompts.patch import Patch
from vpt.prompts.pixels import PixelPrompt
from vpt.prompts.prefix import Prefix
from vpt.prompts.queried import Queried
from vpt.prompts.queries import QueryTokens
from vpt.prompts.registry import PROMPTS, build
from vpt.prompts.sample_mask import SampleMask
from vpt.prompts.stack import Stack, parse
from vpt.prompts.tokens import DeepTokens, ShallowTokens
from vpt.sites import import_all

import_all(__name__, __path__)

__all__ = [
    "L2P",
    "PROMPTS",
    "Border",
    "CODAPrompt",
    "DeepTokens",
    "DualPrompt",
    "Full",
    "HardQueries",
    "MultiTask",
    "Patch",
    "PixelPrompt",
    "Prefix",
    "Prompt",
    "Queried",
    "QueryTokens",
    "SampleMask",
    "ShallowTokens",
    "Stack",
    "build",
    "parse",
]


def __getattr__(name: str) -> type[Prompt]:
    """A prompt by the name of its class."""
    return PROMPTS.attribute(__name__, name)
