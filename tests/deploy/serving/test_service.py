"""A folder of prompts on one model: answers as `vpt.predict` gives them, and a folder that changes
while it serves.
"""

from __future__ import annotations

import io
import os
import shutil
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from PIL import Image
from served import folder_of_tasks, picture, said_alone, write_task

import vpt
from vpt.deploy.serving.service import Service, answer
from vpt.deploy.serving.tasks import OfRunError, UnknownTaskError
from vpt.errors import DataError, PromptError, PromptFileError


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder_of_tasks(tmp_path / "tasks", 4)
    return tmp_path / "tasks"


@pytest.fixture
def service(folder: Path) -> Iterator[Service]:
    made = Service(folder)
    yield made
    made.close()


def test_answers_are_those_of_predict_for_one_task_and_for_all(
    service: Service, folder: Path
) -> None:
    data = picture()
    alone = said_alone(folder, vpt.load_backbone("vpt:vit-p8-64"), data)
    windows = service.prepare(data, "noise.png")
    together = service.ask(windows, list(alone)).result(30)
    for task, wanted in alone.items():
        one = service.ask(windows, [task]).result(30)
        for scores in (one[task], together[task]):
            said = answer(scores)
            assert dict(said["top"]) == pytest.approx(wanted, abs=1e-5)
            assert said["class"] == next(iter(wanted))


