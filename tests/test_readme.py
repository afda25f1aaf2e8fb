"""What the pages for people say is true: code runs, commands parse, links and paths exist, and the
tables are what the registries say. `python tests/test_readme.py` writes these tables and the
scripts shown in guides anew.
"""

from __future__ import annotations

import re
import shlex
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest
import typer
from families import EXTRA, MODELS, REASONS, refusal
from worlds import offline, run, write_world

from vpt.cli import app
from vpt.prompts import PROMPTS
from vpt.readouts import READOUTS
from vpt.sites import Registry

ROOT = Path(__file__).parents[1]
PAGES = sorted(
    [
        *(ROOT / name for name in ("README.md", "tests/README.md", "vpt/README.md")),
        *(ROOT / name for name in ("vpt/CHANGES.md", "vpt/backbones/README.md")),
        *(ROOT / "examples").rglob("README.md"),
    ]
)
MARKED = re.compile(
    r"(<!-- (\w+): written by tests/test_readme.py -->\n)(.*?)(<!-- end of \2 -->)", re.S
)
FORMS = ("shallow", "deep", "prefix", "border, shrink", "patch", "full", "smm")
FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.M | re.S)
SCRIPT = re.compile(r"(<!-- script: (\S+) -->\n```python\n)(.*?)(^```$)", re.M | re.S)
each_page = pytest.mark.parametrize("page", PAGES, ids=lambda p: p.relative_to(ROOT).as_posix())


def registered(registry: Registry) -> str:
    """One row for each class, with the text that makes it, where there is one."""
    texts = {form.cls: form for form in registry.forms.values()}
    rows = ["| text | class | what it is |", "|---|---|---|"]
    for name, cls in sorted(registry.classes.items(), key=lambda item: item[1] not in texts):
        text = f"`{texts[cls].usage}`" if cls in texts else ""
        rows.append(f"| {text} | `{name}` | {registry.about[name]} |")
    return "\n".join(rows)


def families() -> str:
    """One row for each model, one column for each form of prompt."""

    def cell(name: str, form: str) -> str:
        words = refusal(name, form)
        return "yes" if words is None else f"no: {REASONS[words]}"

    head = [f"| tried on | {' | '.join(form.split(',')[0] for form in FORMS)} |"]
    rows = [
        f"| {name} | {' | '.join(cell(name, form) for form in FORMS)} |"
        for name in [*MODELS, *EXTRA]
    ]
    return "\n".join([*head, "|---" * (len(FORMS) + 1) + "|", *rows])


TABLES = {
    "families": families,
    "prompts": lambda: registered(PROMPTS),
    "readouts": lambda: registered(READOUTS),
}


def written(page: Path) -> str:
    """A page with its tables and its scripts as they should stand there."""
    text = page.read_text(encoding="utf-8")
    text = MARKED.sub(lambda m: f"{m[1]}{TABLES[m[2]]()}\n{m[4]}", text)
    return SCRIPT.sub(lambda m: m[1] + (page.parent / m[2]).read_text("utf-8") + m[4], text)


def fences(page: Path, *languages: str) -> list[str]:
    text = page.read_text(encoding="utf-8")
    return [body for language, body in FENCE.findall(text) if language in languages]


def prose(page: Path) -> str:
    return FENCE.sub("", page.read_text(encoding="utf-8"))


def commands(page: Path) -> Iterator[list[str]]:
    """The commands in a page's blocks without a language, word by word."""
    for block in fences(page, "", "console"):
        for line in block.replace("\\\n", " ").splitlines():
            for command in line.split("&&"):
                if words := shlex.split(command, comments=True):
                    yield words


def slug(heading: str) -> str:
    """As GitHub calls the anchor of a heading."""
    return re.sub(r"[^\w\- ]", "", heading.strip().lower()).replace(" ", "-")


@each_page
def test_tables_and_scripts_are_those_of_today(page: Path) -> None:
    assert page.read_text("utf-8") == written(page), "run: python tests/test_readme.py"


def test_every_short_script_is_shown_in_its_guide() -> None:
    shown = {page.parent / m[2] for page in PAGES for m in SCRIPT.finditer(page.read_text("utf-8"))}
    short = {
        path
        for path in (ROOT / "examples").glob("*/*.py")
        if path.parent.name not in ("measure", "pretrain")
        and "argparse" not in path.read_text("utf-8")
    }
    assert shown == short


@each_page
def test_python_blocks_run(page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shown = [m[3] for m in SCRIPT.finditer(page.read_text("utf-8"))]  # tests/test_examples.py
    blocks = [block for block in fences(page, "python") if block not in shown]
    if blocks:
        monkeypatch.chdir(write_world(tmp_path))
        offline(monkeypatch)
    for block in blocks:
        run(block)


@each_page
def test_links_pictures_and_paths_exist(page: Path) -> None:
    text = prose(page)
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        if target.startswith("http"):
            continue
        path, _, anchor = target.partition("#")
        found = page.parent / path if path else page
        assert found.exists(), target
        if anchor:
            read = (found / "README.md" if found.is_dir() else found).read_text("utf-8")
            anchors = [slug(title) for title in re.findall(r"^#+ (.*)$", read, re.M)]
            assert anchor in anchors, target
    for path in re.findall(r"`((?:assets|examples|tests|vpt)/[\w./-]*)`", text):
        assert (ROOT / path.replace("NAME", "your_folder")).exists(), path


@each_page
def test_commands_parse(page: Path) -> None:
    known = typer.main.get_command(app).commands
    for words in commands(page):
        if words[0] == "vpt":
            known[words[1]].make_context(words[1], words[2:])
        for script in (word for word in words if re.match(r"(examples|tests)/.*\.py$", word)):
            source = (ROOT / script).read_text("utf-8")
            options = {word for word in words if word.startswith("--")}
            assert not {o for o in options if f'"{o}"' not in source}, words
    # mentioned in a sentence, often without what they work on
    for name, *words in (code.split() for code in re.findall(r"`vpt ([a-z][^`]*)`", prose(page))):
        options = {"--help"}.union(*(parameter.opts for parameter in known[name].params))
        assert not {word for word in words if word.startswith("--")} - options, (name, words)


def test_the_readme_is_a_page() -> None:
    assert len((ROOT / "README.md").read_text("utf-8").splitlines()) <= 150


@each_page
def test_lines_fit(page: Path) -> None:
    long = [line for line in page.read_text("utf-8").splitlines() if len(line) > 100]
    assert not long


def test_this_version_has_an_entry() -> None:
    version = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]["version"]
    assert re.search(
        rf"^## {re.escape(version)}\b", (ROOT / "vpt/CHANGES.md").read_text("utf-8"), re.M
    )


if __name__ == "__main__":
    for page in PAGES:
        page.write_text(written(page), encoding="utf-8")
