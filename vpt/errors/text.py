"""Names that come from files, folders and headers, made safe for a terminal or a page."""

from __future__ import annotations

import unicodedata

# joiners: Persian, Indic scripts and emoji are spelt with them, and they move nothing
KEPT = "\u200c\u200d"


def printable(text: str, lines: bool = True) -> str:
    """The text with control, bidi, surrogate and other unprintable characters written as escapes
    ("\\x1b", "\\u202e").

    A terminal obeys some of them (colours, titles, links), others reverse what is read, and a lone
    surrogate cannot be printed at all. lines: whether line ends stay; a name has none.
    """
    if text.isprintable():
        return text
    kept = KEPT + ("\n\t" if lines else "")
    return "".join(
        c if c.isprintable() or c in kept or unicodedata.category(c) == "Zs" else _escaped(c)
        for c in text
    )


def _escaped(character: str) -> str:
    return character.encode("unicode_escape").decode("ascii")
