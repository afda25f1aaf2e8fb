"""The dear ways to adapt a model, on the same draws as few_shot.py: LoRA, LayerNorm tuning, full
fine-tuning, deep tokens, each of which changes or crosses the whole model in every step; and
attentive pooling of the last block's tokens.

python examples/real_backbones/tuned.py signs/ --backbone clip/ --methods lora full deep

All begin at the same linear probe of the class token and are trained alike (AdamW, warm-up, cosine,
no augmentation). Each method's rate is chosen by log loss on a fifth of the labels, and it then
learns from all of them; with one --rates it is not chosen. Results go where those of few_shot.py
go, in the same form; what stands there is not run again.
"""

from __future__ import annotations

import argparse
import json
import math
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import ClassVar

import numpy as np
import torch
from few_shot import draw
from tables import result
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import default_collate

import vpt
from vpt.data import Examples, hold_out, read_parts
from vpt.runs.probe import fit_probe
from vpt.sites import Observe
from vpt.training.tuning import RANK, lora_layers

RATES = {
    "lora": (2e-4, 1e-3, 5e-3),
    "layernorm": (1e-4, 1e-3, 1e-2),
    "full": (3e-6, 1e-5, 3e-5),
    "deep": (5e-3, 2e-2, 5e-2),
    "attentive": (3e-3, 1e-2, 3e-2),
}
CALLED = {
    "lora": f"LoRA (r = {RANK})",
    "layernorm": "LayerNorm tuning",
    "full": "full fine-tuning",
    "deep": "deep tokens (10)",
    "attentive": "attentive pooling",
}
DRAW = ("backbone", "task", "shots", "seed", "method")
Forward = Callable[[Tensor], Tensor]


class Attentive:
    """Learned rows `[4,D]`, each of which weighs the last block's tokens; their means, side by
    side, are what is read. The tokens are kept by input, for all rates: the model stays as it is.
    """

    kept: ClassVar[dict[tuple[str, bytes], Tensor]] = {}

    def __init__(self, backbone: vpt.Backbone, name: str) -> None:
        self.name = name
        self.backbone = backbone
        self.rows = nn.Parameter(0.02 * torch.randn(4, backbone.widths[-1]))
        backbone.insert([Observe(backbone.depth, tokens=self.hear)])

    def hear(self, tokens: Tensor) -> None:
        """What leaves the last block, `[B,N,D]`."""
        self.heard = F.layer_norm(tokens.float(), tokens.shape[-1:])

    def __call__(self, x: Tensor) -> Tensor:
        names = [(self.name, one.numpy().tobytes()) for one in x]
        new = [i for i, name in enumerate(names) if name not in self.kept]
        if new:
            with torch.no_grad():
                self.backbone.run(x[new])
            self.kept |= {names[i]: tokens for i, tokens in zip(new, self.heard, strict=True)}
        tokens = torch.stack([self.kept[name] for name in names])
        weights = (tokens @ self.rows.T / tokens.shape[-1] ** 0.5).softmax(1)  # [B,N,4]
        return (weights.mT @ tokens).flatten(1)


def prepared(name: str, kind: str) -> tuple[Forward, list[nn.Parameter]]:
    """The forward of a fresh model, and what learns in it."""
    backbone = vpt.load_backbone(name)
    model = backbone.model
    if kind == "deep":
        prompt = vpt.DeepTokens.like(backbone, 10)
        prompted = vpt.PromptedModel(backbone, prompt, vpt.Linear(backbone.out_features, 2))
        return prompted.outputs, list(prompt.parameters())
    if kind == "attentive":
        pool = Attentive(backbone, name)
        return pool, [pool.rows]
    if kind == "lora":
        from peft import LoraConfig, inject_adapter_in_model

        config = LoraConfig(r=RANK, lora_alpha=2 * RANK, target_modules=lora_layers(backbone))
        inject_adapter_in_model(config, model)
        learn = [p for name, p in model.named_parameters() if "lora_" in name]
    elif kind == "layernorm":
        norms = [module for module in model.modules() if isinstance(module, nn.LayerNorm)]
        learn = [p for norm in norms for p in norm.parameters()]
    else:
        learn = list(model.parameters())
    model.eval()
    for p in learn:
        p.requires_grad_()
    backbone.hold = lambda: None  # it keeps a model frozen, and this one is to learn
    return backbone.features, learn


def batches(examples: Examples, size: int, order: Sequence[int] | None = None) -> list[list[int]]:
    """Places of the examples, `size` at a time."""
    order = list(order) if order is not None else list(range(len(examples)))
    return [order[i : i + size] for i in range(0, len(order), size)]


