"""What is asked over HTTP and what is answered, wrong questions most of all."""

from __future__ import annotations

import io
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from fastapi.testclient import TestClient
from PIL import Image
from served import CLASSES, folder_of_tasks, picture, said_alone, write_task

import vpt
from vpt.deploy.serving.app import application
from vpt.deploy.serving.asking import Rules
from vpt.deploy.serving.service import Service

TOKEN = {"Authorization": "Bearer open sesame"}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("served")
    folder_of_tasks(place / "tasks", 3)
    (place / "files" / "deeper").mkdir(parents=True)
    (place / "files" / "deeper" / "it.png").write_bytes(picture(5))
    (place / "files" / "bad.png").write_bytes(b"no picture")
    (place / "secret.png").write_bytes(picture(6))
    (place / "files" / "link.png").symlink_to(place / "secret.png")
    return place


@pytest.fixture
def client(folder: Path) -> Iterator[TestClient]:
    rules = Rules(files=folder / "files", token="open sesame", most=200_000)
    with TestClient(application(Service(folder / "tasks"), rules)) as made:
        yield made


def file(data: bytes | None = None) -> dict[str, tuple[str, bytes]]:
    return {"file": ("it.png", picture() if data is None else data)}


def test_a_picture_is_classified_by_one_task_and_by_several(
    client: TestClient, folder: Path
) -> None:
    alone = said_alone(folder / "tasks", vpt.load_backbone("vpt:vit-p8-64"), picture())
    for tasks in (["task1"], ["task2", "task0", "task1", "task0"]):
        answer = client.post("/predict", files=file(), data={"task": tasks, "top_k": 2})
        assert answer.status_code == 200
        found = answer.json()
        assert found["file"] == "it.png"
        assert list(found["answers"]) == list(dict.fromkeys(tasks))
        for task, said in found["answers"].items():
            assert len(said["top"]) == 2
            for name, share in said["top"]:
                assert share == pytest.approx(alone[task][name], abs=1e-5)
            assert [said["class"], said["probability"]] == said["top"][0]


def test_a_file_of_the_allowed_folder_may_be_named(client: TestClient) -> None:
    data = {"path": "deeper/it.png", "task": "task0"}
    named = client.post("/predict", data=data).json()
    sent = client.post("/predict", files=file(picture(5)), data={"task": "task0"}).json()
    assert named["answers"] == sent["answers"]


@pytest.mark.parametrize(
    ("path", "status"),
    [
        ("../secret.png", 403),
        ("deeper/../../secret.png", 403),
        ("/etc/passwd", 403),
        ("link.png", 403),
        ("nothing.png", 404),
        ("deeper", 404),
        ("", 422),
        ("bad.png", 422),
        ("a\0b", 404),
    ],
)
def test_no_other_file_is_read(client: TestClient, folder: Path, path: str, status: int) -> None:
    answer = client.post("/predict", data={"path": path, "task": "task0"})
    assert answer.status_code == status, answer.text
    assert str(folder) not in answer.text


def test_without_a_folder_no_file_is_named(folder: Path) -> None:
    with TestClient(application(Service(folder / "tasks"))) as client:
        answer = client.post("/predict", data={"path": "it.png", "task": "task0"})
        assert answer.status_code == 403
        assert "--files" in answer.text
        answer = client.put("/tasks/task0", content=b"", headers=TOKEN)
        assert answer.status_code == 403


@pytest.mark.parametrize(
    ("data", "files", "status", "reason"),
    [
        ({}, file(), 422, "Say which task"),
        ({"task": "gone"}, file(), 404, "no task 'gone'"),
        ({"task": "task0"}, None, 422, "Send one of"),
        ({"task": "task0", "path": "deeper/it.png"}, file(), 422, "Send one of"),
        ({"task": "task0"}, file(b"text"), 422, "not an image"),
        ({"task": "task0"}, file(b""), 422, "empty"),
        ({"task": "task0", "top_k": 0}, file(), 422, "greater than or equal to 1"),
        ({"task": "task0"}, file(bytes(300_000)), 413, "larger than the 200,000 bytes"),
    ],
)
def test_wrong_questions_are_answered_with_a_reason(
    client: TestClient, data: dict, files: dict | None, status: int, reason: str
) -> None:
    answer = client.post("/predict", data=data, files=files)
    assert answer.status_code == status
    assert reason in answer.text


def test_a_poisoned_picture_is_refused_and_others_go_on(client: TestClient) -> None:
    bomb = io.BytesIO()
    Image.new("1", (40_000, 40_000)).save(bomb, "png")  # 1.6 billion pixels
    answer = client.post("/predict", files=file(bomb.getvalue()[:190_000]), data={"task": "task0"})
    assert answer.status_code == 422
    assert "pixels" in answer.text
    assert client.post("/predict", files=file(), data={"task": "task0"}).status_code == 200


