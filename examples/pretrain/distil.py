"""Distil a bundled backbone: from where it stands, a small model learns to say what a large one
sees, besides naming the classes.

python examples/pretrain/distil.py image tiny-imagenet-160 --out runs/distil-image \\
    --teacher openai/clip-vit-base-patch16 --start assets/vit-p8-64/model.safetensors
python examples/pretrain/distil.py audio runs/audio --out runs/distil-audio \\
    --teacher openai/whisper-tiny.en --start assets/ast-tiny/model.safetensors

DATA is what `image.py` reads, or the --out of `audio.py`, whose clips are spoken where they are
not there. The teacher meets each example once; its answers are kept in `--pieces`, a thousand
examples a file, and serve every run that names the same folder. A pass or a run that was stopped
goes on when called again; with `--steps 0` there is only the pass. The backbone is written to
`OUT/model`.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import numpy as np
import torch
from accelerate import Accelerator
from lessons import Lesson, Pictures, Words
from loop import Schedule, share, train
from torch import Tensor, nn
from torch.nn import functional as F

from vpt.report.progress import progress_bar

# -- configuration -----------------------------------------------------------------------
SCHEDULE = {
    "steps": 3000,
    "batch": 256,
    "lr": 5e-4,
    "weight_decay": 0.05,
    "warmup": 100,
    "decay": 0.8,
}
PRECISION, LABEL_SMOOTHING = "bf16", 0.1
PIECE, AT_ONCE = 1000, 50  # examples of a file, and of one forward of the teacher
WHOLE, PARTS, LABELS = 1.0, 0.5, 0.2  # weights of the losses
# share of the patches left out, and the share of the steps, the last ones, that see all of them
PATCH_DROP, LAST = 0.5, 0.1
# ---


class Pieces:
    """The teacher's answers on disk, `[n,1+N,D]` in fp16: files of `PIECE` examples each, whole or
    not there. about: what they are answers to.
    """

    def __init__(self, folder: Path, about: dict[str, object]) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        told = folder / "about.json"
        if not told.exists():
            told.write_text(json.dumps(about) + "\n")
        if (found := json.loads(told.read_text())) != about:
            raise SystemExit(
                f"{folder} holds answers to {found}, and asked for are {about}; name another"
                " folder with --pieces."
            )
        self.folder = folder
        self.files: dict[int, np.ndarray] = {}

    def fill(self, order: Tensor, count: int, lesson: Lesson) -> None:
        """Ask for every piece that is not there yet, of those with the first `count` of `order`."""
        parts = enumerate(order.split(PIECE)[: -(-count // PIECE)])
        missing = [(i, part) for i, part in parts if not self._file(i).exists()]
        if not missing:
            return
        answer = lesson.teacher()
        with progress_bar(True) as bar:
            for i, part in bar.track(missing, description="asking the teacher"):
                answers = torch.cat([answer(some) for some in part.split(AT_ONCE)])
                np.save(self.folder / "part.npy", answers.numpy())
                (self.folder / "part.npy").rename(self._file(i))

    def _file(self, i: int) -> Path:
        return self.folder / f"{i:04}.npy"

    def __getitem__(self, places: Tensor) -> Tensor:
        """The answers at these places of the order, which rise."""
        found = []
        for i in places.div(PIECE, rounding_mode="floor").unique().tolist():
            if i not in self.files:
                self.files[i] = np.load(self._file(i), mmap_mode="r")
            rows = places[(places >= i * PIECE) & (places < (i + 1) * PIECE)] - i * PIECE
            found.append(torch.from_numpy(self.files[i][rows.numpy()]).float())
        return torch.cat(found)


class Pupil(nn.Module):
    """The model, and two heads that say what the teacher sees; they are thrown away. drop: share
    of the patches left out in training.
    """

    def __init__(self, lesson: Lesson, width: int, parts: bool) -> None:
        super().__init__()
        self.lesson, self.model, self.drop = lesson, lesson.model, 0.0
        self.whole = nn.Linear(lesson.width, width)
        self.parts = nn.Linear(lesson.width, width) if parts else None
        lesson.embeds.register_forward_hook(self._leave_out)

    def _leave_out(self, module: nn.Module, inputs: object, tokens: Tensor) -> Tensor:
        first, patches = tokens.split([self.lesson.prefix, tokens.shape[1] - self.lesson.prefix], 1)
        b, n, _ = patches.shape
        self.kept = torch.arange(n, device=tokens.device).expand(b, n)
        if self.training and self.drop:
            chance = torch.rand(b, n, device=tokens.device)
            self.kept = chance.argsort(1)[:, : round(n * (1 - self.drop))]
        return torch.cat([first, rows(patches, self.kept)], 1)

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        """What it says of a batch; `parts` are those of the patches `kept` `[B,K]`."""
        features, patches, labels = self.lesson.read(x)
        said = {"whole": self.whole(features).float(), "labels": labels.float()}
        if self.parts is not None:
            said |= {"parts": self.parts(patches).float(), "kept": self.kept}
        return said


def rows(x: Tensor, kept: Tensor) -> Tensor:
    """`x` `[B,N,D]` at `kept` `[B,K]`."""
    return x.gather(1, kept[:, :, None].expand(-1, -1, x.shape[2]))


def balanced(targets: Tensor, seed: int) -> Tensor:
    """Every example once, by chance, so that each first part of them holds all classes alike."""
    order = torch.randperm(len(targets), generator=torch.Generator().manual_seed(seed))
    turn = torch.zeros(len(targets), dtype=torch.long)
    for label in targets.unique():
        its = targets[order] == label
        turn[its] = torch.arange(int(its.sum()))
    return order[turn.argsort(stable=True)]


def losses(said: dict[str, Tensor], whole: Tensor, parts: Tensor, labels: Tensor) -> Tensor:
    """The weighted sum of what the pupil gets wrong; whole `[B,D]` and parts `[B,N,D]` of the
    teacher standardised.
    """
    total = WHOLE * F.mse_loss(said["whole"], whole)
    if "parts" in said:
        total = total + PARTS * F.mse_loss(said["parts"], rows(parts, said["kept"]))
    smooth = {"label_smoothing": LABEL_SMOOTHING}
    return total + LABELS * F.cross_entropy(said["labels"], labels, **smooth)


def standard(answers: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and deviation of answers `[n,1+N,D]`, `[2,D]` each: of the whole, and of the parts."""
    kinds = [answers[:, :1], answers[:, 1:] if answers.shape[1] > 1 else answers]
    flat = [kind.flatten(0, 1) for kind in kinds]
    return torch.stack([x.mean(0) for x in flat]), torch.stack([x.std(0) for x in flat]) + 1e-3


