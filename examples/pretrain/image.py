"""Pre-train `vpt:vit-p8-64`: a small ViT, by supervision, on 64-pixel pictures of 160 kinds of
things.

python examples/pretrain/image.py tiny-imagenet-160 --out runs/image [--start model.safetensors]

DATA holds `classes.tsv` (id, name; in the order of the head), `train*.zip` and `val.zip` of
`id/number.webp`. On GPUs: `accelerate launch examples/pretrain/image.py …`. A run that was stopped
goes on when called again. The backbone is written to `OUT/model`.
"""

from __future__ import annotations

import argparse
import io
import json
import zipfile
from pathlib import Path, PurePosixPath

import numpy as np
import timm
import torch
from accelerate import Accelerator
from loop import Schedule, half, share, train
from PIL import Image
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn import functional as F
from torchvision.transforms import v2

# -- configuration -----------------------------------------------------------------------
ARCHITECTURE = "vit_tiny_patch16_224"  # timm's name of the family; MODEL is what differs
SIZE = 64  # pixels
MODEL = {"img_size": SIZE, "patch_size": 8, "depth": 8}
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
SCHEDULE = {
    "steps": 5000,
    "batch": 384,
    "lr": 1.5e-3,
    "weight_decay": 0.05,
    "warmup": 200,
    "decay": 0.3,
}
PRECISION, LABEL_SMOOTHING = "bf16", 0.1
# share of the patches left out, and the share of the steps, the last ones, that see all of them
PATCH_DROP, WHOLE = 0.62, 0.05
# random resized crop (area, sides), rotation (degrees), brightness and contrast, saturation, grey,
# negative
AREA, ASPECT, ROTATION, LIGHT, COLOUR, GREY, NEGATIVE = (
    (0.4, 1.0),
    (0.75, 1.33),
    8.0,
    0.3,
    0.4,
    0.1,
    0.05,
)
# after this share of the steps most batches are cut-mixed or mixed (chance of it, alphas); else it
# learns them by heart
UNMIXED, MIX, CUTMIX, MIXUP = 0.5, 0.8, 1.0, 0.5
# ---


def pictures(archives: list[Path], classes: list[str], cache: Path) -> tuple[np.ndarray, Tensor]:
    """Every picture of `archives` as uint8 `[N,3,H,W]` in a memory map that is written once, and
    its class `[N]`.
    """
    opened = [zipfile.ZipFile(archive) for archive in archives]
    names = [
        (a, n)
        for a in opened
        for n in sorted(a.namelist())
        if PurePosixPath(n).parent.name in classes
    ]
    targets = torch.tensor([classes.index(PurePosixPath(n).parent.name) for _, n in names])
    shape = (len(names), 3, SIZE, SIZE)
    if not cache.exists():
        part = cache.with_suffix(".part.npy")
        array = np.lib.format.open_memmap(part, "w+", np.uint8, shape)
        for i, (archive, name) in enumerate(names):
            with Image.open(io.BytesIO(archive.read(name))) as image:
                array[i] = np.asarray(image.convert("RGB").resize(shape[:1:-1])).transpose(2, 0, 1)
        array.flush()
        del array
        part.rename(cache)
    for archive in opened:
        archive.close()
    found = np.load(cache, mmap_mode="r")
    if found.shape != shape:
        raise SystemExit(
            f"{cache} holds {found.shape} pictures, the archives {shape}; delete it, or give"
            " another --out."
        )
    return found, targets


