"""Words spoken by espeak-ng, in many voices, accents, speeds and pitches: the sound that this
project makes itself.

Needs the Debian package `espeak-ng` (its library is called through ctypes); only the recipes do,
never the user.
"""

from __future__ import annotations

import ctypes
import ctypes.util
import random
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torchaudio.functional import resample

RATE = 16000
WORDS = Path(__file__).with_name("words.txt")
ACCENTS = {
    "en": [
        "en-us",
        "en-us",
        "en",
        "en-gb-x-rp",
        "en-gb-scotland",
        "en-gb-x-gbcwmd",
        "en-029",
        "en-us-nyc",
    ],
    "de": ["de"],
    "fr": ["fr", "fr-be", "fr-ch"],
    "es": ["es", "es-419"],
    "it": ["it"],
    "nl": ["nl"],
    "pl": ["pl"],
    "pt-br": ["pt-br"],
    "sv": ["sv"],
}
# files of espeak-ng's voice variants; those kept apart speak the bundled examples
VARIANTS = [
    "adam",
    "Alex",
    "Alicia",
    "Andrea",
    "Andy",
    "Annie",
    "antonio",
    "aunty",
    "belinda",
    "benjamin",
    "boris",
    "caleb",
    "david",
    "Denis",
    "Diogo",
    "ed",
    "edward",
    "edward2",
    "Gene",
    "Gene2",
    "gustave",
    "Henrique",
    "Hugo",
    "iven",
    "iven2",
    "iven3",
    "Jacky",
    "john",
    "kaukovalta",
    "Lee",
    "linda",
    "marcelo",
    "Marco",
    "Mario",
    "max",
    "Michael",
    "michel",
    "miguel",
    "Nguyen",
    "pablo",
    "paul",
    "pedro",
    "quincy",
    "RicishayMax",
    "rob",
    "robert",
    "sandro",
    "shelby",
    "steph",
    "steph2",
    "Storm",
    "travis",
    "victor",
    "zac",
    "anika",
    "f1",
    "f2",
    "f3",
    "f5",
    "grandpa",
    "klatt",
    "klatt2",
    "klatt4",
    "m1",
    "m2",
    "m3",
    "m4",
    "m5",
    "m7",
    "m8",
    "norbert",
    "whisperf",
    "croak",
]
KEPT_APART = [
    "f4",
    "m6",
    "klatt3",
    "steph3",
    "Mike",
    "Tweaky",
    "iven4",
    "grandma",
    "Mr serious",
    "RicishayMax3",
]


@dataclass(frozen=True)
class Utterance:
    """One word by one voice. rate: words a minute; pitch and its range: espeak-ng's 0 to 99."""

    word: str
    voice: str
    rate: int
    pitch: int
    range: int


class Speaker:
    """espeak-ng's library. Raises `SystemExit` where it is not installed."""

    def __init__(self) -> None:
        name = ctypes.util.find_library("espeak-ng")
        if name is None:
            raise SystemExit(
                "Found no espeak-ng; install the Debian package of that name (apt-get install"
                " espeak-ng)."
            )
        self.library = ctypes.CDLL(name)
        self.samples: list[np.ndarray] = []
        self.rate = self.library.espeak_Initialize(2, 0, None, 0)  # AUDIO_OUTPUT_SYNCHRONOUS
        kind = ctypes.CFUNCTYPE(
            ctypes.c_int, ctypes.POINTER(ctypes.c_short), ctypes.c_int, ctypes.c_void_p
        )
        self.callback: Callable[..., int] = kind(self._keep)
        self.library.espeak_SetSynthCallback(self.callback)

    def _keep(self, samples: ctypes._Pointer[ctypes.c_short], count: int, events: int) -> int:
        if samples and count > 0:
            self.samples.append(np.ctypeslib.as_array(samples, (count,)).copy())
        return 0

    def say(self, utterance: Utterance) -> torch.Tensor:
        """The clip `[T]` in [-1,1] at 16 kHz, without the silence around it. Raises `ValueError`
        for an unknown voice.
        """
        if self.library.espeak_SetVoiceByName(utterance.voice.encode()) != 0:
            raise ValueError(f"espeak-ng has no voice {utterance.voice!r}.")
        for number, value in ((1, utterance.rate), (3, utterance.pitch), (4, utterance.range)):
            self.library.espeak_SetParameter(number, value, 0)
        self.samples.clear()
        text = utterance.word.encode()
        self.library.espeak_Synth(text, len(text) + 1, 0, 0, 0, 1, None, None)  # espeakCHARS_UTF8
        self.library.espeak_Synchronize()
        wave = (
            torch.from_numpy(np.concatenate(self.samples or [np.zeros(1, np.int16)])).float()
            / 32768
        )
        wave = resample(wave, self.rate, RATE).clamp(-1, 1)
        loud = (wave.abs() > 0.01 * wave.abs().max().clamp(min=1e-4)).nonzero().flatten()
        return wave[loud[0] : loud[-1] + 1] if len(loud) else wave[:0]


def vocabulary() -> list[tuple[str, str]]:
    """(language, word) of every class, as `words.txt` lists them."""
    lines = [
        line.split(":")
        for line in WORDS.read_text(encoding="utf-8").splitlines()
        if line and not line.startswith("#")
    ]
    return [(language, word) for language, words in lines for word in words.split()]


def draw(language: str, word: str, chance: random.Random, variants: list[str]) -> Utterance:
    """A random voice, accent, speed and pitch."""
    accent, variant = chance.choice(ACCENTS[language]), chance.choice(variants)
    return Utterance(
        word,
        f"{accent}+{variant}",
        chance.randint(110, 230),
        chance.randint(15, 85),
        chance.randint(20, 90),
    )