def test_tasks_change_only_with_the_token(client: TestClient, tmp_path: Path) -> None:
    write_task(tmp_path / "new.vpt", vpt.load_backbone("vpt:vit-p8-64"), "none", 7)
    data = (tmp_path / "new.vpt").read_bytes()
    for headers in ({}, {"Authorization": "Bearer wrong"}, {"Authorization": "Bearer öffne"}):
        encoded = {key: value.encode() for key, value in headers.items()}
        assert client.put("/tasks/new", content=data, headers=encoded).status_code == 401
        assert client.delete("/tasks/task0", headers=encoded).status_code == 401
    made = client.put("/tasks/new", content=data, headers=TOKEN)
    assert (made.status_code, made.json()) == (201, {"task": "new", "new": True})
    assert client.put("/tasks/new", content=data, headers=TOKEN).status_code == 200
    assert client.get("/tasks").json()["tasks"]["new"]["classes"] == CLASSES
    assert client.post("/predict", files=file(), data={"task": "new"}).status_code == 200
    assert client.delete("/tasks/new", headers=TOKEN).status_code == 200
    assert client.post("/predict", files=file(), data={"task": "new"}).status_code == 404
    assert client.delete("/tasks/new", headers=TOKEN).status_code == 404
    assert client.put("/tasks/new", content=b"no", headers=TOKEN).status_code == 422
    assert client.put("/tasks/..", content=data, headers=TOKEN).status_code in (404, 405)
    assert client.put("/tasks/%2e%2e", content=data, headers=TOKEN).status_code in (404, 405, 422)
    assert client.put("/tasks/.x", content=data, headers=TOKEN).status_code == 422


def test_an_answer_that_is_no_number_is_none(folder: Path, tmp_path: Path) -> None:
    backbone = folder_of_tasks(tmp_path / "t", 1)
    readout = vpt.Linear(backbone.out_features, ["a", "b"])
    with torch.no_grad():
        readout.weight.fill_(3e38)  # finite, as a file must be
    with vpt.PromptedModel(backbone, None, readout) as model:
        vpt.save(tmp_path / "t" / "bad.vpt", model)
    with TestClient(application(Service(tmp_path / "t"))) as client:
        answer = client.post("/predict", files=file(), data={"task": "bad"})
        assert answer.status_code == 422
        assert "NaN" in answer.text
        assert client.post("/predict", files=file(), data={"task": "task0"}).status_code == 200


def test_too_many_are_told_to_come_again(folder: Path) -> None:
    service = Service(folder / "tasks", waiting=1)
    with TestClient(application(service, Rules(seconds=0.5))) as client:
        windows = service.prepare(picture())
        with service.backbone.guard:  # the model is busy
            service.ask(windows, ["task0"])
            while len(service.batcher):
                pass
            late = client.post("/predict", files=file(), data={"task": "task0"})
            full = client.post("/predict", files=file(), data={"task": "task0"})
        assert (late.status_code, full.status_code) == (503, 503)
        assert "not answered in 0.5 seconds" in late.text
        assert full.headers["retry-after"] == "1"
        assert client.post("/predict", files=file(), data={"task": "task0"}).status_code == 200


def test_health_counts_and_pages(client: TestClient) -> None:
    client.post("/predict", files=file(), data={"task": "task0"})
    client.post("/predict", files=file(b"no"), data={"task": "task0"})
    client.get("/nothing/of/the/kind")
    health = client.get("/health").json()
    assert (health["status"], health["tasks"], health["takes"]) == ("ok", 3, "image")
    counts = client.get("/metrics").text
    assert 'vpt_requests_total{route="/predict",status="200"} 1.0' in counts
    assert 'vpt_requests_total{route="/predict",status="422"} 1.0' in counts
    assert 'vpt_requests_total{route="none",status="404"} 1.0' in counts
    assert 'vpt_answers_total{task="task0"} 1.0' in counts
    assert "vpt_batch_inputs_count 1.0" in counts
    assert "A picture or a sound" in client.get("/").text
    assert "/predict" in client.get("/openapi.json").json()["paths"]
    assert client.get("/docs").status_code == 200


def test_it_stops_when_the_application_does(folder: Path) -> None:
    service = Service(folder / "tasks")
    with TestClient(application(service)) as client:
        assert client.get("/health").status_code == 200
    assert not service.batcher.alive
    assert service.backbone.attachment is None
