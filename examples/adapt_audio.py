"""Adapt a folder of sounds with an audio spectrogram transformer.

python examples/adapt_audio.py --data digits/                       # the bundled one: clips of a
second python examples/adapt_audio.py --data digits/ --ast MIT/ast-finetuned-audioset-10-10-0.4593
--seconds 1
"""

from __future__ import annotations

import argparse

import vpt


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--data",
        required=True,
        help="CLASS/FILE.wav|flac|ogg|mp3, or a CSV manifest (to split by speaker)",
    )
    parser.add_argument(
        "--ast", default="vpt:ast-tiny", help="a bundled name, a Hugging Face id or a local folder"
    )
    parser.add_argument(
        "--seconds", type=float, help="another clip length; the position grid is interpolated"
    )
    parser.add_argument("--prompt", default="deep:5")
    parser.add_argument("--shots", type=int, default=None)
    parser.add_argument("--epochs", type=int, default=15)
    parser.add_argument("--out", default="runs/audio")
    options = parser.parse_args(argv)

    backbone = vpt.load_backbone(options.ast, seconds=options.seconds)
    print(
        backbone.depth,
        "blocks,",
        backbone.inputs.frames,
        "frames of",
        backbone.inputs.bins,
        "mel bands",
    )
    result = vpt.adapt(
        options.data,
        backbone,
        options.prompt,
        out=options.out,
        shots=options.shots,
        epochs=options.epochs,
        overwrite=True,
    )
    print(
        result.metrics["baselines"],
        result.metrics["verdict"],
        result.metrics["test_accuracy"],
        sep="\n",
    )

    # a folder is passed, never guessed
    again = vpt.load(result.file, result.model.close() and backbone)
    print("saved and loaded:", again.prompt.describe())


if __name__ == "__main__":
    main()
