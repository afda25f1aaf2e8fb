"""Prompts and readouts of a run, from what was asked for."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable

from torch.utils.data import default_collate

from vpt.backbones import Backbone
from vpt.data import Data, Examples
from vpt.errors import DataError, PromptError, TrainingError
from vpt.prompts import Prompt, parse
from vpt.readouts import Linear, Readout
from vpt.readouts import parse as parse_readout
from vpt.readouts.named import Named
from vpt.runs.passes import SOURCES

SEEN = 16  # training examples among whose tokens a prompt begins


def make_prompt(
    prompt: str | Prompt | Callable[[Backbone], Prompt], backbone: Backbone, seed: int
) -> Prompt:
    """The prompt that was asked for. Raises `PromptError`."""
    if isinstance(prompt, str):
        return parse(prompt, backbone, seed=seed)
    made = prompt(backbone) if callable(prompt) and not isinstance(prompt, Prompt) else prompt
    if not isinstance(made, Prompt):
        raise PromptError(
            f"Found {type(made).__name__} as prompt; needed is text such as 'deep:10', a prompt, or"
            " a function of the backbone that gives one."
        )
    return made


def make_readout(
    readout: str | Readout,
    backbone: Backbone,
    data: Data,
    seed: int,
    prompt: Prompt | None = None,
    features: str | None = None,
) -> Readout:
    """The readout that was asked for, bound to the backbone. Raises `TrainingError`,
    `PromptError`.

    readout: as for `vpt.adapt`.
    backbone: the open one.
    data: of whose classes.
    seed: of what is drawn.
    prompt: whose queries a linear one reads, if it has any.
    features: which features a linear one reads instead.
    """
    reads = prompt.reads if prompt is not None else 0
    if features is not None and readout != "linear":
        raise TrainingError(
            f"Found features={features!r} with readout={readout!r}; needed is readout='linear', or"
            " a readout made for them: vpt.Linear(…, of=…)."
        )
    of = features or ("queries" if reads else "cls")
    if readout == "linear" and of != "cls":
        readout = Linear(Named(of).width(backbone, reads), data.classes, of)
    elif isinstance(readout, str):
        readout = parse_readout(readout, backbone, data.classes, seed)
    if not isinstance(readout, Readout):
        raise TrainingError(
            f"Found readout={readout!r}; needed is text such as 'linear', or a readout."
        )
    readout.bind(backbone)  # so that a misfit is said before the features are computed
    return readout


def start_among(prompt: Prompt, backbone: Backbone, examples: Examples, seed: int) -> None:
    """Begin a prompt in the midst of the model's own tokens, of a few examples of all classes in
    turn.

    Random ones can be unlike anything that a block has seen: on a Whisper encoder a probe under
    them was 24 points worse. Tokens of single examples carry what these say (`draw_rows`).
    """
    met: Counter[int] = Counter()
    turn = []
    for target in examples.targets:
        turn.append(met[target])
        met[target] += 1
    few = sorted(range(len(examples)), key=turn.__getitem__)[:SEEN]
    source = SOURCES.get(backbone)
    begun = source.begun(prompt, examples.subset(few), seed) if source is not None else None
    if begun is not None and begun.load():
        return
    try:
        batch = default_collate([examples[i][0] for i in few])
    except (RuntimeError, TypeError) as error:
        raise DataError(
            f"The examples cannot be put into one batch, as of several shapes or kinds: {error}"
        ) from error
    prompt.start_from(backbone, batch, seed)
    if begun is not None:
        begun.keep()
