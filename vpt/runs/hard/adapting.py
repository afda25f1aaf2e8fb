"""What prompt="hard:N" comes to: soft queries are learned, then replaced by real tokens."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.utils.data import default_collate

from vpt.backbones import Backbone
from vpt.data import Data, Examples
from vpt.errors import PromptError, TrainingError
from vpt.model import PromptedModel
from vpt.prompts import HardQueries, QueryTokens, Stack
from vpt.prompts.hard import SIDE, Taken
from vpt.readouts import Linear, NearestMean, Readout
from vpt.report.progress import progress_bar, span
from vpt.runs.answers import MEANS, PROBE, PROMPT, Answers, calibrated_on_val
from vpt.runs.briefing import say_before
from vpt.runs.choosing import folds_of
from vpt.runs.cost import Clock
from vpt.runs.cropping import crop_of, picture_of
from vpt.runs.grids import Grid, grid_for
from vpt.runs.hard.bank import ROWS, Bank
from vpt.runs.hard.search import SWEEPS, Choice, Search
from vpt.runs.kept import BUDGET, Kept, keep
from vpt.runs.making import start_among
from vpt.runs.probe import fit_probe
from vpt.runs.querying import DECAY, seconds_to_learn
from vpt.runs.ran import Ran
from vpt.runs.report import report_of
from vpt.runs.result import Result
from vpt.runs.timing import time_pass
from vpt.training.loop import History
from vpt.training.recipe import Recipe
from vpt.training.side_by_side import learn_side_by_side

SOFT = "queries, before they were real tokens"
SLOWER = 3.0  # than learning soft queries alone: with the search


@dataclass
class Found:
    """Soft queries and hard ones, with the classifiers of both.

    baselines: what needs no prompt. strength: C of the linear probe.
    """

    prompt: HardQueries
    readout: Linear
    soft: QueryTokens
    soft_readout: Linear
    baselines: dict[str, Readout]
    strength: float


def adapt_hard(
    backbone: Backbone,
    prompt: HardQueries,
    data: Data,
    recipe: Recipe,
    clock: Clock,
    command: str | None,
    shown: bool,
) -> Result:
    """Find hard queries, and fit a classifier on what they read.

    backbone: with nothing attached.
    prompt: how many, and of which blocks.
    data: with its parts.
    recipe: of which only the seed counts.
    clock: since the run began.
    command: the command line that began it, if one did.
    shown: whether to say what is done, and how far it is.

    Raises `PromptError` where the training examples have fewer tokens than there are queries.
    """
    seed = recipe.seed
    start_among(prompt, backbone, data.train, seed)
    places = _places(backbone, prompt, data.train)
    if shown:
        say_before(data, backbone, prompt.describe(), *_time(backbone, prompt, data))
    each = -(-ROWS // len(data.train))
    kept = keep(backbone, data.train, blocks=prompt.blocks, each=each, seed=seed, progress=shown)
    found = _find(backbone, prompt, data, kept, places, seed, shown)
    answers = {}
    for part, some in data.parts.items():
        if part != "train":
            answers[part] = _answers(backbone, found, some, shown, f"the same over the {part} data")
    answers, slopes = calibrated_on_val(answers, answers["val"].scores)
    found.readout.multiply(slopes[PROMPT])
    gap = answers["val"].against(PROMPT, SOFT)
    data.notes.append(
        f"real tokens instead of soft queries: {100 * gap.value:+.1f} points"
        f" ({100 * gap.low:+.1f} to {100 * gap.high:+.1f}) on validation examples"
    )
    ran = Ran(
        data=data,
        train_n=len(data.train),
        strength=found.strength,
        slope=slopes[PROMPT],
        history=History([], 0),
        recipe=recipe,
        clock=clock,
        command=command,
    )
    model = PromptedModel(backbone, prompt, found.readout)
    return Result(model, report_of(model, answers, PROMPT, ran), ran.history, answers)


def _places(backbone: Backbone, prompt: HardQueries, examples: Examples) -> tuple[Grid, int]:
    """As `grid_for`, from one example. Raises `PromptError` where tokens have no places, and
    `TrainingError` where keys and values of all examples have no place in memory.
    """
    one = keep(backbone, examples.subset([0]), blocks=prompt.blocks)
    numbers = sum(2 * memory.keys[:1].numel() for memory in one.memories.values())
    count = len(examples.windows()[0])
    if 2 * numbers * count > BUDGET:  # in half precision
        raise TrainingError(
            f"The keys and values of {count:,} inputs take {2 * numbers * count / 2**30:.1f} GiB,"
            f" and {BUDGET / 2**30:g} may be taken; needed are fewer examples (shots=…, --shots) or"
            " fewer blocks (hard:4@11)."
        )
    first = one.memories[prompt.blocks[0]].keys
    if first.shape[1] > 1:
        raise PromptError(
            "Found a model that cuts its tokens into windows, whose places are not told apart; hard"
            " queries are taken from places. queries:4 works there."
        )
    return grid_for(backbone, examples, first.shape[3])


def _find(
    backbone: Backbone,
    prompt: HardQueries,
    data: Data,
    kept: Kept,
    places: tuple[Grid, int],
    seed: int,
    shown: bool,
) -> Found:
    """Learn soft queries, and swap them for real tokens; the prompt is then these.

    backbone: with nothing attached.
    prompt: how many, and of which blocks.
    data: of whose classes.
    kept: of the training examples.
    places: as `grid_for` gives them.
    seed: of what is drawn.
    shown: whether to show how far it is.
    """
    train, classes = data.train, data.classes
    memories = kept.of_blocks(prompt.blocks)
    grid, extra = places
    bank = Bank.of(kept, prompt.blocks, extra, prompt.count)
    folds = folds_of(train, seed)
    search = Search(memories, bank, kept, folds, len(classes))
    y = kept.y[kept.clips]
    learned = learn_side_by_side(
        memories,
        list(prompt.queries),
        y,
        torch.ones(1, len(y)),
        len(classes),
        decay=DECAY,
        seed=seed,
        progress=shown,
    )
    soft = [rows[0].cpu() for rows in learned.queries]
    choice = search.project(soft)
    if folds:
        with progress_bar(shown) as bar:
            total = SWEEPS * prompt.count * len(prompt.blocks)
            task = bar.add_task("swapping queries for real tokens", total=total)
            choice = search.flip(choice, lambda: bar.advance(task))
    taken, crops = _taken(backbone, train, bank, grid, choice)
    prompt.become(search.rows(choice), taken, crops)
    x = kept.of_examples(kept.features)
    probe, strength = fit_probe(x, kept.y, classes, seed)

    def head(rows: list[Tensor]) -> Linear:
        read = kept.of_examples(search.read(rows))
        return fit_probe(read, kept.y, classes, seed, of="queries")[0]

    means = NearestMean(x.shape[1], classes)
    means.update(x, kept.y)
    baselines: dict[str, Readout] = {MEANS: means, PROBE: probe}
    before = QueryTokens(prompt.count, prompt.widths, prompt.outputs, prompt.blocks)
    for own, new in zip(before.queries, soft, strict=True):
        own.data.copy_(new)
    return Found(prompt, head(search.rows(choice)), before, head(soft), baselines, strength)


@torch.no_grad()
def _answers(
    backbone: Backbone, found: Found, examples: Examples, shown: bool, what: str
) -> Answers:
    """What all say of a part, in one pass."""
    both = Stack([found.soft, found.prompt])
    kept = keep(backbone, examples, prompt=both, progress=shown, what=what)
    scores = {name: kept.of_examples(one(kept.features)) for name, one in found.baselines.items()}
    if kept.read is not None:
        soft, hard = kept.read.chunk(2, dim=1)
        scores |= {SOFT: kept.of_examples(found.soft_readout(soft))}
        scores |= {PROMPT: kept.of_examples(found.readout(hard))}
    return Answers.of(examples, scores)


def _taken(
    backbone: Backbone,
    examples: Examples,
    bank: Bank,
    grid: Grid,
    choice: Choice,
) -> tuple[Taken, Tensor]:
    """Where each query is from, and the crops `[blocks,count,3,S,S]`."""
    heard, clips = examples.windows()
    taken: Taken = []
    crops = []
    for own in choice:
        taken.append([])
        for row in own.tolist():
            number, place = int(bank.inputs[row]), int(bank.places[row])
            at = dict(zip(("row", "column"), divmod(place, grid[1]), strict=True))
            window = number - clips.index(clips[number])
            taken[-1].append({"example": examples.name(clips[number]), "window": window} | at)
            picture = picture_of(backbone, default_collate([heard[number][0]]))
            crops.append(crop_of(picture, grid, place, SIDE))
    return taken, torch.stack(crops).unflatten(0, (len(choice), -1))


def _time(backbone: Backbone, prompt: HardQueries, data: Data) -> tuple[float, str]:
    """(How many seconds it will take, and for what), from a few examples timed here."""
    kept, once, inputs = time_pass(backbone, data, prompt.blocks)
    heard = len(data.train.windows()[0])
    learning = SLOWER * seconds_to_learn(prompt, kept, 1, len(data.classes), [heard])
    return once + learning, f": {span(once)} for one pass over {inputs} inputs, the rest to search"
