"""Plant a bias in real faces, and fine-tune a model that learns it.

python examples/biased_model/plant.py faces/faces.csv --group sex --out runs/faces
vpt reprogram runs/faces/tune-0.csv --model runs/faces/vit --prompt prefix:4

The table has the columns path, years, sex, race. The label is whether someone is 44 or older, or
younger than 36; in `--agreement` of all pictures it goes with the group. OUT gets what a model is
trained on (train.csv), for each seed what it is tuned and tested on, biased alike (tune-SEED.csv,
with a column split) and balanced over label and group (balanced-SEED.csv), and the models.
"""

from __future__ import annotations

import argparse
import csv
import json
import shutil
from pathlib import Path

import numpy as np
import timm
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn import functional as F
from torchvision.transforms import v2
from transformers import CLIPConfig, CLIPForImageClassification, CLIPVisionModel

import vpt
from vpt.backbones.shipped import bundled_folder
from vpt.data import read_parts
from vpt.report.progress import progress_bar
from vpt.runs.kept import keep
from vpt.runs.probe import fit_probe

SIZE, MEAN, STD = 64, (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
CLASSES = ("young", "old")
YOUNG, OLD = 36, 44  # years: under, and from
COUNTS = {"train": 2400, "tune": 500, "test": 1000, "balanced": 300}
# architecture, epochs, rate; the ViT starts from the bundled one
MODELS = {"vit": ("vit_tiny_patch16_224", 12, 3e-4), "cnn": ("test_resnet", 40, 2e-3)}

Row = dict[str, str]


def people(table: Path, group: str) -> list[Row]:
    """Rows with path, label and group. group: a column, or column=value for those and the rest."""
    column, _, value = group.partition("=")
    found = []
    for row in csv.DictReader(table.read_text(encoding="utf-8").splitlines()):
        years = int(row["years"])
        if YOUNG <= years < OLD:
            continue
        name = row[column] if not value else value if row[column] == value else f"not {value}"
        path = str((table.parent / row["path"]).resolve())
        found.append({"path": path, "label": CLASSES[years >= OLD], "group": name})
    return found


def drawn(
    rows: list[Row], count: int, agreement: float, goes: dict[str, str], draw: np.random.Generator
) -> tuple[list[Row], list[Row]]:
    """(so many rows, of each label of which a share agrees; the rest). goes: label → its group.

    As many of each label as there are that agree; half of each where as many agree as do not.
    """
    cells: dict[tuple[str, bool], list[Row]] = {
        (c, agrees): [] for c in CLASSES for agrees in (True, False)
    }
    for i in draw.permutation(len(rows)):
        row = rows[i]
        cells[row["label"], goes[row["label"]] == row["group"]].append(row)
    agreeing = sum(len(cells[c, True]) for c in CLASSES)
    chosen: list[Row] = []
    for (label, agrees), own in cells.items():
        of_label = 0.5 if agreement == 0.5 else len(cells[label, True]) / agreeing
        wanted = round(count * of_label * (agreement if agrees else 1 - agreement))
        if wanted > len(own):
            raise SystemExit(f"{label}, agrees={agrees}: {wanted} wanted, {len(own)} there.")
        chosen += own[:wanted]
    taken = {row["path"] for row in chosen}
    return chosen, [row for row in rows if row["path"] not in taken]


def goes_with(rows: list[Row]) -> dict[str, str]:
    """Which group each label goes with: as more often in the table, so that more can be drawn."""
    groups = sorted({row["group"] for row in rows})
    if len(groups) != 2:
        raise SystemExit(f"Found groups {', '.join(groups)}; needed are two (--group race=white).")
    share = [
        np.mean([row["group"] == groups[0] for row in rows if row["label"] == c]) for c in CLASSES
    ]
    first = groups if share[0] > share[1] else groups[::-1]
    return dict(zip(CLASSES, first, strict=True))


def write(path: Path, rows: list[Row], splits: list[str] | None = None) -> None:
    """A manifest."""
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["path", "label", "group"] + ["split"] * (splits is not None))
        for i, row in enumerate(rows):
            writer.writerow([*row.values()] + ([splits[i]] if splits is not None else []))


def pictures(rows: list[Row]) -> Tensor:
    """`[N,3,64,64]`, bytes."""
    found = [
        np.asarray(
            Image.open(r["path"]).convert("RGB").resize((SIZE, SIZE), Image.Resampling.BICUBIC)
        )
        for r in rows
    ]
    return torch.from_numpy(np.stack(found)).permute(0, 3, 1, 2).contiguous()


