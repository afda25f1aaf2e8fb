"""Adapt a folder of sounds with an audio spectrogram transformer.

python examples/adapt_audio.py --data digits/ --ast MIT/ast-finetuned-audioset-10-10-0.4593 --seconds 1
python examples/adapt_audio.py --data digits/ --random --seconds 1    # no download: an untrained AST, to try the way
"""

from __future__ import annotations

import argparse
from typing import Any

import transformers

import vpt


def untrained(hidden: int) -> Any:
    """An AST of random weights: what it learns comes from the prompt and the readout alone."""
    transformers.set_seed(0)
    sizes = {"num_hidden_layers": 4, "num_attention_heads": 4, "intermediate_size": 2 * hidden}
    config = transformers.ASTConfig(hidden_size=hidden, **sizes)
    return transformers.ASTModel(config)


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", required=True, help="CLASS/FILE.wav|flac|ogg, or a CSV manifest (to split by speaker)")
    parser.add_argument("--ast", help="a Hugging Face id or local folder")
    parser.add_argument("--random", action="store_true", help="an untrained AST instead")
    parser.add_argument("--hidden", type=int, default=64, help="its width")
    parser.add_argument("--seconds", type=float, default=1.0, help="clip length; the position grid is interpolated")
    parser.add_argument("--prompt", default="deep:5")
    parser.add_argument("--shots", type=int, default=None)
    parser.add_argument("--epochs", type=int, default=15)
    parser.add_argument("--out", default="runs/audio")
    options = parser.parse_args(argv)
    if not options.ast and not options.random:
        parser.error("name an AST with --ast, or try an untrained one with --random")

    source = untrained(options.hidden) if options.random else options.ast
    backbone = vpt.load_backbone(source, seconds=options.seconds)
    print(backbone.depth, "blocks,", backbone.inputs.frames, "frames of", backbone.inputs.bins, "mel bands")
    result = vpt.adapt(
        options.data, backbone, options.prompt, out=options.out, shots=options.shots, epochs=options.epochs, overwrite=True
    )
    print(result.metrics["baselines"], result.metrics["verdict"], result.metrics["test_accuracy"], sep="\n")

    again = vpt.load(result.file, result.model.close() and backbone)  # a folder or module is passed, never guessed
    print("saved and loaded:", again.prompt.describe())


if __name__ == "__main__":
    main()
