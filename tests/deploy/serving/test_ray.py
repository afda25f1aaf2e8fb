"""The example's deployment on a local Ray, where that is installed: answers, and a replica that is
killed.
"""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import httpx
import pytest
from served import folder_of_tasks, picture, said_alone

SCRIPT = Path(__file__).parents[3] / "examples" / "serve" / "ray_serve.py"


def asked(address: str, task: str) -> httpx.Response | None:
    """None where there was no answer."""
    try:
        files = {"file": ("it.png", picture())}
        return httpx.post(address, files=files, data={"task": task}, timeout=30)
    except httpx.TransportError:
        return None


def until_answered(address: str, process: subprocess.Popen[bytes]) -> httpx.Response:
    ends = time.monotonic() + 180
    while time.monotonic() < ends:
        found = asked(address, "task0")
        if found is not None and found.status_code == 200:
            return found
        assert process.poll() is None, "the deployment ended"
        time.sleep(0.5)
    raise AssertionError("It never answered.")


@pytest.mark.long
def test_replicas_answer_and_one_that_dies_is_begun_anew(tmp_path: Path) -> None:
    pytest.importorskip("ray")
    backbone = folder_of_tasks(tmp_path / "tasks", 2)
    wanted = said_alone(tmp_path / "tasks", backbone, picture())
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    address = f"http://127.0.0.1:{port}/predict"
    options = ["--replicas", "2", "--cpus", "0.5", "--port", str(port)]
    process = subprocess.Popen(
        [sys.executable, str(SCRIPT), str(tmp_path / "tasks"), *options],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        env=os.environ | {"RAY_USAGE_STATS_ENABLED": "0"},
        start_new_session=True,
    )
    try:
        said = until_answered(address, process).json()["answers"]["task0"]
        assert dict(said["top"]) == pytest.approx(wanted["task0"], abs=1e-5)
        assert asked(address, "gone").status_code == 422
        listed = subprocess.run(["ps", "-eo", "pid,args"], capture_output=True, text=True)
        replicas = [
            int(line.split()[0])
            for line in listed.stdout.splitlines()
            if "ray::ServeReplica" in line and "Prompts" in line
        ]
        assert len(replicas) >= 2
        os.kill(replicas[0], signal.SIGKILL)
        for _ in range(20):
            found = asked(address, "task1")
            if found is not None and found.status_code == 200:
                said = found.json()["answers"]["task1"]
                assert dict(said["top"]) == pytest.approx(wanted["task1"], abs=1e-5)
        until_answered(address, process)
    finally:
        os.killpg(process.pid, signal.SIGTERM)
        process.wait(60)
