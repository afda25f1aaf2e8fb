"""The model card of a run: what it is for, how good it is, what it cost, where it ends; from its
numbers, without a path, a picture or a name of a file.
"""

from __future__ import annotations

import json
import re
from functools import cache
from pathlib import Path, PureWindowsPath
from typing import Any

from vpt.backbones.shipped import bundled
from vpt.deploy.telling import of_adapted, of_header, of_reprogrammed
from vpt.errors import PromptFileError
from vpt.errors.places import is_file
from vpt.errors.text import printable
from vpt.files.headers import Header
from vpt.files.hub import SCHEME, repository
from vpt.files.naming import PROMPT
from vpt.sites import Config
from vpt.training.folders import METRICS

TEMPLATE = "card.md"
SIGNS = re.compile(r"([\\`*_\[\]<>|#])")  # that Markdown obeys
MOST = 40  # classes that are listed
KINDS = {  # what the input is called here, and the task on the hub
    "image": ("pictures", "image-classification"),
    "video": ("videos", "video-classification"),
    "sound": ("sounds", "audio-classification"),
}
HUB = "https://huggingface.co"


def card_of(place: Path, header: Header, size: int, repo: str, licence: str | None = None) -> str:
    """The card of a prompt file as Markdown, with a header in YAML that the hub reads.

    place: of the file; the numbers of its run are beside it, or only what its header says is known.
    header: of the file.
    size: of the file, in bytes.
    repo: where it goes, as "user/name".
    licence: of the prompt, as the hub calls it ("apache-2.0").

    Raises `PromptFileError` for numbers that cannot be read.
    """
    numbers = _numbers(place.parent) if place.name == PROMPT else {}
    if numbers.get("classes", header["classes"]) != header["classes"]:
        raise PromptFileError(
            f"The numbers in {place.parent} are of other classes than its {PROMPT}, which came from"
            " elsewhere. Push the prompt from a folder of its own, or make the run anew."
        )
    try:
        if "points" in numbers:
            page = of_reprogrammed(numbers)
        elif {"parts", "method", "data", "verdict"} <= numbers.keys():
            page = of_adapted(numbers)
        else:
            page = of_header(header)
    except (LookupError, TypeError, ValueError, AttributeError, StopIteration) as error:
        raise PromptFileError(
            f"The numbers in {place.parent} cannot be read ({error!r}): they are of another vpt."
            f" Make the run anew, or push its {PROMPT} from a folder of its own."
        ) from error
    page |= _of_model(header)
    page |= {"repo": repo, "place": f"{SCHEME}{repo}", "size": f"{size:,} bytes"}
    page |= {"licence": licence or "not stated: ask its owner"}
    return str(_template().render(page, header=_yaml(page, licence)))


@cache
def _template() -> Any:
    from jinja2 import Environment, FileSystemLoader, StrictUndefined, select_autoescape
    from markupsafe import Markup

    def escaped(value: object) -> object:
        return value if isinstance(value, Markup) else _plain(str(value))

    return Environment(
        autoescape=select_autoescape(),  # of HTML; Markdown has its own signs
        finalize=escaped,
        undefined=StrictUndefined,
        loader=FileSystemLoader(Path(__file__).parent),
        trim_blocks=True,
        lstrip_blocks=True,
    ).get_template(TEMPLATE)


def _plain(text: str) -> str:
    """Text as Markdown shows it, on one line, whatever stands in it."""
    return SIGNS.sub(r"\\\1", printable(text, lines=False))


def _numbers(folder: Path) -> Config:
    if not is_file(folder / METRICS):
        return {}
    try:
        found = json.loads((folder / METRICS).read_text(encoding="utf-8"))
    except ValueError as error:
        raise PromptFileError(f"The numbers in {folder} cannot be read: {error}.") from error
    return found if isinstance(found, dict) else {}


def _of_model(header: Header) -> Config:
    """What a prompt is for and on which model, without the path that this was opened from."""
    identity, classes = header["backbone"]["identity"], header["classes"]
    inputs = header["inputs"]
    is_video = inputs["kind"] == "image" and inputs.get("frames")  # a spectrogram has them, too
    what, task = KINDS["video" if is_video else inputs["kind"]]
    kind, source = identity["kind"].split(",")[0], str(identity["source"])
    named = kind in ("bundled", "timm", "timm-hub", "hub")
    base = _base(kind, source)
    licence, look_up = "not known here: look it up where the model comes from", ""
    if kind == "bundled":
        licence = bundled().get(source, {}).get("licence", licence)
    elif base is not None:
        licence, look_up = "not known here: look it up at", f"{HUB}/{base}"
    crops = header["prompt"]["name"] == "HardQueries"
    return {
        "what": what,
        "task": task,
        "classes": _listed(classes) if classes else "they have no names",
        "count": len(classes) if classes else "its",
        "model": source if named else without_path(source),
        "closed": not named,
        "base": base,
        "model_licence": licence,
        "look_up": look_up,
        "crops": crops,
    }


def _base(kind: str, source: str) -> str | None:
    """The model's own repository on the hub, if its name says so."""
    name = source.removeprefix("hf-hub:").removeprefix("hf_hub:")
    try:
        return repository(name) if kind in ("hub", "timm-hub") else None
    except PromptFileError:
        return None


def without_path(source: str) -> str:
    """The last name of what may be a path, of any system."""
    return PureWindowsPath(source).name or "a model without a name"


def _listed(classes: list[str]) -> str:
    more = f", … ({len(classes) - MOST} more)" if len(classes) > MOST else ""
    return ", ".join(classes[:MOST]) + more


def _yaml(page: Config, licence: str | None) -> str:
    """What the hub lists a model by."""
    from huggingface_hub import EvalResult, ModelCardData

    results = [
        EvalResult(
            task_type=page["task"],
            dataset_type="private",
            dataset_name=page["called"],
            dataset_split="test",
            metric_type=name,
            metric_value=round(value, 4),
        )
        for name, value in page["metrics"].items()
    ]
    data = ModelCardData(
        library_name="vpt",
        license=licence,
        base_model=page["base"],
        pipeline_tag=page["task"],
        tags=["vpt", "prompt-tuning"],
        model_name=page["repo"].split("/")[1] if results else None,
        eval_results=results or None,
    )
    return str(data.to_yaml())
