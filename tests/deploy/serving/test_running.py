"""A server in a process of its own, treated badly."""

from __future__ import annotations

import os
import signal
import socket
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest
from served import folder_of_tasks, picture, said_alone, served

import vpt


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("served") / "tasks"
    folder_of_tasks(place, 4)
    return place


@pytest.fixture(scope="module")
def address(folder: Path) -> Iterator[str]:
    with served(folder, "--timeout", "3") as (address, _):
        yield address


def ask(address: str, task: str, seed: int = 0) -> httpx.Response:
    files = {"file": ("it.png", picture(seed))}
    return httpx.post(f"{address}/predict", files=files, data={"task": task}, timeout=30)


def test_many_clients_each_get_their_own_answer(address: str, folder: Path) -> None:
    backbone = vpt.load_backbone("vpt:vit-p8-64")
    wanted = {seed: said_alone(folder, backbone, picture(seed)) for seed in range(3)}

    def one(number: int) -> None:
        seed, task = number % 3, f"task{number % 4}"
        said = ask(address, task, seed).json()["answers"][task]
        assert dict(said["top"]) == pytest.approx(wanted[seed][task], abs=1e-5)

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(one, range(48)))


def test_a_body_without_end_is_cut_off_unread(address: str) -> None:
    sent = 0

    def endless() -> Iterator[bytes]:
        nonlocal sent
        yield b'--x\r\nContent-Disposition: form-data; name="file"; filename="it.png"\r\n\r\n'
        while True:
            sent += 1 << 20
            yield bytes(1 << 20)

    headers = {"Content-Type": "multipart/form-data; boundary=x"}
    try:
        answer = httpx.post(f"{address}/predict", content=endless(), headers=headers, timeout=20)
        assert answer.status_code == 413
    except (httpx.WriteError, httpx.ReadError):  # it hung up while this was still talking
        pass
    assert sent < 80e6
    assert ask(address, "task0").status_code == 200


def test_a_client_that_dawdles_is_hung_up_on_and_holds_up_nobody(address: str) -> None:
    host, port = address.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port)), timeout=20) as slow:
        slow.sendall(
            b"POST /predict HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n"
            b"Content-Type: multipart/form-data; boundary=x\r\n\r\n--x"
        )
        started = time.monotonic()
        assert ask(address, "task0").status_code == 200
        assert time.monotonic() - started < 2.5
        said = slow.recv(1000)
        assert b" 408 " in said
        assert time.monotonic() - started < 10


def test_what_it_has_taken_on_is_answered_when_it_is_told_to_stop(folder: Path) -> None:
    found: list[int] = []
    with served(folder) as (address, number):
        threads = [
            threading.Thread(target=lambda: found.append(ask(address, "task1").status_code))
            for _ in range(12)
        ]
        for thread in threads:
            thread.start()
        while not httpx.get(f"{address}/metrics").text.count('route="/predict",status="200"'):
            pass
        os.kill(number, signal.SIGTERM)
        for thread in threads:
            thread.join()
    assert found == [200] * 12


@pytest.mark.skipif(not Path("/proc").is_dir(), reason="finds processes by /proc")
def test_a_process_that_is_killed_is_begun_anew(folder: Path) -> None:
    with served(folder, "--workers", "2") as (address, number):
        children = [int(child) for child in _children(number)]
        workers = [child for child in children if b"spawn_main" in _command(child)]
        assert len(workers) == 2
        os.kill(workers[0], signal.SIGKILL)
        lost = 0
        ends = time.monotonic() + 60
        while time.monotonic() < ends:
            try:
                assert ask(address, "task0").status_code == 200
            except httpx.TransportError:
                lost += 1  # it was on the one that died
            now = [c for c in _children(number) if b"spawn_main" in _command(c)]
            if workers[0] not in now and len(now) == 2:
                break
        assert lost <= 2
        assert len(now) == 2
        counts = httpx.get(f"{address}/metrics", timeout=30).text
        assert 'route="/predict",status="200"' in counts


def _children(number: int) -> list[int]:
    found = Path(f"/proc/{number}/task/{number}/children").read_text().split()
    return [int(child) for child in found]


def _command(number: int) -> bytes:
    try:
        return Path(f"/proc/{number}/cmdline").read_bytes()
    except OSError:
        return b""
