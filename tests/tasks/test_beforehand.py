"""Queries learned over many tasks: what they become, what they cannot see, their file, wrong
input.
"""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from families import make, open_tiny
from helpers import colours

import vpt
from vpt.data import Examples
from vpt.errors import DataError, PromptError, PromptFileError, TrainingError
from vpt.files import pack, unpack
from vpt.files.beforehand import load_queries, save_queries
from vpt.runs.kept import keep
from vpt.runs.probe import fit_probe
from vpt.tasks.beforehand import Seen, learn_beforehand, see

FEW = {"steps": 8}


def where(count: int = 24, seed: int = 0) -> Examples:
    """Noisy images `[3,32,32]` of two classes: a white square on the left or on the right."""
    generator = torch.Generator().manual_seed(seed)
    x = torch.rand(count, 3, 32, 32, generator=generator) * 0.3
    y = torch.arange(count) % 2
    rows = torch.randint(0, 24, (count,), generator=generator).tolist()
    for picture, side, row in zip(x, y.tolist(), rows, strict=True):
        picture[:, row : row + 8, 16 * side : 16 * side + 8] = 1
    return Examples(list(x).__getitem__, y.tolist(), ["left", "right"])


@pytest.fixture
def world() -> tuple[vpt.Backbone, dict[str, Seen]]:
    backbone = open_tiny("timm ViT")
    parts = {"colours": colours(24), "where": where(), "others": colours(24, seed=5)}
    return backbone, {name: see(backbone, part) for name, part in parts.items()}


def rows(prompt: vpt.QueryTokens) -> torch.Tensor:
    return torch.cat([part.detach().flatten() for part in prompt.queries])


def spots(tints: tuple[int, int], count: int, seed: int) -> Examples:
    """Noise `[3,64,64]` in which one patch, somewhere, is of one of two colours."""
    generator = torch.Generator().manual_seed(seed)
    x = torch.rand(count, 3, 64, 64, generator=generator)
    labels = [i % 2 for i in range(count)]
    places = (8 * torch.randint(0, 8, (count, 2), generator=generator)).tolist()
    for picture, label, (row, column) in zip(x, labels, places, strict=True):
        patch = picture[:, row : row + 8, column : column + 8]
        patch.zero_()
        patch[tints[label]] = 1
    return Examples(list(x).__getitem__, labels, ["one", "other"])


def test_a_new_task_is_told_apart_more_surely_by_what_they_read() -> None:
    backbone = vpt.load_backbone("vpt:vit-p8-64")
    tasks = {
        "red or green": see(backbone, spots((0, 1), 24, seed=1)),
        "green or blue": see(backbone, spots((1, 2), 24, seed=2)),
    }
    few, many = spots((0, 2), 4, seed=3), spots((0, 2), 24, seed=4)
    blocks = tasks["red or green"].start.blocks
    train, test = (keep(backbone, part, blocks=blocks) for part in (few, many))

    def loss(steps: int) -> float:
        """Of a probe on 4 pictures of red or blue, which no task had."""
        prompt = learn_beforehand(tasks, steps=steps)[0]
        read, held = (kept.with_read(prompt).read for kept in (train, test))
        probe = fit_probe(read, train.y, 2, strength=1e-3, of="queries")[0]
        with torch.no_grad():
            return float(torch.nn.functional.cross_entropy(probe(held), test.y))

    assert loss(steps=60) < 0.95 * loss(steps=1)


def test_each_set_is_what_it_is_alone(world: tuple[vpt.Backbone, dict[str, Seen]]) -> None:
    _, tasks = world
    together = learn_beforehand(tasks, without=[None, "where"], **FEW)
    for left_out, prompt in zip((None, "where"), together, strict=True):
        alone = learn_beforehand(tasks, without=[left_out], **FEW)[0]
        assert torch.allclose(rows(prompt), rows(alone), atol=1e-3)  # Adam enlarges rounding
    assert not torch.allclose(rows(together[0]), rows(together[1]), atol=1e-2)


def test_a_task_that_is_left_out_says_nothing(
    world: tuple[vpt.Backbone, dict[str, Seen]],
) -> None:
    backbone, tasks = world
    found = learn_beforehand(tasks, without=["where"], **FEW)[0]
    other = see(backbone, where(seed=9))
    again = learn_beforehand(tasks | {"where": other}, without=["where"], **FEW)[0]
    assert torch.equal(rows(found), rows(again))
    seen = learn_beforehand(tasks | {"where": other}, **FEW)[0]
    assert not torch.equal(rows(learn_beforehand(tasks, **FEW)[0]), rows(seen))


def test_the_same_seed_gives_the_same_queries(
    world: tuple[vpt.Backbone, dict[str, Seen]],
) -> None:
    _, tasks = world
    first, again, other = (learn_beforehand(tasks, seed=s, **FEW)[0] for s in (0, 0, 1))
    assert torch.equal(rows(first), rows(again))
    assert not torch.equal(rows(first), rows(other))


