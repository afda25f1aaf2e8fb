"""Where a run stands, written whole and atomically: prompt, readout, objective, optimizer and
position; never pickle.
"""

from __future__ import annotations

import hashlib
import json
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path

import torch
from accelerate import Accelerator
from torch import Tensor

from vpt.errors import PromptFileError, TrainingError
from vpt.errors.places import is_there
from vpt.files import file_bytes, pack, unpack, write_atomically
from vpt.sites import Config

CHECKPOINT = "checkpoint.safetensors"
VERSION = 3
EVERY_SECONDS = 60.0

Row = dict[str, float]  # of an epoch: its number, and losses and accuracies by name


@dataclass
class Position:
    """Where a run stands: `epoch` (from 1) and the next `update` in it, the sums of that epoch, and
    the rows so far.

    losses: those by which it is seen whether training leaves its start. cuts: how often the rate
        was cut for that.

    Random numbers are drawn from seeds of the position, so a position is all of their state.
    """

    epoch: int = 1
    update: int = 0
    sums: list[float] = field(default_factory=list)
    rows: list[Row] = field(default_factory=list)
    best: int = 0
    finished: bool = False
    losses: list[float] = field(default_factory=list)
    cuts: int = 0


class Checkpoint:
    """The checkpoint of a run in `folder` (None: nowhere). identity: what must be the same for a
    run to go on.
    """

    def __init__(self, folder: Path | None, identity: Config, accelerator: Accelerator) -> None:
        self.path = folder / CHECKPOINT if folder is not None else None
        self.identity = identity
        self.accelerator = accelerator
        self._last = time.monotonic()

    def due(self) -> bool:
        """Whether the last one is a minute old."""
        return self.path is not None and time.monotonic() - self._last > EVERY_SECONDS

    def save(self, position: Position, tensors: dict[str, Tensor]) -> None:
        """Write the whole state (main process only)."""
        self._last = time.monotonic()
        if self.path is not None and self.accelerator.is_main_process:
            header = {
                "format": "vpt-checkpoint",
                "version": VERSION,
                "run": self.identity,
                "position": asdict(position),
            }
            write_atomically(self.path, pack(tensors, header))

    def load(self, resume: bool) -> tuple[Position, dict[str, Tensor]] | None:
        """The state to go on from, or None to begin.

        Raises `TrainingError` if it is another run's, or not asked for.
        """
        if self.path is None or not is_there(self.path):
            return None
        try:
            header, tensors = unpack(file_bytes(self.path), str(self.path))
            self._check_version(header)
            position = _position(header, str(self.path))
        except PromptFileError as error:
            raise TrainingError(
                f"{error} Choose another folder (out=…), or begin again with overwrite=True"
                " (--overwrite)."
            ) from error
        if not resume:
            stands = "was trained to its end"
            if not position.finished:
                stands = f"was stopped in epoch {position.epoch}"
            raise TrainingError(
                f"{self.path.parent} holds a run that {stands}. Go on with resume=True (--resume),"
                " choose another folder (out=…), or begin again with overwrite=True (--overwrite)."
            )
        was, now = header["run"], self.identity
        changed = sorted(k for k in now.keys() | was.keys() if now.get(k) != was.get(k))
        if changed:
            pairs = ", ".join(f"{k}: was {was.get(k)}, is {now.get(k)}" for k in changed[:3])
            raise TrainingError(
                f"{self.path.parent} holds a run with other settings ({pairs}). Resume with the"
                " same, or choose another folder."
            )
        return position, tensors

    def _check_version(self, header: Config) -> None:
        """Raise `TrainingError` for the state of a run of another vpt: it is neither gone on from
        nor overwritten.
        """
        if header.get("version") != VERSION:
            raise TrainingError(
                f"{self.path} is of version {header.get('version')!r:.80}; this vpt goes on from"
                f" version {VERSION} only. Finish the run with the vpt that began it, or choose"
                " another folder (out=…)."
            )


def _position(header: Config, path: str) -> Position:
    """Where a checkpoint stands, if its header is one that `save` writes. Raises
    `PromptFileError`.
    """
    written = header.get("position")
    known = header.get("format") == "vpt-checkpoint" and isinstance(header.get("run"), dict)
    if known and isinstance(written, dict):
        kinds = {name: type(value) for name, value in asdict(Position()).items()}
        if {name: type(value) for name, value in written.items()} == kinds:
            position = Position(**written)
            rows = all(isinstance(row, dict) for row in position.rows)
            best = 0 <= position.best < max(1, len(position.rows))
            if rows and best and position.epoch >= 1 and position.update >= 0:
                return position
    raise PromptFileError(f"{path} does not say where its run stands.")


def digest(value: object) -> str:
    """A short hash of plain values, to compare them."""
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()[:16]


def optimizer_tensors(optimizer: torch.optim.Optimizer | None, called: str) -> dict[str, Tensor]:
    """An optimizer's state by number of parameter and name, each under `called`."""
    state = optimizer.state_dict()["state"] if optimizer is not None else {}
    return {
        f"{called}.{i}.{name}": torch.as_tensor(value)
        for i, values in state.items()
        for name, value in values.items()
    }


def restore_optimizer(
    optimizer: torch.optim.Optimizer | None, tensors: dict[str, Tensor], called: str, begun: bool
) -> None:
    """Put back what `optimizer_tensors` gave. begun: whether it has made a step; raises `KeyError`
    if there is no trace of it.
    """
    if optimizer is None:
        return
    groups = optimizer.state_dict()["param_groups"]
    state: dict[int, dict[str, Tensor]] = {}
    for name, value in tensors.items():
        if name.startswith(f"{called}."):
            _, number, key = name.split(".", 2)
            state.setdefault(int(number), {})[key] = value
    if begun and len(state) < sum(len(group["params"]) for group in groups):
        raise KeyError(called)
    optimizer.load_state_dict({"state": state, "param_groups": groups})
