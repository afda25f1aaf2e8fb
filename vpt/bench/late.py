"""Epochs of a prompt in the last blocks, by turns without and with what enters them kept."""

from __future__ import annotations

import time

import torch
from torch.nn import functional as F

from vpt.backbones import FeatureCache, cannot_skip
from vpt.bench.report import Late, interval
from vpt.bench.steps import CLASSES, Stage
from vpt.model import PromptedModel
from vpt.prompts import DeepTokens
from vpt.readouts import Linear
from vpt.report.progress import progress_bar


def time_late(stage: Stage, images: int, repeats: int, progress: bool) -> Late:
    """Epochs of `images` examples with prompts in the last quarter of the blocks.

    repeats: epochs of either kind.
    """
    backbone, setting = stage.backbone, stage.setting
    first = backbone.depth - backbone.depth // 4
    blocks = (first, backbone.depth - 1)
    data = backbone.inputs.example(images)
    cuts = [slice(i, min(i + setting.batch, images)) for i in range(0, images, setting.batch)]
    batches = [
        (data[0][cut], data[1][cut]) if isinstance(data, tuple) else data[cut] for cut in cuts
    ]
    labels = torch.arange(images, device=setting.device) % CLASSES
    prompt = DeepTokens.like(backbone, stage.middle, blocks=list(range(first, backbone.depth)))
    model = PromptedModel(backbone, prompt, Linear(backbone.out_features, CLASSES)).train()
    parameters = [p for values in model.trained_parameters().values() for p in values]
    optimizer = torch.optim.AdamW(parameters, lr=1e-5)
    cache = FeatureCache(backbone, first)
    reason = cannot_skip(backbone, cache)
    if reason is not None:
        model.attachment.remove()
        return Late(blocks, prompt.count, images, reason=reason)

    def epoch(kept: FeatureCache | None) -> float:
        backbone.cache = kept
        start = time.perf_counter()
        for x, cut in zip(batches, cuts, strict=True):
            with stage.autocast():
                out = model(x)
            F.cross_entropy(out.float(), labels[cut]).backward()
            optimizer.step()
            optimizer.zero_grad()
        stage.wait()
        backbone.cache = None
        return time.perf_counter() - start

    off: list[float] = []
    on: list[float] = []
    with progress_bar(progress) as bar:
        task = bar.add_task("epochs of a late prompt", total=2 * repeats + 1)
        filling = epoch(cache)
        bar.advance(task)
        for _ in range(repeats):
            for times, kept in ((off, None), (on, cache)):
                times.append(epoch(kept))
                bar.advance(task)
    model.attachment.remove()
    return Late(blocks, prompt.count, images, off, on, filling, interval(off, on))