def augmented(x: Tensor) -> Tensor:
    """A random view of every picture: crop, flip, rotation, light, colour. x: `[B,3,H,W]` in [0,1];
    each sample has its own.
    """
    b, like = len(x), {"device": x.device}
    uniform = lambda low, high: torch.rand(b, **like) * (high - low) + low  # noqa: E731
    area, ratio = uniform(*AREA), torch.exp(uniform(*np.log(ASPECT)))
    width, height = (area * ratio).sqrt().clamp(max=1), (area / ratio).sqrt().clamp(max=1)
    angle, flip = (
        torch.deg2rad(uniform(-ROTATION, ROTATION)),
        torch.where(uniform(0, 1) < 0.5, -1.0, 1.0),
    )
    shift = torch.stack([(1 - width) * uniform(-1, 1), (1 - height) * uniform(-1, 1)], 1)
    turn = torch.stack(
        [
            flip * width * angle.cos(),
            -height * angle.sin(),
            flip * width * angle.sin(),
            height * angle.cos(),
        ],
        1,
    )
    grid = F.affine_grid(
        torch.cat([turn.view(b, 2, 2), shift[:, :, None]], 2), list(x.shape), align_corners=False
    )
    x = F.grid_sample(x, grid, mode="bilinear", padding_mode="reflection", align_corners=False)
    grey = (x * x.new_tensor([0.299, 0.587, 0.114])[:, None, None]).sum(1, keepdim=True)
    saturation = torch.where(uniform(0, 1) < GREY, 0.0, uniform(1 - COLOUR, 1 + COLOUR))[
        :, None, None, None
    ]
    x = grey + (x - grey) * saturation
    x = (
        (x - 0.5) * uniform(1 - LIGHT, 1 + LIGHT)[:, None, None, None]
        + 0.5
        + uniform(-LIGHT, LIGHT)[:, None, None, None] / 2
    )
    return torch.where((uniform(0, 1) < NEGATIVE)[:, None, None, None], 1 - x, x).clamp(0, 1)


def mixed(x: Tensor, y: Tensor, classes: int) -> tuple[Tensor, Tensor]:
    """The batch in another order, mostly each picture mixed with another, and then with targets
    `[B,classes]`.
    """
    kinds = [
        v2.CutMix(alpha=CUTMIX, num_classes=classes),
        v2.MixUp(alpha=MIXUP, num_classes=classes),
    ]
    # each is mixed with the one before it, and they come class by class
    shuffled = torch.randperm(len(x), device=x.device)
    return v2.RandomApply([v2.RandomChoice(kinds)], p=MIX)(x[shuffled], y[shuffled])


def normalised(x: Tensor) -> Tensor:
    """[0,1] → what the model takes."""
    return (x - x.new_tensor(MEAN)[:, None, None]) / x.new_tensor(STD)[:, None, None]


def build(classes: int) -> nn.Module:
    """The model; attention as two plain matrix products, which on a CPU are faster than the fused
    kernel at this length.
    """
    model = timm.create_model(
        ARCHITECTURE, **MODEL, num_classes=classes, patch_drop_rate=PATCH_DROP
    )
    for block in model.blocks:
        block.attn.fused_attn = False
    return model


@torch.no_grad()
def accuracy(model: nn.Module, images: np.ndarray, targets: Tensor) -> float:
    """Top-1 accuracy in [0,1] on the pictures as they are."""
    device, right = next(model.parameters()).device, 0
    for i in range(0, len(images), 500):
        x = torch.from_numpy(np.array(images[i : i + 500])).to(device).float() / 255
        right += (model(normalised(x)).argmax(1).cpu() == targets[i : i + 500]).sum().item()
    return right / len(images)


