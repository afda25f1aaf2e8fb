"""A run's folder: one run at a time, whoever is there first, however it ends; and nothing finished
is lost.
"""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from helpers import SETTINGS, colours, six_in_three, stop_at, three_tasks, tiny_model

import vpt
from vpt import continual, multi_task
from vpt.errors import PromptFileError, TrainingError
from vpt.training.folders import LOCK, run_folder

HOLDER = (
    "import sys, time\nfrom vpt.training.folders import run_folder\nwith run_folder(sys.argv[1],"
    " False, False):\n    print('has it', flush=True)\n    time.sleep(60)\n"
)


@pytest.fixture
def holder(tmp_path: Path):
    """Another process whose run has the folder."""
    with subprocess.Popen(
        [sys.executable, "-W", "ignore", "-c", HOLDER, str(tmp_path)], stdout=subprocess.PIPE
    ) as process:
        assert process.stdout.readline() == b"has it\n"
        yield process
        process.kill()


def test_a_second_process_is_refused_until_the_first_is_gone(
    holder: subprocess.Popen, tmp_path: Path
) -> None:
    with pytest.raises(TrainingError, match=rf"in use by another run \(process {holder.pid}\)"):
        vpt.fit(tiny_model(), colours(), out=tmp_path, **SETTINGS)
    assert not (tmp_path / "checkpoint.safetensors").exists()
    holder.kill()  # without a chance to tidy up
    holder.wait()
    assert (tmp_path / LOCK).exists()
    vpt.fit(tiny_model(), colours(), out=tmp_path, **SETTINGS)
    assert not (tmp_path / LOCK).exists()


def test_a_run_within_a_run_has_it_and_another_thread_has_not(tmp_path: Path) -> None:
    refused: list[BaseException] = []

    def other() -> None:
        try:
            with run_folder(tmp_path, False, False):
                pass
        except TrainingError as error:
            refused.append(error)

    with run_folder(tmp_path, False, False), run_folder(tmp_path / ".", False, False) as inner:
        assert inner == tmp_path
        thread = threading.Thread(target=other)
        thread.start()
        thread.join()
    assert "another thread" in str(refused[0])
    other()
    assert len(refused) == 1
    with run_folder(None, False, False) as none:
        assert none is None


def test_an_error_gives_it_up(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt), run_folder(tmp_path, False, False):
        raise KeyboardInterrupt
    with run_folder(tmp_path, False, False):
        pass


def test_what_killed_runs_left_is_swept_and_nothing_else(tmp_path: Path) -> None:
    old = time.time() - 3600
    left = [
        ".prompt.vpt.ab3_9xyz",
        ".checkpoint.safetensors.abcdefgh",
        "..writable.abcdefgh",
        ".curves.png.01234567",
    ]
    own = [".my.settings", "prompt.vpt.backup00", "notes.txt", ".history.jsonl.abc"]
    for name in [*left, *own]:
        (tmp_path / name).write_text("x")
        os.utime(tmp_path / name, (old, old))
    (tmp_path / ".metrics.json.abcdefgh").write_text("being written")
    with run_folder(tmp_path, False, False):
        pass
    assert {path.name for path in tmp_path.iterdir()} == {*own, ".metrics.json.abcdefgh"}


def test_places_where_nothing_can_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    with (
        pytest.raises(PromptFileError, match="is a file"),
        run_folder(tmp_path / "file", False, False),
    ):
        pass
    with (
        pytest.raises(PromptFileError, match="cannot be written"),
        run_folder(tmp_path / "file" / "below", False, False),
    ):
        pass


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, bytes]:
    """A folder with a finished run, and its prompt file's bytes."""
    folder = tmp_path_factory.mktemp("finished")
    data = {"train": colours(12), "val": colours(6, 1)}
    vpt.adapt(
        data,
        tiny_model().backbone.release(),
        "deep:1",
        out=folder,
        epochs=1,
        augment="none",
        progress=False,
    ).model.close()
    return folder, (folder / "prompt.vpt").read_bytes()


QUICK = {"epochs": 1, "progress": False}


@pytest.mark.parametrize("resume", [False, True])
@pytest.mark.parametrize(
    "begin",
    [
        lambda out, **how: vpt.fit(tiny_model(), colours(), out=out, **SETTINGS, **how),
        lambda out, **how: continual.run(
            "deep:1", six_in_three(), tiny_model().backbone.release(), out=out, **QUICK, **how
        ),
        lambda out, **how: continual.run(
            "ridge", six_in_three(), tiny_model().backbone.release(), out=out, progress=False, **how
        ),
        lambda out, **how: multi_task.share(
            three_tasks(), tiny_model().backbone.release(), "deep:1", out=out, **QUICK, **how
        ),
    ],
    ids=["fit", "continual", "ridge", "share"],
)
def test_no_run_replaces_a_finished_one(begin, resume: bool, finished: tuple[Path, bytes]) -> None:
    """Three of them wrote their prompt file over it, and left the other run's numbers beside it."""
    folder, content = finished
    before = {path.name for path in folder.iterdir()}
    with pytest.raises(TrainingError, match=r"holds a finished run.*out=….*overwrite=True"):
        begin(folder, resume=resume)
    assert (folder / "prompt.vpt").read_bytes() == content
    assert {path.name for path in folder.iterdir()} == before