def sounds(seconds: float, count: int = 12, seed: int = 0) -> tuple[vpt.Backbone, Examples]:
    """A model that hears so long a time at once, and noise of two loudnesses."""
    backbone = vpt.load_backbone(make("transformers wav2vec2"), seconds=seconds)
    length = backbone.inputs.example(1)[0].shape[1]
    generator = torch.Generator().manual_seed(seed)
    waves = [(torch.rand(length, generator=generator) - 0.5) * (1 + i % 2) for i in range(count)]
    labels = [i % 2 for i in range(count)]
    return backbone, Examples(
        lambda i: (waves[i], torch.tensor(length)), labels, ["low", "loud"], sample_rate=16000
    )


def test_sound_of_two_lengths_is_learned_from_together(tmp_path: Path) -> None:
    short, long = sounds(0.1), sounds(0.2)
    tasks = {"short": see(*short), "long": see(*long)}
    first = {task: seen.kept.memories[seen.start.blocks[0]] for task, seen in tasks.items()}
    assert first["short"].keys.shape[3] < first["long"].keys.shape[3]
    prompt = learn_beforehand(tasks, **FEW)[0]
    path = save_queries(tmp_path / "q.vpt", prompt, short[0])
    assert torch.equal(rows(load_queries(path, long[0])), rows(load_queries(path, short[0])))


def test_a_pass_takes_as_many_of_each_class() -> None:
    seen = see(open_tiny("timm ViT"), colours(30), most=12)
    assert seen.kept.y.bincount().tolist() == [4, 4, 4]
    assert all(memory.keys.dtype == torch.float16 for memory in seen.kept.memories.values())


def test_a_file_gives_them_back_in_half_precision(
    tmp_path: Path, world: tuple[vpt.Backbone, dict[str, Seen]]
) -> None:
    backbone, tasks = world
    prompt = learn_beforehand(tasks, **FEW)[0]
    path = save_queries(tmp_path / "q.vpt", prompt, backbone, trained_on={"tasks": list(tasks)})
    assert path.stat().st_size < 2 * rows(prompt).numel() + 4096
    again = load_queries(path, backbone)
    assert again.config() == prompt.config()
    assert torch.equal(rows(again), rows(prompt).half().float())
    other = open_tiny("timm ViT", seed=1)
    with pytest.raises(PromptFileError, match="made for another backbone"):
        load_queries(path, other)
    with pytest.raises(PromptFileError, match="no classifier"):
        vpt.load(path, backbone)


def test_any_prompt_file_with_queries_will_do(tmp_path: Path) -> None:
    backbone = open_tiny("timm ViT")
    prompt = vpt.QueryTokens.like(backbone, 2)
    with vpt.PromptedModel(backbone, prompt, vpt.Linear(prompt.reads, 2, "queries")) as model:
        vpt.save(tmp_path / "run.vpt", model)
    assert torch.equal(rows(load_queries(tmp_path / "run.vpt", backbone)), rows(prompt))
    readout = vpt.Linear(backbone.out_features, 2)
    with vpt.PromptedModel(backbone, vpt.DeepTokens.like(backbone, 2), readout) as model:
        vpt.save(tmp_path / "deep.vpt", model)
    with pytest.raises(PromptFileError, match="holds DeepTokens"):
        load_queries(tmp_path / "deep.vpt", backbone)


def test_a_damaged_file_says_so(
    tmp_path: Path, world: tuple[vpt.Backbone, dict[str, Seen]]
) -> None:
    backbone, tasks = world
    path = save_queries(tmp_path / "q.vpt", learn_beforehand(tasks, **FEW)[0], backbone)
    whole = path.read_bytes()
    path.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    with pytest.raises(PromptFileError, match="altered or damaged"):
        load_queries(path, backbone)
    header, tensors = unpack(whole, "q.vpt")
    header["prompt"]["config"]["count"] = 3
    path.write_bytes(pack(tensors, header))
    with pytest.raises(PromptFileError, match="not those that its header speaks of"):
        load_queries(path, backbone)
    with pytest.raises(PromptFileError, match="cannot be kept"):
        save_queries(path, learn_beforehand(tasks, **FEW)[0], backbone, scores={"a": {1}})


def test_wrong_input_is_refused(world: tuple[vpt.Backbone, dict[str, Seen]]) -> None:
    backbone, tasks = world
    with pytest.raises(DataError, match="examples of 1 classes"):
        see(backbone, colours(24).subset([0, 3, 6]))
    with pytest.raises(TrainingError, match="examples=0"):
        see(backbone, colours(24), most=0)
    with pytest.raises(PromptError, match="Queries cannot read this model"):
        see(open_tiny("CNN"), colours(24))
    with pytest.raises(TrainingError, match="without='nothing'"):
        learn_beforehand(tasks, without=["nothing"])
    with pytest.raises(TrainingError, match="the tasks none"):
        learn_beforehand({})
    with pytest.raises(TrainingError, match="another task to learn from"):
        learn_beforehand({"where": tasks["where"]}, without=["where"])
    with pytest.raises(TrainingError, match="steps=0"):
        learn_beforehand(tasks, steps=0)


def test_queries_that_go_through_are_no_beginning(tmp_path: Path) -> None:
    backbone = open_tiny("timm ViT")
    prompt = vpt.QueryTokens.like(backbone, 2, through=True)
    path = save_queries(tmp_path / "q.vpt", prompt, backbone)
    with pytest.raises(PromptFileError, match="through=True"):
        load_queries(path, backbone)
