"""The README's table of families and prompts is what the tests' registry says. `python
tests/test_readme.py` writes it anew.
"""

from __future__ import annotations

import sys
from pathlib import Path

from families import EXTRA, MODELS, REASONS, refusal

README = Path(__file__).parents[1] / "README.md"
START, END = "<!-- families: written by tests/test_readme.py -->", "<!-- end of families -->"
COLUMNS = {
    "shallow": "shallow",
    "deep": "deep",
    "prefix": "prefix",
    "border, shrink": "border",
    "patch": "patch",
    "full": "full",
    "smm": "smm",
}

LIBRARIES = ("timm", "transformers", "torchvision")


def cell(name: str, form: str) -> str:
    words = refusal(name, form)
    return "yes" if words is None else f"no: {REASONS[words]}"


def table() -> str:
    """One row per library and answer."""
    groups: dict[tuple[str, ...], list[str]] = {}
    for name in [*MODELS, *EXTRA]:
        library, _, rest = name.partition(" ")
        answers = tuple(cell(name, form) for form in COLUMNS)
        key, member = (
            ((library, *answers), rest) if library in LIBRARIES else ((name, *answers), "")
        )
        groups.setdefault(key, []).append(member)
    rows = [f"| tried on | {' | '.join(COLUMNS.values())} |", "|---" * (len(COLUMNS) + 1) + "|"]
    for (library, *answers), members in groups.items():
        rows.append(
            f"| {library}{': ' if members[0] else ''}{'; '.join(members)} | {' | '.join(answers)} |"
        )
    return "\n".join(rows)


def test_the_readme_holds_the_table_of_the_registry() -> None:
    text = README.read_text(encoding="utf-8")
    assert text.split(START)[1].split(END)[0].strip() == table(), "run: python tests/test_readme.py"


if __name__ == "__main__":
    before, rest = README.read_text(encoding="utf-8").split(START)
    README.write_text(f"{before}{START}\n{table()}\n{END}{rest.split(END)[1]}", encoding="utf-8")
    sys.exit(0)
