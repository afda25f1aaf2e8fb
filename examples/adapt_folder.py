"""Adapt a folder of labelled images with deep tokens, then use the result as a model.

python examples/adapt_folder.py photos/            # photos/CLASS/FILE or photos/SPLIT/CLASS/FILE
"""

from __future__ import annotations

import argparse

import torch

import vpt


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data")
    parser.add_argument(
        "--backbone", default="vpt:vit-p8-64", help="e.g. vit_base_patch16_224.augreg_in21k"
    )
    parser.add_argument("--out", default="runs/folder")
    parser.add_argument("--epochs", type=int, default=15)
    options = parser.parse_args(argv)

    result = vpt.adapt(
        options.data,
        options.backbone,
        "deep:10",
        out=options.out,
        epochs=options.epochs,
        overwrite=True,
    )
    print(result.metrics["verdict"], "· test accuracy", result.metrics["test_accuracy"])

    model = vpt.load(result.file)  # opens the backbone again by name
    image = model.backbone.inputs.example(1)  # any images [B,3,H,W] in [0,1]
    with torch.no_grad():
        print("a noise image is taken for", model.classes[model(image).argmax(1)])

    backbone = result.model.backbone
    bare = result.model.close()  # the model as it was: no hook left, no weight touched
    print(type(bare).__name__, "is bare again:", backbone.fingerprint()[:12])


if __name__ == "__main__":
    main()
