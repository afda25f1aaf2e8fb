"""Opening a backbone for the data at hand: the bundled one for its kind, and a clip length that
suits its clips.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from torch import nn

from vpt.backbones import Backbone, load_backbone
from vpt.data import BUNDLED, Data, Source
from vpt.data.examples import Examples


def open_for(
    data: object, backbone: str | Path | Backbone | nn.Module | None = None, **options: Any
) -> Backbone:
    """A backbone for data: an open one as it is, one by name or a module opened, None the bundled
    one for this kind of data.

    data: as `vpt.data.look` lists it, or loaded, or anything else that `vpt.load_data` takes.
        options: for `vpt.load_backbone`; where no `seconds` are among them, what the model hears at
        a time follows the clips of the data. Raises `BackboneError`.
    """
    if isinstance(backbone, Backbone):
        return backbone
    clips = data.clip if isinstance(data, Source) and data.kind == "sound" else None
    source = backbone if backbone is not None else BUNDLED[_kind(data)]
    return load_backbone(source, **{"clips": clips} | options)


@contextmanager
def opened(
    backbone: str | Path | Backbone | nn.Module | None, data: object = None
) -> Iterator[Backbone]:
    """`open_for` a run. One that is opened here is released if the run fails, whatever the reason:
    a module that someone holds is theirs again.
    """
    opened_for_run = open_for(data, backbone)
    try:
        yield opened_for_run
    except BaseException:
        if opened_for_run is not backbone:
            opened_for_run.release()
        raise


def _kind(data: object) -> str:
    if isinstance(data, Source):
        return data.kind or "image"
    part = data.train if isinstance(data, Data) else data
    return "sound" if isinstance(part, Examples) and part.sample_rate is not None else "image"
