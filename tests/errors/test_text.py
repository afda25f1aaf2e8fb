"""Names that a terminal would obey, and those that it cannot print."""

from __future__ import annotations

import pytest
from rich.console import Console

from vpt.errors import DataError
from vpt.errors.text import printable
from vpt.report.progress import clean


@pytest.mark.parametrize(
    ("text", "needed"),
    [
        ("plain, ä é 雨 ☀ [b]", "plain, ä é 雨 ☀ [b]"),
        ("\x1b[2J\x1b]0;title\x07", "\\x1b[2J\\x1b]0;title\\x07"),
        ("\u202egnp.exe", "\\u202egnp.exe"),
        ("\ud800", "\\ud800"),
        ("a\rb\x00\x9b", "a\\rb\\x00\\x9b"),
        ("می‌خواهم 👩\u200d🔬 two\u3000words", "می‌خواهم 👩\u200d🔬 two\u3000words"),
        ("\u2028\ufeff\u2066", "\\u2028\\ufeff\\u2066"),
    ],
)
def test_only_what_moves_or_breaks_a_terminal_is_escaped(text: str, needed: str) -> None:
    assert printable(text) == needed
    printable(text).encode()  # nothing that cannot be written


def test_line_ends_are_of_messages_and_not_of_names() -> None:
    assert printable("one\ntwo\tthree") == "one\ntwo\tthree"
    assert printable("one\ntwo", lines=False) == "one\\ntwo"
    assert clean("[red]a\nb") == "\\[red]a\\nb"


def test_no_error_carries_an_escape() -> None:
    assert (
        str(DataError("class '\x1b[31m' is empty\nand more"))
        == "class '\\x1b[31m' is empty\nand more"
    )
    console = Console(record=True, width=60, force_terminal=True, color_system=None)
    console.print(clean("\x1b[2Jx\ud800"))
    assert "\x1b[2J" not in console.export_text(styles=True)
