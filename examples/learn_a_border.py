"""Reprogram a frozen classifier with a learned border, step by step, and look at it.

python examples/learn_a_border.py photos/ --width 8
"""

from __future__ import annotations

import argparse
from pathlib import Path

import vpt
from vpt.report.pixels import pixel_prompt


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data")
    parser.add_argument("--backbone", default="vpt:vit-p8-64")
    parser.add_argument("--width", type=int, default=8)
    parser.add_argument("--epochs", type=int, default=15)
    parser.add_argument("--out", type=Path, default=Path("runs/border"))
    options = parser.parse_args(argv)

    backbone = vpt.load_backbone(options.backbone)
    data = vpt.load_data(options.data, backbone.inputs)
    border = vpt.Border.like(backbone, width=options.width)
    print(border.describe())

    # vpt.Identity(data.classes) keeps the model's own classes
    readout = vpt.Linear(backbone.out_features, data.classes)
    model = vpt.PromptedModel(backbone, border, readout)
    history = vpt.fit(model, data.train, data.val, epochs=options.epochs, lr=1e-2, readout_lr=1.0)
    print("kept epoch", history.best, history.rows[history.best])
    print(
        "test accuracy",
        vpt.evaluate(model, data.test)["accuracy"] if data.test else "(no test data)",
    )

    options.out.mkdir(parents=True, exist_ok=True)
    vpt.save(options.out / "prompt.vpt", model)
    (options.out / "border.png").write_bytes(
        pixel_prompt(border.canvas(), border.describe(), "in [0,1]")
    )
    model.close()


if __name__ == "__main__":
    main()
