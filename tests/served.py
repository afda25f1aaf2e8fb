"""A folder of small tasks, and a server in a process of its own, for the tests of serving."""

from __future__ import annotations

import io
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import numpy as np
import torch
from PIL import Image

import vpt
from vpt.readouts.named import Named

CLASSES = ["red", "green", "blue"]
FORMS = ["queries:2@4,7", "prefix:2", "none", "border:2"]


def folder_of_tasks(folder: Path, count: int, forms: list[str] | None = None) -> vpt.Backbone:
    """`count` prompt files on the bundled model, task0 and so on, each of which says another thing;
    the model.
    """
    folder.mkdir(parents=True, exist_ok=True)
    backbone = vpt.load_backbone("vpt:vit-p8-64")
    forms = forms or FORMS
    for number in range(count):
        write_task(folder / f"task{number}.vpt", backbone, forms[number % len(forms)], number)
    return backbone


def write_task(path: Path, backbone: vpt.Backbone, form: str, seed: int) -> None:
    """A prompt file that was never fitted."""
    draw = torch.Generator().manual_seed(seed)
    prompt = vpt.Prompt() if form == "none" else vpt.prompts.parse(form, backbone)
    of = "cls+queries" if prompt.reads else "cls"
    readout = vpt.Linear(Named(of).width(backbone, prompt.reads), CLASSES, of)
    with torch.no_grad():
        for parameter in prompt.parameters():
            parameter.normal_(generator=draw)
        readout.weight.normal_(generator=draw)
    with vpt.PromptedModel(backbone, prompt, readout) as model:
        vpt.save(path, model)


def picture(seed: int = 0, size: int = 70) -> bytes:
    """A PNG of noise."""
    pixels = np.random.default_rng(seed).integers(0, 256, (size, size, 3), np.uint8)
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "png")
    return file.getvalue()


def said_alone(folder: Path, backbone: vpt.Backbone, data: bytes) -> dict[str, dict[str, float]]:
    """What `vpt.predict` says of a picture, by task."""
    found = {}
    for path in sorted(folder.glob("*.vpt")):
        with vpt.load(path, backbone) as model:
            found[path.stem] = vpt.predict(model, Image.open(io.BytesIO(data)))[0].probabilities
    return found


@contextmanager
def served(folder: Path, *options: str, token: str = "") -> Iterator[tuple[str, int]]:
    """(The address of a server of this folder, the number of its process); stopped at the end."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    start = "from vpt.cli import main; main()"
    command = [sys.executable, "-c", start, "serve", str(folder), "--port", str(port)]
    process = subprocess.Popen(
        [*command, *options],
        env=os.environ | {"VPT_TOKEN": token, "OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )
    address = f"http://127.0.0.1:{port}"
    try:
        _wait_for(address, process)
        yield address, process.pid
        process.terminate()
        assert process.wait(40) in (0, -15)
    finally:
        process.kill()
        process.communicate()


def _wait_for(address: str, process: subprocess.Popen[bytes]) -> None:
    for _ in range(600):
        try:
            httpx.get(f"{address}/health", timeout=5).raise_for_status()
            return
        except httpx.TransportError:
            if process.poll() is not None:
                raise AssertionError(process.communicate()[0].decode()) from None
            time.sleep(0.1)
    raise AssertionError("It never answered.")
