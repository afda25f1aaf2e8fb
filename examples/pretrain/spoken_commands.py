"""Make the bundled examples of sound: commands for a home, by voices that the backbone's training set does not have.

python examples/pretrain/spoken_commands.py assets/spoken-commands.zip

`train/word/n.ogg` and `test/word/n.ogg` at 16 kHz; the voices of the two are different ones too.
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

WORDS = ["lights", "music", "kitchen", "garden", "window", "heating", "coffee", "louder", "quiet", "morning"]
VOICES = {"train": KEPT_APART[:6], "test": KEPT_APART[6:]}
EACH = 20


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    parser.add_argument("--each", type=int, default=EACH)
    options = parser.parse_args(argv)
    if known := set(WORDS) & {word for _, word in vocabulary()}:
        raise SystemExit(f"The backbone is trained on {', '.join(sorted(known))}; choose other words.")
    torch.manual_seed(0)
    chance, speaker, samples = random.Random(0), Speaker(), sound().samples
    part = options.out.with_suffix(".part")
    with zipfile.ZipFile(part, "w") as archive:
        for split, voices in VOICES.items():
            for word in WORDS:
                clips = torch.zeros(options.each, samples)
                lengths = torch.zeros(options.each, dtype=torch.long)
                for i in range(options.each):
                    clip = speaker.say(draw("en", word, chance, voices))[:samples]
                    clips[i, : len(clip)], lengths[i] = clip, len(clip)
                waves, kept = heard(clips, lengths, RATE)
                for i, (wave, length) in enumerate(zip(waves, kept.tolist(), strict=True)):
                    file = io.BytesIO()
                    soundfile.write(file, wave[:length].numpy(), RATE, format="OGG", subtype="VORBIS")
                    archive.writestr(zipfile.ZipInfo(f"{split}/{word}/{i:02}.ogg"), file.getvalue())
    part.rename(options.out)
    print(f"{options.out}: {2 * len(WORDS) * options.each} clips, {options.out.stat().st_size / 1e6:.1f} MB")


if __name__ == "__main__":
    main()