def test_numbers_without_their_prompt_file_are_not_replaced(
    finished: tuple[Path, bytes], tmp_path: Path
) -> None:
    """A prompt file may have been moved into a library; its run's numbers and curves are still
    somebody's.
    """
    for file in finished[0].iterdir():
        if file.name != "prompt.vpt":
            (tmp_path / file.name).write_bytes(file.read_bytes())
    before = (tmp_path / "metrics.json").read_bytes()
    with pytest.raises(TrainingError, match=r"finished run \(metrics.json is there\)"):
        vpt.adapt(
            {"train": colours(12), "val": colours(6, 1)},
            tiny_model().backbone,
            "deep:1",
            out=tmp_path,
            progress=False,
        )
    assert (tmp_path / "metrics.json").read_bytes() == before


def test_a_run_that_was_to_replace_another_and_was_stopped(
    finished: tuple[Path, bytes], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for file in finished[0].iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    (tmp_path / "border.png").write_bytes(b"of a border that was")
    data = {"train": colours(12), "val": colours(6, 1)}

    def go(**how: object) -> vpt.Result:
        made = tiny_model().backbone.release()
        return vpt.adapt(
            data, made, "deep:2", out=tmp_path, epochs=2, augment="none", progress=False, **how
        )

    with monkeypatch.context() as patch:
        stop_at(patch, "step", 2)
        with pytest.raises(KeyboardInterrupt):
            go(overwrite=True)
    assert (tmp_path / "prompt.vpt").read_bytes() == finished[1]
    with pytest.raises(TrainingError, match="--resume --overwrite"):
        go(resume=True)
    go(resume=True, overwrite=True).model.close()
    assert (tmp_path / "prompt.vpt").read_bytes() != finished[1]
    assert not (tmp_path / "border.png").exists()  # of the run whose place it took


@pytest.mark.parametrize("out", ["", "  ", 5])
def test_a_folder_that_is_none(out: object) -> None:
    with pytest.raises(PromptFileError, match="needed is a folder"), run_folder(out, False, False):
        pass


def test_share_again_is_refused_and_overwrites_when_told(tmp_path: Path) -> None:
    def go(**how: object) -> None:
        shared = multi_task.share(
            three_tasks(), tiny_model().backbone.release(), "deep:1", out=tmp_path, **QUICK, **how
        )
        shared.model.close()

    go()
    first = (tmp_path / "prompt.vpt").read_bytes()
    with pytest.raises(TrainingError, match="holds a finished run"):
        go(seed=7)
    assert (tmp_path / "prompt.vpt").read_bytes() == first
    go(seed=7, overwrite=True)
    assert (tmp_path / "prompt.vpt").read_bytes() != first


def test_fit_again_is_refused_and_overwrites_when_told(tmp_path: Path) -> None:
    vpt.fit(tiny_model(), colours(), out=tmp_path, **SETTINGS)
    before = (tmp_path / "checkpoint.safetensors").read_bytes()
    with pytest.raises(TrainingError, match=r"was trained to its end.*overwrite=True"):
        vpt.fit(tiny_model(), colours(), out=tmp_path, **(SETTINGS | {"seed": 5}))
    assert (tmp_path / "checkpoint.safetensors").read_bytes() == before
    vpt.fit(tiny_model(), colours(), out=tmp_path, overwrite=True, **(SETTINGS | {"seed": 5}))
    assert (tmp_path / "checkpoint.safetensors").read_bytes() != before


def test_a_sequence_again_is_refused_and_overwrites_when_told(tmp_path: Path) -> None:
    def go(**how: object) -> None:
        continual.run(
            "deep:1", six_in_three(), tiny_model().backbone.release(), out=tmp_path, **QUICK, **how
        ).model.close()

    go()
    first = (tmp_path / "prompt.vpt").read_bytes()
    with pytest.raises(TrainingError, match="holds a run"):
        go()
    go(seed=7, overwrite=True)
    assert (tmp_path / "prompt.vpt").read_bytes() != first


def fail_late(folder: Path) -> None:
    (folder / "curves").mkdir()
    folder.open()


def test_a_run_that_comes_to_nothing_leaves_no_folder(tmp_path: Path) -> None:
    (tmp_path / "here").mkdir()
    for name in ("new", "here"):
        with pytest.raises(OSError, match="nothing"), run_folder(tmp_path / name, False, False):
            raise OSError("nothing")
    with pytest.raises(IsADirectoryError), run_folder(tmp_path / "kept", False, False) as kept:
        fail_late(kept)
    assert {path.name for path in tmp_path.iterdir()} == {"here", "kept"}