def parsed(argv: list[str] | None) -> argparse.Namespace:
    """The options of the command."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("kind", choices=["image", "audio"])
    parser.add_argument("data", type=Path)
    parser.add_argument("--teacher", required=True, help="its name or folder")
    parser.add_argument("--start", type=Path, required=True, help="the weights today (safetensors)")
    parser.add_argument("--out", type=Path, default=Path("runs/distil"))
    parser.add_argument("--pieces", type=Path, help="the teacher's answers; OUT/pieces otherwise")
    parser.add_argument(
        "--pictures", type=int, default=40000, help="or clips, of each class alike, for the teacher"
    )
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--steps", type=int, default=SCHEDULE["steps"])
    parser.add_argument("--batch", type=int, default=SCHEDULE["batch"])
    parser.add_argument("--save-every", type=int, default=250)
    return parser.parse_args(argv)


def main(argv: list[str] | None = None) -> None:
    options = parsed(argv)
    accelerator = Accelerator(mixed_precision=PRECISION)
    options.out.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(options.seed)
    with accelerator.local_main_process_first():
        lesson: Lesson = {"image": Pictures, "audio": Words}[options.kind](options)
        about = {"teacher": Path(options.teacher).name, "size": lesson.size, "seed": options.seed}
        about |= {"piece": PIECE, "of": len(lesson.targets)}
        pieces = Pieces(options.pieces or options.out / "pieces", about)
        order = balanced(lesson.targets, options.seed)
        pieces.fill(order, options.pictures, lesson)
    order = order[: options.pictures]
    if options.steps == 0:
        return
    if len(order) < options.batch:
        raise SystemExit(
            f"Found {len(order)} examples to train on; needed is at least a batch, {options.batch}."
        )
    schedule = Schedule(
        **(SCHEDULE | {k: getattr(options, k) for k in ("steps", "batch", "seed", "save_every")})
    )
    first = pieces[torch.arange(min(PIECE, len(order)))]
    pupil = Pupil(lesson, width=first.shape[2], parts=first.shape[1] > 1)
    mean, std = standard(first)

    def loss(prepared: nn.Module, step: int, rank: int, processes: int) -> Tensor:
        places = share(len(order), schedule, step, rank, processes)
        mine, device = order[places], next(prepared.parameters()).device
        seen = pieces[places]
        whole = ((seen[:, 0] - mean[0]) / std[0]).to(device)
        x, parts = lesson.shown(mine, ((seen[:, 1:] - mean[1]) / std[1]).to(device))
        pupil.drop = 0.0 if step >= (1 - LAST) * schedule.steps else PATCH_DROP
        return losses(prepared(x), whole, parts, lesson.targets[mine].to(device))

    train(accelerator, pupil, loss, schedule, options.out, lambda _: lesson.accuracy())
    if accelerator.is_main_process:
        lesson.export(options.out / "model")
        pupil.eval()
        print(f"top-1 on all held-out examples: {lesson.accuracy(every=True):.1%}")
    accelerator.end_training()


if __name__ == "__main__":
    main()
