"""Train the two models of `vpt demo --fairness`: small ViTs that took a planted group for a sign of the label.

python examples/pretrain/biased.py --out runs/biased

The models are written to `OUT/digits/model` and `OUT/portraits/model`, with what they get right by label and group.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import timm
import torch
from accelerate import Accelerator
from image import export, normalised
from loop import Schedule, share, train
from torch import Tensor, nn
from torch.nn import functional as F

from vpt.data import Examples
from vpt.drawn import coloured_digits, portraits
from vpt.group_metrics import audit

# -- configuration -------------------------------------------------------------------------------------------------------
ARCHITECTURE = "vit_tiny_patch16_224"
MODEL = {"img_size": 64, "patch_size": 8, "embed_dim": 128, "depth": 4, "num_heads": 4}
PICTURES, TESTED = 6000, 2000
SCHEDULE = {"batch": 128, "lr": 1e-3, "weight_decay": 0.05, "warmup": 100, "decay": 0.4}
STEPS = {"digits": 2000, "portraits": 600}
ZOOM = (0.85, 1.5)  # each picture is seen larger or smaller (a border has to shrink it too), and moved as far as it goes
# ------------------------------------------------------------------------------------------------------------------------

CASES = {
    "digits": coloured_digits,
    "portraits": lambda count, seed, part: portraits(count, seed),
}


def stacked(examples: Examples) -> tuple[Tensor, Tensor]:
    """Pictures `[N,3,H,W]` in [0,1] and labels `[N]`."""
    return torch.stack([examples[i][0] for i in range(len(examples))]), torch.tensor(examples.targets)


def moved(x: Tensor) -> Tensor:
    """A random view of every picture `[B,3,H,W]`: zoomed and moved, with black or its own edge around it."""
    zoom = torch.empty(len(x), 1, 1).uniform_(*ZOOM)
    room = (zoom - 1).abs() * torch.empty(len(x), 2, 1).uniform_(-1, 1)
    theta = torch.cat([zoom * torch.eye(2), room], 2)
    grid = F.affine_grid(theta, list(x.shape), align_corners=False)
    black = F.grid_sample(x, grid, padding_mode="zeros", align_corners=False)
    edge = F.grid_sample(x, grid, padding_mode="border", align_corners=False)
    return torch.where(torch.rand(len(x), 1, 1, 1) < 0.5, black, edge)


@torch.no_grad()
def predicted(model: nn.Module, x: Tensor) -> Tensor:
    """Class numbers `[N]`."""
    device = next(model.parameters()).device
    return torch.cat([model(normalised(part.to(device))).argmax(1).cpu() for part in x.split(500)])


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("runs/biased"))
    parser.add_argument("--cases", nargs="+", choices=list(CASES), default=list(CASES))
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--pictures", type=int, default=PICTURES)
    parser.add_argument("--steps", type=int)
    parser.add_argument("--batch", type=int, default=SCHEDULE["batch"])
    options = parser.parse_args(argv)
    accelerator = Accelerator(mixed_precision="bf16")
    for case in options.cases:
        learned, tested = CASES[case](options.pictures, 1, "train"), CASES[case](min(TESTED, options.pictures), 2, "test")
        (x, y), (held, _) = stacked(learned), stacked(tested)
        given = {"steps": options.steps or STEPS[case], "batch": options.batch, "seed": options.seed}
        schedule = Schedule(**(SCHEDULE | given))
        torch.manual_seed(options.seed)
        model = timm.create_model(ARCHITECTURE, **MODEL, num_classes=len(learned.classes))
        for block in model.blocks:
            block.attn.fused_attn = False  # as two products, faster on a CPU

        def loss(prepared: nn.Module, step: int, rank: int, processes: int, x=x, y=y, schedule=schedule) -> Tensor:
            mine = share(len(x), schedule, step, rank, processes)
            device = next(prepared.parameters()).device
            return F.cross_entropy(prepared(normalised(moved(x[mine]).to(device))).float(), y[mine].to(device))

        right = torch.tensor(tested.targets)
        accuracy = lambda m, held=held, right=right: (predicted(m, held) == right).float().mean().item()  # noqa: E731
        train(accelerator, model, loss, schedule, options.out / case, accuracy)
        if accelerator.is_main_process:
            about = {"summary": f"small ViT with a planted bias: {' or '.join(tested.classes)}", "licence": "Apache-2.0"}
            export(model, [[name, name] for name in learned.classes], options.out / case / "model", ARCHITECTURE, MODEL, about)
            said = predicted(model.eval(), held).tolist()
            found = audit(tested.targets, said, tested.grouped, tested.classes, tested.group_names)
            print(case, found["cells"], {k: round(v["value"], 3) for k, v in found["metrics"].items()})
    accelerator.end_training()


if __name__ == "__main__":
    main()
