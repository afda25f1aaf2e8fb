"""What each method says of the same examples, and what that is worth: the prompt against the best
of what needs none, in pairs.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, replace

import numpy as np
import torch
from torch import Tensor

from vpt.data import Examples
from vpt.metrics.calibrating import calibration_error, slope_of
from vpt.metrics.classification import Scored, classification
from vpt.metrics.comparing import Difference, difference
from vpt.sites import Config

MEANS = "nearest mean"
PROBE = "linear probe"
PROMPT = "prompt"
LEVEL = 0.02  # what a prompt can gain at most where it is called level
PARTS = {
    "test": "test examples",
    "val": "validation examples",
    "out_of_fold": "examples held out in turn",
}


@dataclass(frozen=True)
class Answers:
    """Scores of several methods on the examples of one part.

    names: of the examples, for people. y: labels `[n]`. classes: by number. scores: by method, as
        logits or log probabilities `[n,C]`. units: which of them belong together, if any.
    """

    names: list[str]
    y: Tensor
    classes: list[str]
    scores: dict[str, Tensor]
    units: list[int] | None = None

    @classmethod
    def of(cls, examples: Examples, scores: Mapping[str, Tensor]) -> Answers:
        """Of all examples of a part."""
        names = [examples.name(i) for i in range(len(examples))]
        y = torch.tensor(examples.targets)
        return cls(names, y, examples.classes, dict(scores), examples.together)

    def take(self, chosen: Tensor) -> Answers:
        """Of these examples alone."""
        names = [self.names[i] for i in chosen.tolist()]
        scores = {method: values[chosen] for method, values in self.scores.items()}
        units = [self.units[i] for i in chosen.tolist()] if self.units is not None else None
        return Answers(names, self.y[chosen], self.classes, scores, units)

    def scaled(self, method: str, slope: float) -> Answers:
        """With the scores of one method multiplied."""
        scores = self.scores | {method: slope * self.scores[method]}
        return replace(self, scores=scores)

    def scored(self, method: str) -> Scored:
        """What a method's scores come to."""
        return classification(self.scores[method], self.y, self.classes, self.units)

    def right(self, method: str) -> np.ndarray:
        """Which examples a method has right `[n]`."""
        return (self.scores[method].argmax(1) == self.y).numpy()

    def against(self, method: str, other: str) -> Difference:
        """How much more often a method is right than another."""
        return difference(self.right(method), self.right(other), self.units)

    def as_dict(self, method: str, other: str | None) -> Config:
        """Every method's numbers, and what the first gains over the other, in plain values."""
        scored: Config = {"methods": {name: dict(self.scored(name)) for name in self.scores}}
        if other in self.scores:
            scored["difference"] = {"of": other} | asdict(self.against(method, str(other)))
        return scored


def best_other(parts: Mapping[str, Answers], held: str, method: str) -> str | None:
    """Of what needs no prompt and was tried on every part, the most accurate method (of equals the
    one of least loss) on the held part, but for the method itself; None where there is none.
    """
    known = set.intersection(*(set(found.scores) for found in parts.values()))
    others = [name for name in parts[held].scores if name in known - {method, PROMPT}]
    found = {name: parts[held].scored(name) for name in others if not name.startswith("queries")}
    order = sorted(found, key=lambda name: (-found[name]["accuracy"], found[name]["loss"]))
    return order[0] if order else None


def verdict_of(answers: Answers, part: str, method: str, other: str | None) -> str:
    """Whether a method was worth it, in a sentence that claims no more than the examples say.

    answers: of the part by which it is judged. part: its name among `PARTS`. other: the best method
        that needs no prompt, chosen on other examples than those of a test.
    """
    if other is None:
        return f"{called(method)} has nothing to be compared with"
    found = answers.against(method, other)
    units = f" in {found.units} groups that belong together" if found.units < found.n else ""
    gap = (
        f"{_points(found.value)} points ({_points(found.low)} to {_points(found.high)}) on"
        f" {found.n} {PARTS[part]}{units}"
    )
    this, that = called(method), called(other)
    if found.low > 0:
        return f"{this} is better than {that}: {gap}"
    if found.high < 0:
        return f"{this} is worse than {that}, take that: {gap}"
    if found.high <= LEVEL:
        level = "level with" if found.low >= -LEVEL else "no better than"
        return f"{this} is {level} {that}, take that: {gap}"
    return f"cannot tell from {found.n} examples whether {this} is better than {that}: {gap}"


def called(method: str) -> str:
    """A method as a sentence has it."""
    article = {"prompt": "the prompt", "linear probe": "the linear probe"}
    return article.get(method, "nearest class means" if method == "nearest mean" else method)


def _points(share: float) -> str:
    return f"{100 * share:+.1f}"


def accuracies(answers: Mapping[str, Answers], method: str) -> dict[str, float]:
    """Of a baseline; what is out of fold stands under "val", if nothing else does."""
    found = {
        part: own.scored(method)["accuracy"]
        for part, own in answers.items()
        if method in own.scores
    }
    held = found.pop("out_of_fold", None)
    return ({"val": held} if held is not None else {}) | found


def calibrated_on_val(
    answers: dict[str, Answers], methods: Iterable[str]
) -> tuple[dict[str, Answers], dict[str, float]]:
    """(the answers with the scores of these methods multiplied as validation examples ask for, by
    what each was).
    """
    val = answers["val"]
    slopes = {method: slope_of(val.scores[method], val.y) for method in methods}
    for method, slope in slopes.items():
        answers = {part: own.scaled(method, slope) for part, own in answers.items()}
    return answers, slopes


def calibration_of(answers: Mapping[str, Answers], method: str, slope: float | None) -> Config:
    """The slope, and the calibration error of each part after it and before it."""
    after = {part: own.scored(method)["calibration_error"] for part, own in answers.items()}
    before = None
    if slope is not None:
        before = {
            part: calibration_error(torch.softmax(own.scores[method].double() / slope, 1), own.y)
            for part, own in answers.items()
        }
    return {"slope": slope, "before": before, "after": after}


def predictions_csv(parts: Mapping[str, Answers], method: str) -> bytes:
    """One row for each example of each part: its label, what the method says of it and how sure it
    is, the probability of the label, with what it belongs together (a number), and what every
    other method says.
    """
    others = sorted({name for answers in parts.values() for name in answers.scores} - {method})
    head = [
        "part",
        "file",
        "label",
        "answer",
        "probability",
        "probability of label",
        "unit",
        *others,
    ]
    text = io.StringIO()
    rows = csv.writer(text, lineterminator="\n")
    rows.writerow(head)
    for part, answers in parts.items():
        shares = torch.softmax(answers.scores[method].double(), 1)
        guess = {name: values.argmax(1).tolist() for name, values in answers.scores.items()}
        for i, (name, label) in enumerate(zip(answers.names, answers.y.tolist(), strict=True)):
            said = guess[method][i]
            row = [part, name, answers.classes[label], answers.classes[said]]
            row += [f"{float(shares[i, said]):.4f}", f"{float(shares[i, label]):.4f}"]
            row.append(str(answers.units[i]) if answers.units is not None else "")
            row += [answers.classes[guess[o][i]] if o in guess else "" for o in others]
            rows.writerow(row)
    return text.getvalue().encode("utf-8", "backslashreplace")
