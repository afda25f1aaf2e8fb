"""Weights in eight bits, by onnxruntime's own quantisation, with what it costs."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from torch import Tensor
from torch.utils.data import DataLoader

from vpt.data import Examples
from vpt.deploy.graph import Graph
from vpt.deploy.targets import Runs, Target
from vpt.sites import Raw

BATCH = 32
Prepare = Callable[[Raw], tuple[Tensor, object]]


@dataclass(frozen=True)
class Quantised:
    """What eight bits cost. before, after: accuracy in [0,1] on n examples. same: the share of them
    on which both say the same. bytes: of the file before and after.
    """

    n: int
    before: float
    after: float
    same: float
    bytes: tuple[int, int]


def in_eight_bits(target: Target, path: Path, examples: Examples, graph: Graph) -> Quantised:
    """Quantise the weights of an ONNX file in place (activations as they come), and ask both about
    labelled examples.

    target: that runs it.
    path: the file.
    examples: matched to the model, one input each.
    graph: what is in it.
    """
    from onnxruntime.quantization import QuantType, quantize_dynamic

    small = path.with_name(f"{path.name}.int8")
    level = logging.getLogger().level
    logging.getLogger().setLevel(logging.ERROR)  # its advice is about models that it trains
    try:
        quantize_dynamic(path, small, weight_type=QuantType.QInt8)
        prepare = graph.backbone.inputs.prepare
        said = [_answers(target.opened(file, graph), examples, prepare) for file in (path, small)]
        sizes = (path.stat().st_size, small.stat().st_size)
        small.replace(path)
    finally:
        logging.getLogger().setLevel(level)
        small.unlink(missing_ok=True)
    y = np.array(examples.targets)
    before, after = (float((one == y).mean()) for one in said)
    return Quantised(len(y), before, after, float((said[0] == said[1]).mean()), sizes)


def _answers(run: Runs, examples: Examples, prepare: Prepare) -> np.ndarray:
    """The class that a file says of each example `[n]`."""
    found = []
    for batch in DataLoader(examples, batch_size=BATCH):
        (scores,) = run({"x": prepare(batch[0])[0]}).values()
        found.append(scores.argmax(1))
    return np.concatenate(found)
