"""A run's folder: it belongs to one run at a time, and what is finished in it stays."""

from __future__ import annotations

import os
import re
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from accelerate import PartialState

from vpt.errors import PromptFileError, TrainingError
from vpt.errors.places import is_folder, is_there
from vpt.files import write_atomically
from vpt.files.naming import PROMPT
from vpt.training.checkpoints import CHECKPOINT

try:
    import fcntl
except ImportError:  # Windows has none: there a folder is not locked
    fcntl = None  # type: ignore[assignment]

METRICS = "metrics.json"
LOCK = ".lock"
# as write_atomically names them
LEFT_OVER = re.compile(
    r"\.(.+\.(vpt|json|jsonl|safetensors|png|html|csv)|\.writable)\.[a-z0-9_]{8}"
)
OLD = 600.0  # seconds after which nobody is writing them any more

_held: dict[Path, int] = {}  # folders of this process → the thread whose run has it
_gate = threading.Lock()


@contextmanager
def run_folder(
    out: str | Path | None, resume: bool, overwrite: bool, finished: tuple[str, ...] = (PROMPT,)
) -> Iterator[Path | None]:
    """The folder of a run, made, tried and this run's alone while inside; None where none was asked
    for.

    finished: files that a finished run leaves, which only overwrite gives up. Raises, before hours
        are spent, `PromptFileError` where nothing can be written, `TrainingError` for a folder that
        holds a finished run, or that another run has now.
    """
    if out is None:
        yield None
        return
    if not isinstance(out, (str, Path)) or not str(out).strip():
        raise PromptFileError(f"Found out={out!r}; needed is a folder to write the run to.")
    folder = Path(out)
    if is_there(folder) and not is_folder(folder):
        raise PromptFileError(
            f"{folder} is a file; needed is a folder to write the run to (out=…)."
        )
    made = not is_there(folder)
    trial = folder / ".writable"
    write_atomically(trial, b"")
    trial.unlink(missing_ok=True)  # another process may have been here too
    try:
        with _alone(folder):
            if not overwrite:
                _refuse_finished(folder, resume, finished)
            if PartialState().is_main_process:
                if overwrite and not resume:
                    (folder / CHECKPOINT).unlink(missing_ok=True)
                _sweep(folder)
            yield folder
    except BaseException:
        if made:  # a run that came to nothing leaves no empty folder
            with suppress(OSError):
                folder.rmdir()
        raise


def _refuse_finished(folder: Path, resume: bool, finished: tuple[str, ...]) -> None:
    wanted = [*finished]
    if finished and not resume:
        wanted.append(METRICS)
    here = [name for name in wanted if is_there(folder / name)]
    if not here:
        return
    if resume and is_there(folder / CHECKPOINT):
        raise TrainingError(
            f"{folder} holds a finished run, and one that was to take its place and was stopped. Go"
            " on with that one with resume=True and overwrite=True (--resume --overwrite), or"
            " choose another folder (out=…)."
        )
    nothing = "; nothing is left to resume" if resume else ""
    of = "" if PROMPT in here else f" ({here[0]} is there)"
    raise TrainingError(
        f"{folder} already holds a finished run{of}{nothing}. Choose another folder (out=…), or"
        " overwrite=True (--overwrite)."
    )


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Inside, no other run has this folder. A run within a run has it too: `fit` inside `adapt`."""
    key, me = folder.resolve(), threading.get_ident()
    if _held.get(key) == me or fcntl is None or not PartialState().is_main_process:
        yield
        return
    with _gate:
        if key in _held:
            raise _taken(folder, "another thread of this process")
        handle = _lock(folder)
        _held[key] = me
    try:
        yield
    finally:
        with _gate:
            del _held[key]
            if handle is not None:
                (folder / LOCK).unlink(missing_ok=True)
                os.close(handle)


def _lock(folder: Path) -> int | None:
    """Lock the folder's lock file; None where a file system knows no locks.

    It is a lock of the process: one that is killed gives it up, and its children do not have it.
    """
    while True:
        handle = os.open(folder / LOCK, os.O_RDWR | os.O_CREAT, 0o644)
        try:
            fcntl.lockf(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except (BlockingIOError, PermissionError):
            process = os.read(handle, 20).decode(errors="replace").strip()
            os.close(handle)
            raise _taken(folder, f"process {process or 'of another machine'}") from None
        except OSError:
            os.close(handle)
            return None
        if is_there(folder / LOCK) and os.path.samestat(os.fstat(handle), os.stat(folder / LOCK)):
            os.truncate(handle, 0)
            os.write(handle, str(os.getpid()).encode())
            return handle
        os.close(handle)  # its owner took it away meanwhile


def _taken(folder: Path, by: str) -> TrainingError:
    return TrainingError(
        f"{folder} is in use by another run ({by}). Wait until it is done, or choose another folder"
        " (out=…)."
    )


def _sweep(folder: Path) -> None:
    """Remove what runs that were killed in the midst of writing left behind."""
    for path in folder.iterdir():
        if (
            LEFT_OVER.fullmatch(path.name)
            and path.is_file()
            and time.time() - path.stat().st_mtime > OLD
        ):
            path.unlink(missing_ok=True)