def export(
    model: nn.Module,
    rows: list[list[str]],
    folder: Path,
    architecture: str,
    arguments: dict,
    about: dict[str, str],
) -> None:
    """`config.json` and `model.safetensors` (fp16) in timm's layout. rows: (id, name) of the
    classes.
    """
    folder.mkdir(parents=True, exist_ok=True)
    fixed, usual = "img_size" in arguments, model.pretrained_cfg
    cfg = {
        "input_size": [3, SIZE, SIZE],
        "fixed_input_size": fixed,
        "interpolation": "bicubic",
        "crop_pct": 1.0,
        "mean": MEAN,
        "std": STD,
        "num_classes": len(rows),
    } | {key: usual[key] for key in ("first_conv", "classifier")}
    config = {
        "architecture": architecture,
        "num_classes": len(rows),
        "num_features": model.num_features,
        "global_pool": "token" if fixed else "avg",
        "label_names": [row[0] for row in rows],
        "model_args": arguments,
        "pretrained_cfg": cfg,
        "label_descriptions": {row[0]: row[1] for row in rows},
        "vpt": about,
    }
    (folder / "config.json").write_text(
        json.dumps(config, indent=1, ensure_ascii=False) + "\n", encoding="utf-8"
    )
    save_file(half(model), folder / "model.safetensors")


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("data", type=Path)
    parser.add_argument("--out", type=Path, default=Path("runs/pretrain-image"))
    parser.add_argument(
        "--start", type=Path, help="weights to begin from (safetensors); otherwise random"
    )
    parser.add_argument(
        "--without",
        type=int,
        default=0,
        help="keep the last N classes out, for a trial run judged on them",
    )
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--steps", type=int, default=SCHEDULE["steps"])
    parser.add_argument("--batch", type=int, default=SCHEDULE["batch"])
    parser.add_argument("--save-every", type=int, default=250)
    options = parser.parse_args(argv)
    accelerator = Accelerator(mixed_precision=PRECISION)
    rows = [
        line.split("\t")
        for line in (options.data / "classes.tsv").read_text(encoding="utf-8").splitlines()
        if line
    ]
    classes = [row[0] for row in rows[: len(rows) - options.without]]
    options.out.mkdir(parents=True, exist_ok=True)
    with accelerator.local_main_process_first():
        images, targets = pictures(
            sorted(options.data.glob("train*.zip")), classes, options.out / "train.npy"
        )
        held, held_targets = pictures([options.data / "val.zip"], classes, options.out / "val.npy")
    if len(targets) < options.batch:
        raise SystemExit(
            f"{options.data} holds {len(targets)} training pictures; needed is at least a batch,"
            f" {options.batch}."
        )
    schedule = Schedule(
        **(SCHEDULE | {k: getattr(options, k) for k in ("steps", "batch", "seed", "save_every")})
    )
    torch.manual_seed(options.seed)
    count = len(classes)
    model = build(count)
    if options.start is not None:
        weights = load_file(options.start)
        model.load_state_dict(
            weights | {k: v[:count] for k, v in weights.items() if k.startswith("head.")}
        )

    def loss(prepared: nn.Module, step: int, rank: int, processes: int) -> Tensor:
        mine = share(len(targets), schedule, step, rank, processes)
        device = next(prepared.parameters()).device
        x, y = (
            torch.from_numpy(images[mine.numpy()]).to(device).float() / 255,
            targets[mine].to(device),
        )
        model.patch_drop.prob = 0.0 if step >= (1 - WHOLE) * schedule.steps else PATCH_DROP
        x = augmented(x)
        if step >= UNMIXED * schedule.steps:
            x, y = mixed(x, y, count)
        return F.cross_entropy(prepared(normalised(x)).float(), y, label_smoothing=LABEL_SMOOTHING)

    some = slice(None, None, max(1, len(held) // 2000))  # of every class
    train(
        accelerator,
        model,
        loss,
        schedule,
        options.out,
        lambda m: accuracy(m, held[some], held_targets[some]),
    )
    if accelerator.is_main_process:
        shape = (
            f"ViT, {MODEL['img_size']} px, patch {MODEL['patch_size']}, width {model.num_features},"
            f" depth {MODEL['depth']}"
        )
        about = {
            "summary": f"{shape}, trained on {count} Tiny-ImageNet classes",
            "licence": "research only (see its card)",
        }
        export(model, rows[:count], options.out / "model", ARCHITECTURE, MODEL, about)
        print(
            f"top-1 on {len(held)} held-out pictures:"
            f" {accuracy(model.eval(), held, held_targets):.1%}"
        )
    accelerator.end_training()


if __name__ == "__main__":
    main()
