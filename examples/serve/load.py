"""Put a server under load: throughput, how long requests take, memory, and whether all was right.

python examples/serve/load.py
python examples/serve/load.py --soak 10000 --tasks 8
python examples/serve/load.py --model clip-vit-base-patch16/ --prompt queries:4@6,9,11

For 1, 10 and 100 tasks mixed: one model for all of them, as `vpt serve` has it, beside a copy of
the model for each task. Clients ask again as soon as they are answered; every answer is compared
with what `vpt.predict` says. --soak sends so many requests, some of them bad (pictures that are
none or that are bombs, clients that go away, uploads that are too large), and looks whether all
others were right and whether memory stays flat.
"""

from __future__ import annotations

import argparse
import asyncio
import io
import json
import os
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from rich.console import Console
from rich.table import Table

import vpt
from vpt.readouts.named import Named

PICTURES = 8
LIMIT = 200_000  # bytes of a request
SAME = 2e-3  # of a probability
START = """
import sys
from pathlib import Path
from fastapi import FastAPI
from vpt.deploy.serving.app import application
from vpt.deploy.serving.asking import Rules
from vpt.deploy.serving.service import Service
import uvicorn
folder, port, copies = Path(sys.argv[1]), int(sys.argv[2]), sys.argv[3] == "copies"
rules = Rules(most={limit}, seconds=120)
if copies:
    app = FastAPI()
    for path in sorted(folder.glob("*.vpt")):
        own = folder / "one" / path.stem
        own.mkdir(parents=True, exist_ok=True)
        (own / path.name).symlink_to(path)
        app.mount("/" + path.stem, application(Service(own, {model!r}), rules))
else:
    app = application(Service(folder, {model!r}, keep=128), rules)
uvicorn.run(app, port=port, log_level="error")
"""


def tasks_in(folder: Path, backbone: vpt.Backbone, form: str, count: int) -> None:
    """`count` prompts that were drawn, not learned."""
    for number in range(count):
        draw = torch.Generator().manual_seed(number)
        prompt = vpt.prompts.parse(form, backbone)
        of = "cls+queries" if prompt.reads else "cls"
        names = [f"class {c}" for c in range(10)]
        readout = vpt.Linear(Named(of).width(backbone, prompt.reads), names, of)
        with torch.no_grad():
            for parameter in prompt.parameters():
                parameter.normal_(generator=draw)
            readout.weight.normal_(0, 0.3, generator=draw)
        with vpt.PromptedModel(backbone, prompt, readout) as model:
            vpt.save(folder / f"task{number}.vpt", model)


def pictures(size: int) -> list[bytes]:
    """JPEGs of noise."""
    found = []
    for seed in range(PICTURES):
        rough = np.random.default_rng(seed).integers(0, 256, (8, 8, 3), np.uint8)
        file = io.BytesIO()
        Image.fromarray(rough).resize((size, size), Image.Resampling.BICUBIC).save(file, "jpeg")
        found.append(file.getvalue())
    return found


def wanted_of(folder: Path, backbone: vpt.Backbone, data: list[bytes]) -> dict[str, list[dict]]:
    """Probabilities by class of every picture, by task."""
    opened = [Image.open(io.BytesIO(one)) for one in data]
    found = {}
    for path in sorted(folder.glob("*.vpt")):
        with vpt.load(path, backbone) as model:
            found[path.stem] = [one.probabilities for one in vpt.predict(model, opened)]
    return found


def request(data: bytes, task: str, place: str = "/predict") -> bytes:
    """A request as it goes over the wire."""
    body = b'--x\r\nContent-Disposition: form-data; name="task"\r\n\r\n' + task.encode()
    body += b'\r\n--x\r\nContent-Disposition: form-data; name="file"; filename="it.jpg"\r\n\r\n'
    body += data + b"\r\n--x--\r\n"
    head = f"POST {place} HTTP/1.1\r\nHost: x\r\nContent-Type: multipart/form-data; boundary=x\r\n"
    return head.encode() + f"Content-Length: {len(body)}\r\n\r\n".encode() + body


