"""safetensors: the constants that a prompt comes to, without the model, for one's own runtime."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from vpt.deploy.graph import SCORES, Graph
from vpt.deploy.targets import FACTS, Runs, Target, register
from vpt.deploy.tracing import facts_of
from vpt.errors import ExportError
from vpt.sites import KeyValues


@register("safetensors", "the constants of the prompt and the readout alone, without the model")
class Constants(Target):
    """Numbers by name, each beginning with its task where there are several:

    - `blocks.B.keys`, `blocks.B.values` `[heads,count,d]`: of deep tokens and prefixes, to be put
      beside a block's own keys and values in its attention;
    - `prompt.NAME`: what was learned, as the prompt has it (queries, tokens, a border);
    - `readout.NAME`: the classifier.

    The facts are the metadata.
    """

    ending = ".safetensors"

    def write(self, graph: Graph, path: Path) -> None:
        """By safetensors."""
        found: dict[str, Tensor] = {}
        for name, prompt, readout in zip(graph.names, graph.prompts, graph.parts, strict=True):
            of = "" if name == SCORES else f"{name}."
            found |= {f"{of}prompt.{key}": value for key, value in prompt.state_dict().items()}
            found |= {f"{of}readout.{key}": value for key, value in readout.state_dict().items()}
        for block, (keys, values) in beside(graph).items():
            found |= {f"blocks.{block}.keys": keys, f"blocks.{block}.values": values}
        facts = {FACTS: json.dumps(facts_of(graph))}
        save_file({name: value.contiguous() for name, value in found.items()}, path, facts)

    def opened(self, path: Path, graph: Graph) -> Runs:
        """The live model, whose deep tokens and prefixes are those of the file, as keys and values
        beside those of each block. Raises `ExportError` where what was learned is not in the file.
        """
        found = load_file(path)
        for name, prompt, readout in zip(graph.names, graph.prompts, graph.parts, strict=True):
            of = "" if name == SCORES else f"{name}."
            for part, module in (("prompt", prompt), ("readout", readout)):
                for key, value in module.state_dict().items():
                    if not torch.equal(found[f"{of}{part}.{key}"], value):
                        raise ExportError(f"{of}{part}.{key} is not in the file as it was learned.")
        attachment = graph.backbone.attachment
        recordings = attachment.recordings if attachment is not None else []
        held: dict[int, tuple[Tensor, Tensor]] = {}
        for recording in recordings:  # what they hold comes first, before a prefix's
            block, count = recording.site.first, recording.site.count
            keys, values = (found[f"blocks.{block}.{name}"][None] for name in ("keys", "values"))
            held[block] = keys[:, :, :count], values[:, :, :count]

        def said(inputs: Mapping[str, Tensor]) -> dict[str, np.ndarray]:
            try:
                for recording in recordings:
                    recording.held = held[recording.site.first]
                with torch.no_grad():
                    scores = graph(*inputs.values())
            finally:
                for recording in recordings:
                    recording.held = None
            return {name: one.numpy() for name, one in zip(graph.names, scores, strict=True)}

        return said


def beside(graph: Graph) -> dict[int, tuple[Tensor, Tensor]]:
    """Keys and values `[heads,count,d]` that act beside those of each block. Raises `PromptError`
    for those that differ between samples.
    """
    backbone, attachment = graph.backbone, graph.backbone.attachment
    if attachment is None:
        return {}
    example = backbone.inputs.example(2)
    with attachment.baked(lambda: backbone.run(example)):
        found = {one.site.first: [one.held] for one in attachment.recordings if one.held}
    for site in attachment.sites:
        if isinstance(site, KeyValues):
            heads, size = backbone.heads[site.block] or (0, 0)
            none = torch.zeros(1, heads, 0, size, device=backbone.device)
            with torch.no_grad():
                keys, values, _ = site.make(none, none)
            found.setdefault(site.block, []).append((keys, values))
    return {
        block: (torch.cat([k for k, _ in pairs], 2)[0], torch.cat([v for _, v in pairs], 2)[0])
        for block, pairs in sorted(found.items())
    }
