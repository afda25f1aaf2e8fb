"""Make the bundled examples of sound: commands for a home, by voices that the backbone's training
set does not have.

python examples/pretrain/spoken_commands.py assets/spoken-commands.zip

`train/word/n.ogg`, `val` and `test` likewise, at 16 kHz; each part has voices of its own.
"""

from __future__ import annotations

import argparse
import io
import random
import zipfile
from pathlib import Path

import soundfile
import torch
from audio import heard, sound
from speech import KEPT_APART, RATE, Speaker, draw, vocabulary

WORDS = [
    "lights",
    "music",
    "kitchen",
    "garden",
    "window",
    "heating",
    "coffee",
    "louder",
    "quiet",
    "morning",
]
VOICES = {"train": KEPT_APART[:4], "val": KEPT_APART[4:6], "test": KEPT_APART[6:]}
EACH = {"train": 12, "val": 8, "test": 20}


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("out", type=Path)
    options = parser.parse_args(argv)
    if known := set(WORDS) & {word for _, word in vocabulary()}:
        raise SystemExit(
            f"The backbone is trained on {', '.join(sorted(known))}; choose other words."
        )
    torch.manual_seed(0)
    chance, speaker, samples = random.Random(0), Speaker(), sound().samples
    part = options.out.with_suffix(".part")
    with zipfile.ZipFile(part, "w") as archive:
        for split, voices in VOICES.items():
            words = [word for word in WORDS for _ in range(EACH[split])]
            clips, lengths = (
                torch.zeros(len(words), samples),
                torch.zeros(len(words), dtype=torch.long),
            )
            for i, word in enumerate(words):
                clip = speaker.say(draw("en", word, chance, voices))[:samples]
                clips[i, : len(clip)], lengths[i] = clip, len(clip)
            # the other voices in a clip are of any word, and of this part only
            waves, kept = heard(clips, lengths, RATE)
            for i, (wave, length) in enumerate(zip(waves, kept.tolist(), strict=True)):
                file = io.BytesIO()
                soundfile.write(file, wave[:length].numpy(), RATE, format="OGG", subtype="VORBIS")
                archive.writestr(
                    zipfile.ZipInfo(f"{split}/{words[i]}/{i % EACH[split]:02}.ogg"), file.getvalue()
                )
    part.replace(options.out)
    print(
        f"{options.out}: {len(WORDS) * sum(EACH.values())} clips,"
        f" {options.out.stat().st_size / 1e6:.1f} MB"
    )


if __name__ == "__main__":
    main()