@contextmanager
def server(folder: Path, kind: str, model: str | None) -> Iterator[tuple[int, int]]:
    """(its port, the number of its process)."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    code = START.format(model=model, limit=LIMIT)
    process = subprocess.Popen([sys.executable, "-c", code, str(folder), str(port), kind])
    try:
        for _ in range(3000):
            try:
                socket.create_connection(("127.0.0.1", port)).close()
                break
            except OSError:
                if process.poll() is not None:
                    raise SystemExit("The server did not start.") from None
                time.sleep(0.1)
        yield port, process.pid
    finally:
        process.terminate()
        process.wait()


def memory(number: int) -> float:
    """Megabytes that a process holds; NaN where the system does not tell."""
    try:
        pages = int(Path(f"/proc/{number}/statm").read_text().split()[1])
    except OSError:
        return float("nan")
    return pages * os.sysconf("SC_PAGE_SIZE") / 1e6


async def answer(reader: asyncio.StreamReader) -> tuple[int, dict]:
    """(status, body) of the next answer."""
    head = (await reader.readuntil(b"\r\n\r\n")).decode().lower()
    length = int(head.split("content-length:")[1].split("\r\n")[0])
    return int(head.split()[1]), json.loads(await reader.readexactly(length))


class Load:
    """Clients that ask at once.

    port: of the server. data: pictures. wanted: what `vpt.predict` says. copies: whether each task
        has a place of its own.
    """

    def __init__(self, port: int, data: list[bytes], wanted: dict, copies: bool) -> None:
        self.port, self.data, self.wanted, self.copies = port, data, wanted, copies
        self.names = sorted(wanted)
        self.seconds: list[float] = []
        self.wrong = self.lost = self.bad = 0

    def run(self, count: int, clients: int, faults: bool = False) -> float:
        """Seconds that `count` requests of so many clients took."""
        self.seconds, started = [], time.perf_counter()
        asyncio.run(self._all(count, clients, faults))
        return time.perf_counter() - started

    async def _all(self, count: int, clients: int, faults: bool) -> None:
        numbers = iter(range(count))
        await asyncio.gather(*(self._client(numbers, faults) for _ in range(clients)))

    async def _client(self, numbers: Iterator[int], faults: bool) -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        for number in numbers:
            if faults and number % 10 == 9:
                await self._misbehave(number)
            task, which = self.names[number % len(self.names)], number % len(self.data)
            place = f"/{task}/predict" if self.copies else "/predict"
            started = time.perf_counter()
            try:
                writer.write(request(self.data[which], task, place))
                status, said = await answer(reader)
            except (OSError, asyncio.IncompleteReadError):
                self.lost += 1
                reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
                continue
            self.seconds.append(time.perf_counter() - started)
            own = self.wanted[task][which]
            top = said["answers"][task]["top"] if status == 200 else []
            right = top and all(abs(own[name] - share) < SAME for name, share in top)
            self.wrong += not right
        writer.close()

    async def _misbehave(self, number: int) -> None:
        """One of: no picture, a bomb, too large, gone in the middle."""
        kind = number // 10 % 4
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        sent = request((b"no picture", BOMB, bytes(2 * LIMIT), self.data[0])[kind], self.names[0])
        writer.write(sent if kind < 3 else sent[: len(sent) // 2])
        if kind < 3:
            status, _ = await answer(reader)
            self.bad += status not in (413, 422)
        writer.close()


def bomb() -> bytes:
    """A small file that says it is a picture of 900 million pixels."""
    file = io.BytesIO()
    Image.new("1", (30_000, 30_000)).save(file, "png")
    return file.getvalue()[: LIMIT // 2]


BOMB = bomb()


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", default="vpt:vit-p8-64")
    parser.add_argument("--prompt", default="queries:4@3,5,7")
    parser.add_argument("--tasks", type=int, nargs="+", default=[1, 10, 100])
    parser.add_argument("--requests", type=int, default=1000)
    parser.add_argument("--clients", type=int, default=64)
    parser.add_argument("--soak", type=int, help="so many requests, some bad, on one model")
    options = parser.parse_args(argv)
    backbone = vpt.load_backbone(options.model)
    data = pictures(max(backbone.inputs.size))
    titles = ("tasks", "served by", "requests/s", "p50 ms", "p99 ms", "p99/p50", "wrong", "MB")
    table = Table(*titles, title=f"{options.model}, {options.prompt}, {options.clients} clients")
    with tempfile.TemporaryDirectory() as place:
        for count in options.tasks:
            folder = Path(place) / str(count)
            folder.mkdir()
            tasks_in(folder, backbone, options.prompt, count)
            wanted = wanted_of(folder, backbone, data)
            for kind in ("one model",) if options.soak else ("one model", "copies"):
                with server(folder, kind, options.model) as (port, process):
                    load = Load(port, data, wanted, kind == "copies")
                    load.run(max(2 * options.clients, 2 * count), options.clients)  # to warm up
                    before = memory(process)
                    took = load.run(
                        options.soak or options.requests, options.clients, bool(options.soak)
                    )
                    after = memory(process)
                middle, late = np.percentile([1000 * s for s in load.seconds], (50, 99))
                rate = len(load.seconds) / took
                pace = f"{rate:.0f}" if rate >= 10 else f"{rate:.1f}"
                shown = f"{before:.0f} → {after:.0f}" if options.soak else f"{after:.0f}"
                numbers = (pace, f"{middle:.0f}", f"{late:.0f}", f"{late / middle:.1f}")
                table.add_row(str(count), kind, *numbers, str(load.wrong + load.lost), shown)
                if options.soak:
                    print(f"{load.lost} lost, {load.wrong} wrong, {load.bad} bad ones not refused")
    Console().print(table)


if __name__ == "__main__":
    main()