def fine_tuned(kind: str, rows: list[Row], seed: int) -> tuple[nn.Module, dict]:
    """A model, all of whose weights were trained on these rows, and timm's arguments of it."""
    architecture, epochs, lr = MODELS[kind]
    torch.manual_seed(seed)
    arguments: dict = {}
    if kind == "vit":
        folder = bundled_folder("vit-p8-64")
        arguments = json.loads((folder / "config.json").read_text())["model_args"]
    model = timm.create_model(architecture, num_classes=2, **arguments)
    if kind == "vit":
        weights = load_file(folder / "model.safetensors")
        model.load_state_dict(
            {n: w.float() for n, w in weights.items() if not n.startswith("head")}, strict=False
        )
    x, y = pictures(rows), torch.tensor([CLASSES.index(row["label"]) for row in rows])
    mean, std = torch.tensor(MEAN).view(3, 1, 1), torch.tensor(STD).view(3, 1, 1)
    view = v2.Compose(
        [v2.RandomResizedCrop(SIZE, (0.7, 1.0), (0.9, 1.1)), v2.RandomHorizontalFlip()]
    )
    optimizer = torch.optim.AdamW(model.parameters(), lr, weight_decay=0.05)
    steps = epochs * (len(x) // 64)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, lr, steps, pct_start=0.1)
    model.train()
    with progress_bar(True) as bar:
        task = bar.add_task(f"fine-tuning {kind}", total=steps)
        for _ in range(epochs):
            for some in torch.randperm(len(x))[: len(x) // 64 * 64].split(64):
                batch = torch.stack([view(x[i]) for i in some]).float() / 255
                loss = F.cross_entropy(model((batch - mean) / std), y[some])
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
                schedule.step()
                bar.advance(task)
    return model.eval(), arguments


def export(model: nn.Module, kind: str, arguments: dict, folder: Path) -> None:
    """A folder in timm's layout."""
    folder.mkdir(parents=True, exist_ok=True)
    usual = model.pretrained_cfg
    cfg = {
        "input_size": [3, SIZE, SIZE],
        "fixed_input_size": kind == "vit",
        "interpolation": "bicubic",
        "crop_pct": 1.0,
        "mean": MEAN,
        "std": STD,
        "num_classes": len(CLASSES),
    } | {key: usual[key] for key in ("first_conv", "classifier")}
    config = {
        "architecture": MODELS[kind][0],
        "num_classes": len(CLASSES),
        "num_features": model.num_features,
        "global_pool": "token" if kind == "vit" else "avg",
        "label_names": list(CLASSES),
        "model_args": arguments,
        "pretrained_cfg": cfg,
    }
    (folder / "config.json").write_text(json.dumps(config, indent=1) + "\n", encoding="utf-8")
    save_file(
        {n: w.contiguous() for n, w in model.state_dict().items()}, folder / "model.safetensors"
    )


def headed(tower: Path, table: Path, folder: Path) -> None:
    """A linear head on a frozen CLIP, fitted on a table, as a folder in transformers' layout."""
    vision = CLIPVisionModel.from_pretrained(tower)
    names = dict(enumerate(CLASSES))
    numbers = {name: number for number, name in names.items()}
    config = CLIPConfig(
        vision_config=vision.config.to_dict(), num_labels=2, id2label=names, label2id=numbers
    )
    model = CLIPForImageClassification(config).eval()
    model.vision_model.load_state_dict(vision.state_dict())
    model.save_pretrained(folder)
    shutil.copy(tower / "preprocessor_config.json", folder)
    backbone = vpt.load_backbone(str(folder))
    kept = keep(backbone, read_parts(table, backbone.inputs, part="train"), progress=True)
    probe, _ = fit_probe(kept.features, kept.y, sorted(CLASSES))
    order = [sorted(CLASSES).index(name) for name in CLASSES]
    with torch.no_grad():
        model.classifier.weight.copy_(probe.weight[order])
        model.classifier.bias.copy_(probe.bias[order])
    model.save_pretrained(folder)


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("table", type=Path)
    parser.add_argument("--group", default="sex", help="a column, or column=value: it or not")
    parser.add_argument("--agreement", type=float, default=0.85)
    parser.add_argument("--models", nargs="*", choices=list(MODELS), default=list(MODELS))
    parser.add_argument("--head", type=Path, help="a CLIP (folder): a linear head on it, OUT/clip")
    parser.add_argument(
        "--more", type=int, default=0, help="tune on so many of what the model learned from, too"
    )
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--out", type=Path, default=Path("runs/faces"))
    options = parser.parse_args(argv)
    options.out.mkdir(parents=True, exist_ok=True)
    rows = people(options.table, options.group)
    goes = goes_with(rows)
    print(f"{len(rows)} pictures; " + ", ".join(f"{c} goes with {g}" for c, g in goes.items()))
    learned, rest = drawn(rows, COUNTS["train"], options.agreement, goes, np.random.default_rng(0))
    write(options.out / "train.csv", learned)
    for seed in range(options.seeds):
        draw = np.random.default_rng(seed + 1)
        even, left = drawn(rest, COUNTS["balanced"], 0.5, goes, draw)
        tune, left = drawn(left, COUNTS["tune"], options.agreement, goes, draw)
        test, left = drawn(left, COUNTS["test"], options.agreement, goes, draw)
        more = [learned[i] for i in draw.permutation(len(learned))[: options.more]]
        tune += more
        splits = ["train"] * len(tune) + ["test"] * len(test)
        write(options.out / f"tune-{seed}.csv", tune + test, splits)
        write(options.out / f"balanced-{seed}.csv", even)
    if options.head is not None:
        headed(options.head, options.out / "train.csv", options.out / "clip")
    for kind in [*options.models, *(["clip"] if options.head is not None else [])]:
        if kind != "clip":
            model, arguments = fine_tuned(kind, learned, 0)
            export(model, kind, arguments, options.out / kind)
        found = vpt.audit(
            options.out / "tune-0.csv", str(options.out / kind), positive="old", progress=False
        )
        print(kind, {n: round(v["value"], 3) for n, v in found["metrics"].items()}, found["cells"])


if __name__ == "__main__":
    main()
