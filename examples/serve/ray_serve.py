"""A folder of prompts as a deployment of Ray Serve, on as many machines as its cluster has.

python examples/serve/ray_serve.py prompts/ --replicas 2
curl -F file=@photo.jpg -F task=birds http://127.0.0.1:8000/predict

Each replica holds one model and all tasks, as `vpt serve` does; Ray shares requests out, and begins
a replica anew that dies. The folder has to be one that every machine sees. Needed: ray[serve].
"""

from __future__ import annotations

import argparse
import asyncio
import time
from pathlib import Path
from typing import Any

from ray import serve
from starlette.requests import Request
from starlette.responses import JSONResponse

from vpt.deploy.serving.service import Service, answer
from vpt.errors import VptError


@serve.deployment(max_ongoing_requests=64)
class Prompts:
    """One replica."""

    def __init__(self, folder: str) -> None:
        self.service = Service(folder)

    async def __call__(self, request: Request) -> Any:
        """A form with a file and a task, or several."""
        form = await request.form(max_files=1)
        tasks = [str(name) for name in form.getlist("task")]
        try:
            data = await form["file"].read()
            windows = await asyncio.to_thread(self.service.prepare, data, form["file"].filename)
            said = await asyncio.wrap_future(self.service.ask(windows, tasks))
        except KeyError:
            return JSONResponse({"detail": "Send a file, and a task or several."}, 422)
        except VptError as error:
            return JSONResponse({"detail": str(error)}, 422)
        return {"answers": {task: answer(said[task]) for task in tasks}}

    def check_health(self) -> None:
        """Ray asks now and then; then the folder is followed, too."""
        if not self.service.batcher.alive:
            raise RuntimeError("It does not answer any more.")
        self.service.tasks.refresh()


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=Path)
    parser.add_argument("--port", type=int, default=8000)
    parser.add_argument("--replicas", type=int, default=2)
    parser.add_argument("--cpus", type=float, default=1.0, help="of each replica")
    options = parser.parse_args(argv)
    deployment = Prompts.options(
        num_replicas=options.replicas, ray_actor_options={"num_cpus": options.cpus}
    )
    serve.start(http_options={"port": options.port})
    serve.run(deployment.bind(str(options.folder.resolve())), route_prefix="/predict")
    while True:
        time.sleep(1)


if __name__ == "__main__":
    main()
