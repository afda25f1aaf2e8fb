"""ONNX: runs in onnxruntime on any machine, in many languages."""

from __future__ import annotations

import json
import logging
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from vpt.deploy.graph import Graph
from vpt.deploy.targets import FACTS, Runs, Target, register
from vpt.deploy.tracing import facts_of, inputs_of, trace
from vpt.errors import ExportError


@register("onnx", "runs in onnxruntime, on any machine")
class Onnx(Target):
    """The graph, its weights and the facts (`metadata_props`) in one file; the batch is free."""

    ending = ".onnx"
    needs = ("onnx", "onnxscript", "onnxruntime")

    def write(self, graph: Graph, path: Path) -> None:
        """Through the exporter of torch that takes a traced program."""
        program, inputs = trace(graph), inputs_of(graph.backbone)
        with _quiet():
            made = torch.onnx.export(
                program,
                tuple(inputs.values()),
                input_names=list(inputs),
                output_names=graph.names,
                dynamo=True,
                verbose=False,
            )
        if made is None:
            raise ExportError("torch gave no ONNX program.")
        made.model.metadata_props[FACTS] = json.dumps(facts_of(graph))
        made.save(path, external_data=False)

    def opened(self, path: Path, graph: Graph) -> Runs:
        """In onnxruntime, on the CPU."""
        import onnxruntime

        session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
        wanted = {one.name for one in session.get_inputs()}
        names = [one.name for one in session.get_outputs()]

        def said(inputs: Mapping[str, Tensor]) -> dict[str, np.ndarray]:
            given = {name: x.numpy() for name, x in inputs.items() if name in wanted}
            return dict(zip(names, session.run(names, given), strict=True))

        return said


@contextmanager
def _quiet() -> Iterator[None]:
    """Inside, the exporter keeps to itself what it tells its own developers."""
    loggers = [logging.getLogger(name) for name in ("onnxscript", "torch.onnx", "onnx_ir")]
    levels = [logger.level for logger in loggers]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for logger in loggers:
            logger.setLevel(logging.ERROR)
        try:
            yield
        finally:
            for logger, level in zip(loggers, levels, strict=True):
                logger.setLevel(level)
