"""Train the two models of `vpt demo --fairness`, which took a planted group for a sign of the
label: a ViT and a small CNN.

python examples/pretrain/biased.py --out runs/biased
python examples/pretrain/biased.py --cases mnist --digits mnist.zip --out runs/biased

The models are written to `OUT/CASE/model`, with what they get right by label and group. DIGITS:
`…/train/digit/file`.
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import timm
import torch
from accelerate import Accelerator
from image import export, normalised
from loop import Schedule, share, train
from torch import Tensor, nn
from torch.nn import functional as F

import vpt
from vpt.data import Examples, read_parts
from vpt.demo.drawn import coloured_digits
from vpt.demo.shows import BIASED, Biased
from vpt.metrics.audit import audit


# -- configuration -----------------------------------------------------------------------
@dataclass
class Case:
    """What is learned by which of timm's architectures, in how many steps."""

    architecture: str
    steps: int
    lr: float
    model: dict[str, Any] = field(default_factory=dict)


CNN = Case("test_resnet", 500, 2e-3)
CASES = {
    "portraits": Case(
        "vit_tiny_patch16_224",
        1000,
        1e-3,
        {"img_size": 64, "patch_size": 8, "embed_dim": 128, "depth": 4, "num_heads": 4},
    ),
    "digits": CNN,
    "mnist": CNN,
}
PICTURES, TESTED = 20_000, 4000
SCHEDULE = {"batch": 128, "weight_decay": 0.05, "warmup": 100, "decay": 0.4}
# each picture is seen larger or smaller (a border has to shrink it too), and moved as far as it
# goes
ZOOM = (0.85, 1.5)
# ---


def biased_mnist(archive: Path) -> Biased:
    """As the bundled case of coloured digits, with the handwritten digits of `archive`
    (train/digit/file); it names no model.
    """
    found = read_parts(archive, vpt.Images((28, 28)), "train", False, None, None)
    images = torch.stack([found[i][0].mean(0) for i in range(len(found))]).numpy()
    written = (images, torch.tensor([int(found.classes[y]) for y in found.targets]).numpy())
    return Biased(
        "", "", lambda count, seed, part: coloured_digits(count, seed, part, written=written)
    )


def stacked(examples: Examples) -> tuple[Tensor, Tensor]:
    """Pictures `[N,3,H,W]` in [0,1] and labels `[N]`."""
    return torch.stack([examples[i][0] for i in range(len(examples))]), torch.tensor(
        examples.targets
    )


def moved(x: Tensor) -> Tensor:
    """A random view of every picture `[B,3,H,W]`: zoomed and moved, with black or its own edge
    around it.
    """
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
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, default=Path("runs/biased"))
    parser.add_argument("--cases", nargs="+", choices=list(CASES), default=list(BIASED))
    parser.add_argument(
        "--digits", type=Path, help="for mnist: a folder or zip archive of handwritten digits"
    )
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--pictures", type=int, default=PICTURES)
    parser.add_argument("--steps", type=int)
    parser.add_argument("--batch", type=int, default=SCHEDULE["batch"])
    options = parser.parse_args(argv)
    accelerator = Accelerator(mixed_precision="bf16")
    for case in options.cases:
        if case == "mnist" and options.digits is None:
            raise SystemExit("mnist needs --digits, a folder or zip archive of train/digit/file.")
        how, draw = (
            CASES[case],
            (biased_mnist(options.digits) if case == "mnist" else BIASED[case]).draw,
        )
        learned, tested = (
            draw(options.pictures, 1, "train"),
            draw(min(TESTED, options.pictures), 2, "test"),
        )
        (x, y), (held, _) = stacked(learned), stacked(tested)
        given = {
            "steps": options.steps or how.steps,
            "lr": how.lr,
            "batch": options.batch,
            "seed": options.seed,
        }
        schedule = Schedule(**(SCHEDULE | given))
        torch.manual_seed(options.seed)
        model = timm.create_model(how.architecture, **how.model, num_classes=len(learned.classes))
        for block in getattr(model, "blocks", []):
            block.attn.fused_attn = False  # as two products, faster on a CPU

        def loss(
            prepared: nn.Module, step: int, rank: int, processes: int, x=x, y=y, schedule=schedule
        ) -> Tensor:
            mine = share(len(x), schedule, step, rank, processes)
            device = next(prepared.parameters()).device
            return F.cross_entropy(
                prepared(normalised(moved(x[mine]).to(device))).float(), y[mine].to(device)
            )

        right = torch.tensor(tested.targets)

        def accuracy(m, held=held, right=right):
            return (predicted(m, held) == right).float().mean().item()

        train(accelerator, model, loss, schedule, options.out / case, accuracy)
        if accelerator.is_main_process:
            about = {
                "summary": f"with a planted bias, for fairness: {' or '.join(tested.classes)}?",
                "licence": "Apache-2.0",
            }
            rows = [[name, name] for name in learned.classes]
            export(model, rows, options.out / case / "model", how.architecture, how.model, about)
            said = predicted(model.eval(), held).tolist()
            found = audit(
                tested.targets, said, tested.grouped, tested.classes, tested.group_names
            ).as_dict()
            print(
                case, found["cells"], {k: round(v["value"], 3) for k, v in found["metrics"].items()}
            )
    accelerator.end_training()


if __name__ == "__main__":
    main()