def test_many_at_once_are_answered_each_its_own(service: Service, folder: Path) -> None:
    names, found = list(service.tasks.facts), {}
    pictures = [service.prepare(picture(seed), "noise.png") for seed in range(6)]
    wanted = {
        (i, name): service.ask(windows, [name]).result(30)[name][0]
        for i, windows in enumerate(pictures)
        for name in names
    }

    def ask(number: int) -> None:
        i, name = number % len(pictures), names[number % len(names)]
        found[number] = service.ask(pictures[i], [name]).result(60)[name][0]

    threads = [threading.Thread(target=ask, args=(number,)) for number in range(24)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 24
    for number, scores in found.items():
        own = wanted[number % len(pictures), names[number % len(names)]]
        torch.testing.assert_close(scores, own, atol=1e-4, rtol=1e-4)
    assert max(service.batches) > 1


def test_the_folder_is_followed(service: Service, folder: Path) -> None:
    windows = service.prepare(picture(), "noise.png")
    before, _ = service.ask(windows, ["task0"]).result(30)["task0"]
    write_task(folder / "more.vpt", vpt.load_backbone("vpt:vit-p8-64"), "none", 9)
    write_task(folder / "task0.vpt", vpt.load_backbone("vpt:vit-p8-64"), "none", 10)
    (folder / "task1.vpt").unlink()
    (folder / "task2.vpt").write_bytes((folder / "task2.vpt").read_bytes()[:-20])
    service.tasks.refresh()
    assert set(service.tasks.facts) == {"task0", "task3", "more"}
    assert "task2" in service.tasks.broken
    after, _ = service.ask(windows, ["task0"]).result(30)["task0"]
    assert not torch.allclose(before, after)
    with pytest.raises(PromptError, match="no task 'task1'"):
        service.ask(windows, ["task1"])
    service.tasks.refresh()  # nothing new: what was broken still is
    assert "task2" in service.tasks.broken


def test_tasks_are_added_swapped_and_taken_out(
    service: Service, folder: Path, tmp_path: Path
) -> None:
    write_task(tmp_path / "new.vpt", vpt.load_backbone("vpt:vit-p8-64"), "prefix:2", 20)
    data = (tmp_path / "new.vpt").read_bytes()
    assert service.tasks.put("new", data)
    assert (folder / "new.vpt").read_bytes() == data
    assert not service.tasks.put("new", data)
    assert not [name for name in os.listdir(folder) if name.startswith(".")]
    service.tasks.take_out("new")
    assert "new" not in service.tasks
    assert not (folder / "new.vpt").exists()
    with pytest.raises(PromptError, match="no task 'new'"):
        service.tasks.take_out("new")


@pytest.mark.parametrize("name", ["../up", "a/b", ".hidden", "", "-x", "a" * 101, "a\\b", "ä"])
def test_a_name_that_leads_elsewhere_is_refused(service: Service, name: str) -> None:
    with pytest.raises(PromptError, match="needed are letters"):
        service.tasks.put(name, b"")


def test_what_cannot_be_served_does_not_get_in(
    service: Service, folder: Path, tmp_path: Path
) -> None:
    other = vpt.load_backbone("vpt:biased-portraits")
    with vpt.PromptedModel(other, None, vpt.Linear(other.out_features, ["a", "b"])) as model:
        vpt.save(tmp_path / "other.vpt", model)
    before = set(os.listdir(folder))
    for data in (b"", b"nothing", (tmp_path / "other.vpt").read_bytes()):
        with pytest.raises(PromptFileError):
            service.tasks.put("task0", data)
    assert set(os.listdir(folder)) == before
    assert set(service.tasks.facts) == {"task0", "task1", "task2", "task3"}


def test_the_folder_of_a_run_is_not_touched(tmp_path: Path) -> None:
    backbone = folder_of_tasks(tmp_path / "t", 1)
    (tmp_path / "t" / "run").mkdir()
    place = tmp_path / "t" / "run" / "prompt.vpt"
    write_task(place, backbone, "none", 1)
    data = place.read_bytes()
    service = Service(tmp_path / "t")
    try:
        for change in (
            lambda: service.tasks.take_out("run"),
            lambda: service.tasks.put("run", b""),
        ):
            with pytest.raises(OfRunError, match="folder of a run"):
                change()
        assert set(service.tasks.facts) == {"task0", "run"}
        assert place.read_bytes() == data
    finally:
        service.close()


def test_one_bad_file_or_two_of_one_name_hold_up_no_other(tmp_path: Path) -> None:
    backbone = folder_of_tasks(tmp_path / "t", 2)
    (tmp_path / "t" / "a.vpt").write_bytes(b"junk")
    (tmp_path / "t" / ".hidden.vpt").write_bytes(b"junk")
    service = Service(tmp_path / "t")
    try:
        assert set(service.tasks.facts) == {"task0", "task1"}
        assert set(service.tasks.broken) == {"a"}
        (tmp_path / "t" / "task1").mkdir()
        write_task(tmp_path / "t" / "task1" / "prompt.vpt", backbone, "none", 3)
        write_task(tmp_path / "t" / "more.vpt", backbone, "none", 4)
        service.tasks.refresh()
        assert set(service.tasks.facts) == {"task0", "more"}
        assert "two prompts called 'task1'" in service.tasks.broken["task1"]
        assert not any(str(tmp_path) in why for why in service.tasks.broken.values())
    finally:
        service.close()


def test_told_the_model_it_waits_for_tasks(tmp_path: Path) -> None:
    backbone = folder_of_tasks(tmp_path / "t", 1)
    shutil.move(tmp_path / "t" / "task0.vpt", tmp_path / "like.vpt")
    (tmp_path / "t" / "a.vpt").write_bytes(b"junk")
    service = Service(tmp_path / "t", like=tmp_path / "like.vpt")
    try:
        assert len(service.tasks) == 0
        write_task(tmp_path / "t" / "b.vpt", backbone, "none", 0)
        service.tasks.refresh()
        assert set(service.tasks.facts) == {"b"}
    finally:
        service.close()


@pytest.mark.parametrize("change", ["swap", "put", "delete"])
def test_while_a_task_changes_no_answer_is_anothers(
    service: Service, folder: Path, tmp_path: Path, change: str
) -> None:
    """Names of classes go with the scores: of one prompt, or of the other."""
    backbone = vpt.load_backbone("vpt:vit-p8-64")
    files = []
    for seed, names in ((1, ["a", "b"]), (2, [f"long {i}" for i in range(9)])):
        readout = vpt.Linear(backbone.out_features, names)
        with torch.no_grad():
            readout.weight.normal_(generator=torch.Generator().manual_seed(seed))
        with vpt.PromptedModel(backbone, None, readout) as model:
            files.append(vpt.save(tmp_path / f"{seed}.vpt", model).read_bytes())
    service.tasks.put("it", files[0])
    data = picture()
    wanted = []
    for number in (1, 2):
        with vpt.load(tmp_path / f"{number}.vpt", backbone) as model:
            wanted.append(vpt.predict(model, Image.open(io.BytesIO(data)))[0].probabilities)
    windows, odd, stop = service.prepare(data, "it.png"), [], threading.Event()
    gone = [0]

    def ask() -> None:
        while not stop.is_set():
            try:
                said = dict(answer(service.ask(windows, ["it"]).result(30)["it"], 20)["top"])
            except UnknownTaskError:
                gone[0] += 1
                continue
            if not any(said == pytest.approx(one, abs=1e-5) for one in wanted):
                odd.append(said)

    threads = [threading.Thread(target=ask) for _ in range(6)]
    for thread in threads:
        thread.start()
    for number in range(12):
        if change == "delete" and number % 2:
            service.tasks.take_out("it")
        elif change == "swap":
            (tmp_path / "part").write_bytes(files[number % 2])
            os.replace(tmp_path / "part", folder / "it.vpt")
            service.tasks.refresh()
        else:
            service.tasks.put("it", files[number // 2 % 2])
    stop.set()
    for thread in threads:
        thread.join()
    assert not odd
    assert bool(gone[0]) == (change == "delete")


def test_several_put_one_task_at_once(service: Service, tmp_path: Path) -> None:
    write_task(tmp_path / "new.vpt", vpt.load_backbone("vpt:vit-p8-64"), "none", 20)
    data = (tmp_path / "new.vpt").read_bytes()
    with ThreadPoolExecutor(6) as pool:
        found = list(pool.map(lambda _: service.tasks.put("new", data), range(18)))
    assert sum(found) == 1


def test_a_folder_without_prompts_and_one_of_broken_ones(tmp_path: Path) -> None:
    with pytest.raises(PromptFileError, match="no prompt files"):
        Service(tmp_path)
    (tmp_path / "a.vpt").write_bytes(b"no")
    with pytest.raises(PromptFileError, match="not a sound vpt file"):
        Service(tmp_path)


def test_what_is_no_picture_is_refused_with_a_reason(service: Service) -> None:
    for data, reason in ((b"", "empty"), (b"text", "not an image"), (picture()[:200], "truncated")):
        with pytest.raises(DataError, match=reason):
            service.prepare(data, "it.png")


def test_windows_of_a_sound_are_heard_together(tmp_path: Path) -> None:
    backbone = vpt.load_backbone("vpt:ast-tiny")
    readout = vpt.Linear(backbone.out_features, ["a", "b"])
    with torch.no_grad():
        readout.weight.normal_(generator=torch.Generator().manual_seed(0))
    with vpt.PromptedModel(backbone, None, readout) as model:
        vpt.save(tmp_path / "sound.vpt", model)
    wave = 0.3 * np.sin(np.arange(16000 * 7) / 16000 * np.linspace(500, 6000, 16000 * 7))
    soundfile.write(tmp_path / "long.wav", wave, 16000)
    service = Service(tmp_path)
    try:
        windows = service.prepare((tmp_path / "long.wav").read_bytes(), "long.wav")
        assert len(windows) > 1
        scores = service.ask(windows, ["sound"]).result(30)["sound"]
        with vpt.load(tmp_path / "sound.vpt", vpt.load_backbone("vpt:ast-tiny")) as model:
            alone = vpt.predict(model, tmp_path / "long.wav")[0].probabilities
        assert dict(answer(scores)["top"]) == pytest.approx(alone, abs=1e-5)
    finally:
        service.close()


def test_a_forward_has_no_more_rows_than_may_be(tmp_path: Path) -> None:
    backbone = folder_of_tasks(tmp_path / "t", 8, ["prefix:2", "none"])
    data = picture()
    alone = said_alone(tmp_path / "t", vpt.load_backbone("vpt:vit-p8-64"), data)
    service, seen = Service(tmp_path / "t", backbone, batch=2), []
    run = service.backbone.run

    def counted(x: torch.Tensor, *args: object) -> object:
        seen.append(len(x))
        return run(x, *args)

    service.tasks.library.each(*_one(service, data))  # what loading tries out
    service.backbone.run = counted
    try:
        windows = service.prepare(data, "it.png")
        said = service.ask(windows, list(alone)).result(60)
        assert max(seen) <= 2
        for task, wanted in alone.items():
            assert dict(answer(said[task])["top"]) == pytest.approx(wanted, abs=1e-5)
    finally:
        del service.backbone.run
        service.close()


def _one(service: Service, data: bytes) -> tuple[torch.Tensor, list[list[str]]]:
    window = service.prepare(data, "it.png")[0]
    return window[None], [list(service.tasks.facts)]