def taken(examples: Examples, some: list[int]) -> tuple[Tensor, Tensor]:
    """Inputs and labels."""
    pairs = [examples[i] for i in some]
    return default_collate([x for x, _ in pairs]), torch.tensor([y for _, y in pairs])


@torch.no_grad()
def outputs(forward: Forward, examples: Examples) -> Tensor:
    """What the head reads of all examples `[n,D]`."""
    return torch.cat([forward(taken(examples, some)[0]) for some in batches(examples, 32)])


@torch.no_grad()
def scores(forward: Forward, head: vpt.Linear, examples: Examples) -> Tensor:
    """Of all examples `[n,C]`."""
    return head(outputs(forward, examples))


def trained(
    name: str, kind: str, train: Examples, rate: float, epochs: int, size: int, seed: int
) -> tuple[Forward, vpt.Linear, float]:
    """A model that has learned from these examples, its head, and the mean loss of the last
    epoch.
    """
    torch.manual_seed(seed)
    forward, learn = prepared(name, kind)
    bare = outputs(forward, train)
    head = fit_probe(bare, torch.tensor(train.targets), train.classes, seed)[0]
    steps = epochs * math.ceil(len(train) / size)
    groups = [{"params": learn, "lr": rate}, {"params": list(head.parameters()), "lr": 1e-3}]
    optimizer = torch.optim.AdamW(groups, weight_decay=0.01)
    warm = max(1, steps // 10)
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer,
        lambda step: min((step + 1) / warm, 0.5 * (1 + math.cos(math.pi * step / steps))),
    )
    generator = torch.Generator().manual_seed(seed)
    for _ in range(epochs):
        losses = []
        order = torch.randperm(len(train), generator=generator).tolist()
        for some in batches(train, size, order):
            x, y = taken(train, some)
            loss = F.cross_entropy(head(forward(x)), y)
            loss.backward()
            losses.append(loss.item())
            optimizer.step()
            schedule.step()
            optimizer.zero_grad()
    return forward, head, float(np.mean(losses))


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folders", nargs="+", type=Path)
    parser.add_argument("--backbone", default="vpt:vit-p8-64")
    parser.add_argument("--methods", nargs="+", choices=list(RATES), default=list(RATES))
    parser.add_argument("--rates", nargs="+", type=float, help="instead of each method's own")
    parser.add_argument("--shots", type=int, default=20)
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--out", type=Path, default=Path("runs/few-shot"))
    options = parser.parse_args(argv)
    options.out.mkdir(parents=True, exist_ok=True)
    name, file = Path(options.backbone).name, options.out / "results.jsonl"
    known = [json.loads(line) for line in file.read_text().splitlines()] if file.is_file() else []
    done = {tuple(row[key] for key in DRAW) for row in known}
    inputs = vpt.load_backbone(options.backbone).inputs
    how = {"epochs": options.epochs, "size": options.batch_size}
    for folder in options.folders:
        pool, test = (read_parts(folder, inputs, part) for part in ("train", "test"))
        for seed in range(options.seeds):
            train = pool.subset(draw(pool.targets, options.shots, seed))
            for kind in options.methods:
                where = (name, folder.name, options.shots, seed, CALLED[kind])
                if where in done:
                    continue
                started = time.process_time()
                rates, losses = options.rates or RATES[kind], {}
                if len(rates) > 1:
                    rest, held = hold_out(train, 0.2, seed)
                    for rate in rates:
                        found = trained(options.backbone, kind, rest, rate, seed=seed, **how)
                        answers = scores(*found[:2], held)
                        losses[rate] = float(F.cross_entropy(answers, torch.tensor(held.targets)))
                rate = min(losses, key=losses.__getitem__) if losses else rates[0]
                found = trained(options.backbone, kind, train, rate, seed=seed, **how)
                seconds = time.process_time() - started
                row = dict(zip(DRAW, where, strict=True)) | {
                    "cpu_seconds": round(seconds, 1),
                    "rate": rate,
                    "epochs": options.epochs,
                    "losses": losses,
                    "last_loss": found[2],
                }
                row |= result(scores(*found[:2], test).numpy(), np.array(test.targets))
                with file.open("a") as lines:
                    lines.write(json.dumps(row) + "\n")
                print(
                    folder.name, seed, CALLED[kind], f"accuracy {row['accuracy']:.1%}", flush=True
                )


if __name__ == "__main__":
    main()
