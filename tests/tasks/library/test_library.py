"""Many prompts on one model: a mixed batch gives what each task gives alone; files load when used;
wrong names are said.
"""

from __future__ import annotations

import gc
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from families import EXTRA, MODELS, of_each_kind, open_tiny, refusal
from helpers import in_threads
from torch import Tensor, nn

import vpt
from vpt.backbones import count_hooks
from vpt.errors import PromptError, PromptFileError, VptError
from vpt.tasks.library import PromptLibrary, open_library, prompt_files

FORMS = {
    "deep": lambda b: vpt.DeepTokens.like(b, 3),
    "deep, longer, two blocks": lambda b: vpt.DeepTokens.like(b, 5, blocks=[0, b.depth - 1]),
    "prefix": lambda b: vpt.Prefix.like(b, 2),
    "shallow": lambda b: vpt.ShallowTokens.like(b, 2),
    "shallow, longer": lambda b: vpt.ShallowTokens.like(b, 4),
    "border": lambda b: vpt.Border.like(b, 2, init="uniform"),
    "stack": lambda b: vpt.Stack(
        [
            vpt.Border.like(b, 3, init="uniform"),
            vpt.DeepTokens.like(b, 1),
            vpt.DeepTokens.like(b, 2),
        ]
    ),
    "bare": lambda b: None,
}


def drawn(prompt: vpt.Prompt | None, seed: int) -> vpt.Prompt | None:
    if prompt is not None:
        generator = torch.Generator().manual_seed(seed)
        for p in prompt.parameters():
            p.data = torch.randn(p.shape, generator=generator) * 0.5
    return prompt


def linear(backbone: vpt.Backbone, classes: int, seed: int) -> vpt.Linear:
    readout = vpt.Linear(backbone.out_features, classes)
    nn.init.normal_(readout.weight, generator=torch.Generator().manual_seed(seed))
    return readout


def tasks_for(
    name: str, backbone: vpt.Backbone, same: bool = True
) -> dict[str, tuple[vpt.Prompt | None, vpt.Readout]]:
    found = {}
    for seed, (form, make) in enumerate(FORMS.items()):
        words = {
            "stack": ("border, shrink", "deep"),
            "bare": (),
            "border": ("border, shrink",),
        }.get(form, (form.split(",")[0],))
        if not any(refusal(name, word) for word in words):
            found[form] = (
                drawn(make(backbone), seed),
                linear(backbone, 3 if same else 2 + seed, seed),
            )
    return found


def examples(backbone: vpt.Backbone, count: int) -> Any:
    generator = torch.Generator().manual_seed(5)
    x = backbone.inputs.example(count)
    if isinstance(x, tuple):
        return x
    return torch.rand(x.shape, generator=generator)


def part(x: Any, chosen: list[int]) -> Any:
    return tuple(value[chosen] for value in x) if isinstance(x, tuple) else x[chosen]


def alone(backbone: vpt.Backbone, tasks: dict, x: Any) -> dict[str, Tensor]:
    """Each task's scores of all examples, by a model of its own."""
    found = {}
    for name, (prompt, readout) in tasks.items():
        with torch.no_grad():
            model = vpt.PromptedModel(backbone, prompt, readout).eval()
            found[name] = model(x)
            model.attachment.remove()
    return found


@pytest.mark.parametrize("name", of_each_kind([*MODELS, *EXTRA]))
def test_a_mixed_batch_equals_each_task_alone(name: str) -> None:
    backbone = open_tiny(name)
    tasks, hooks = tasks_for(name, backbone), count_hooks(backbone.model)
    x = examples(backbone, 2 * len(tasks))
    needed = alone(backbone, tasks, x)
    library = PromptLibrary(backbone)
    for task, parts in tasks.items():
        library.add(task, *parts)
    order = [*tasks, *reversed(tasks)]
    with torch.no_grad():
        found = library(x, order)
        for i, task in enumerate(order):
            assert torch.allclose(found[i], needed[task][i], rtol=1e-4, atol=1e-5), task
        # never by its batch mates
        for chosen in ([0], [3 % len(order), 1], list(range(len(order)))[::-1]):
            again = library(part(x, chosen), [order[i] for i in chosen])
            assert torch.allclose(again, found[chosen], rtol=1e-4, atol=1e-5)
        for task in tasks:
            with library.use(task):
                assert torch.allclose(library(x), needed[task], rtol=1e-4, atol=1e-5)
    library.close()
    assert count_hooks(backbone.model) == hooks


def test_gradients_of_a_mixed_batch_reach_each_prompt_as_alone() -> None:
    backbone = open_tiny("timm ViT")
    tasks = tasks_for("timm ViT", backbone)
    x, needed = examples(backbone, 2 * len(tasks)), {}
    order = [name for name in tasks for _ in range(2)]
    for i, (name, (prompt, readout)) in enumerate(tasks.items()):
        if prompt is None:
            continue
        model = vpt.PromptedModel(backbone, prompt, readout).eval()
        model(x[2 * i : 2 * i + 2]).square().sum().backward()
        model.attachment.remove()
        needed[name] = [p.grad.clone() for p in prompt.parameters()]
        prompt.zero_grad()
    with PromptLibrary(backbone) as library:
        for name, parts in tasks.items():
            library.add(name, *parts)
        library(x, order).square().sum().backward()
    for name, grads in needed.items():
        for p, grad in zip(tasks[name][0].parameters(), grads, strict=True):
            assert (p.grad - grad).norm() / grad.norm() < 1e-4, name


def test_tasks_with_different_classes_and_readouts() -> None:
    backbone = open_tiny("timm ViT")
    x = examples(backbone, 3)
    readouts = {
        "two": linear(backbone, 2, 0),
        "own": vpt.Identity(),
        "four": linear(backbone, 4, 1),
    }
    with PromptLibrary(backbone) as library, torch.no_grad():
        for name, readout in readouts.items():
            library.add(name, vpt.DeepTokens.like(backbone, 2), readout)
        found = library(x, ["four", "own", "two"])
        assert [len(row) for row in found] == [4, 5, 2]
        assert library(x[:2], ["two", "two"]).shape == (2, 2)


@pytest.fixture
def folder(tmp_path: Path) -> tuple[vpt.Backbone, Path]:
    backbone = open_tiny("timm ViT")
    for i in range(5):
        with vpt.PromptedModel(
            backbone, drawn(vpt.DeepTokens.like(backbone, 2 + i), i), linear(backbone, 3, i)
        ) as model:
            vpt.save(tmp_path / (f"task{i}.vpt" if i else "first/prompt.vpt"), model)
    return backbone, tmp_path


def test_files_are_loaded_when_used_and_only_some_are_kept(
    folder: tuple[vpt.Backbone, Path],
) -> None:
    backbone, path = folder
    x = examples(backbone, 5)
    needed = {}
    for name, file in prompt_files(path).items():
        with vpt.load(file, backbone) as model, torch.no_grad():
            needed[name] = model(x)
    with open_library(path, backbone, keep=2) as library, torch.no_grad():
        assert sorted(library.names) == ["first", "task1", "task2", "task3", "task4"]
        assert len(library) == 5
        assert not library._loaded
        order = ["task1", "first", "task4", "task3", "task2"]
        found = library(x, order)
        assert all(
            torch.allclose(found[i], needed[name][i], rtol=1e-4, atol=1e-5)
            for i, name in enumerate(order)
        )
        assert list(library._loaded) == ["task3", "task2"]
        library(x[:1], ["first"])
        assert list(library._loaded) == ["task2", "first"]


def test_swap_is_quick_and_hooks_nothing_anew() -> None:
    backbone = open_tiny("timm ViT")
    with PromptLibrary(backbone) as library, torch.no_grad():
        for i in range(2):
            library.add(
                str(i), drawn(vpt.DeepTokens.like(backbone, 2 + i), i), linear(backbone, 3, i)
            )
        attachment, hooks, x = (
            library.attachment,
            count_hooks(backbone.model),
            examples(backbone, 2),
        )
        found = []
        start = time.perf_counter()
        for i in range(100):
            library.swap(str(i % 2))
        assert (time.perf_counter() - start) / 100 < 1e-3
        for name in "01":
            library.swap(name)
            found.append(library(x))
        assert not torch.allclose(*found)
        assert library.attachment is attachment
        assert count_hooks(backbone.model) == hooks


def test_a_thousand_files_cost_little_memory(folder: tuple[vpt.Backbone, Path]) -> None:
    from vpt.bench.memory import STATM, _resident

    if not STATM.exists():
        pytest.skip("the system does not tell")
    backbone, path = folder
    library = PromptLibrary(backbone)
    library.add("warm", path / "task1.vpt")
    gc.collect()
    before = _resident()
    for i in range(1000):
        library.add(f"flower {i}", path / f"task{1 + i % 4}.vpt")
    gc.collect()
    assert _resident() - before < 10e6
    library.close()


def test_two_spans_that_meet_and_lists_and_empty_batches() -> None:
    backbone = open_tiny("timm ViT")
    x = examples(backbone, 4)
    tasks = {
        "all": (drawn(vpt.ShallowTokens(4, 32, 3), 1), linear(backbone, 3, 1)),
        "two": (drawn(vpt.ShallowTokens(2, 32, 2), 2), linear(backbone, 3, 2)),
    }
    needed = alone(backbone, tasks, x)
    with PromptLibrary(backbone) as library, torch.no_grad():
        for name, parts in tasks.items():
            library.add(name, *parts)
        bare = backbone.features(x)  # no task in sight
        found = library(x, ["all", "two", "two", "all"])
        for i, name in enumerate(["all", "two", "two", "all"]):
            assert torch.allclose(found[i], needed[name][i], rtol=1e-4, atol=1e-5)
        library.swap("all")
        assert library(x[:0]).shape == (0, 3)
    assert torch.allclose(bare, backbone.features(x), atol=1e-6)
    sound = open_tiny("transformers wav2vec2")
    with PromptLibrary(sound) as library, torch.no_grad():
        library.add("a", vpt.DeepTokens.like(sound, 2), linear(sound, 3, 0))
        library.swap("a")
        waves, lengths = sound.inputs.example(4)
        assert torch.equal(library([waves, lengths]), library((waves, lengths)))
        assert library([waves, lengths]).shape == (4, 3)


def test_loading_in_inference_mode_leaves_a_task_that_learns_outside(
    folder: tuple[vpt.Backbone, Path],
) -> None:
    backbone, path = folder
    with open_library(path, backbone) as library:
        with torch.inference_mode():
            library(examples(backbone, 1), ["task1"])
        library(examples(backbone, 1), ["task1"]).sum().backward()
        backbone.model.set_grad_checkpointing(True)
        with pytest.raises(PromptError, match="activation checkpointing"):
            library(examples(backbone, 1), ["task1"])
        backbone.model.set_grad_checkpointing(False)


def test_a_use_is_of_its_own_thread() -> None:
    backbone = open_tiny("timm ViT")
    with PromptLibrary(backbone) as library:
        for name in "ab":
            library.add(name, None, linear(backbone, 2, 0))
        library.swap("a")
        seen: list[str | None] = []
        with library.use("b"):
            in_threads(lambda _: seen.append(library.current), 1)
            assert library.current == "b"
        assert (seen, library.current) == (["a"], "a")


def test_a_prompt_made_from_its_input_is_refused_and_two_files_of_one_name(
    folder: tuple[vpt.Backbone, Path],
) -> None:
    class Looking(vpt.Prompt):
        def sites(self) -> tuple[vpt.sites.Tokens, ...]:
            return (vpt.sites.Tokens(0, 0, 1, lambda x: x[:, :1]),)

    backbone, path = folder
    with (
        PromptLibrary(backbone) as library,
        pytest.raises(PromptError, match="made from its input"),
    ):
        library.add("looking", Looking(), vpt.Identity())
    with pytest.raises(PromptFileError, match="Found no prompt files"):
        open_library(path / "first" / "nothing", backbone)
    assert backbone.attachment is None
    (path / "first.vpt").write_bytes((path / "task1.vpt").read_bytes())
    with pytest.raises(PromptFileError, match="two prompts called 'first'"):
        open_library(path, backbone)


def test_threads_share_a_library() -> None:
    backbone = open_tiny("timm ViT")
    x = examples(backbone, 4)
    library, wrong = PromptLibrary(backbone), []
    for i in range(3):
        library.add(str(i), drawn(vpt.DeepTokens.like(backbone, 2 + i), i), linear(backbone, 3, i))
    with torch.no_grad():
        needed = {name: library(x, [name] * 4) for name in "012"}

        def work(i: int) -> None:
            for turn in range(15):
                name = str((i + turn) % 3)
                with torch.no_grad():
                    if not torch.allclose(library(x, [name] * 4), needed[name], atol=1e-5):
                        wrong.append(name)

        in_threads(work)
    assert wrong == []
    library.close()


def test_what_is_wrong_is_said(folder: tuple[vpt.Backbone, Path]) -> None:
    backbone, path = folder
    x, prompt, readout = (
        examples(backbone, 2),
        vpt.DeepTokens.like(backbone, 2),
        linear(backbone, 2, 0),
    )
    with PromptLibrary(backbone) as library:
        with pytest.raises(PromptError, match="It is empty"):
            library(x, ["roses", "roses"])
        library.add("flowers", prompt, readout)
        for act, message in (
            (lambda: library(x), "No task was chosen"),
            (
                lambda: library(x, ["flowers"]),
                "for 2 samples; needed is a list of one name per sample",
            ),
            (lambda: library(x, "flowers"), "one name per sample"),
            (lambda: library(x, ["flower", "flowers"]), r"no task 'flower'\. Near: flowers"),
            (lambda: library.swap("birds"), "no task 'birds'"),
            (lambda: library.remove("birds"), "no task 'birds'"),
            (lambda: library.add("flowers", prompt, readout), "has a task 'flowers' already"),
            (lambda: library.add("a", path / "task1.vpt", readout), "holds its own readout"),
            (lambda: library.add("a", prompt, None), "needed are a prompt and a readout"),
            (lambda: library.add("a", vpt.DeepTokens(2, [64], [0]), readout), "width 32"),
            (lambda: PromptLibrary(backbone, keep=0), "keep=0"),
            (lambda: PromptLibrary(backbone), "already has a prompt attached"),
        ):
            with pytest.raises(PromptError, match=message):
                act()
        assert library.names == ["flowers"]
        assert library(x, ["flowers"] * 2).shape == (2, 2)  # still at work
        library.remove("flowers")
        assert "flowers" not in library
    with pytest.raises(PromptError, match="was closed"):
        library.add("flowers", prompt, readout) or library(x, ["flowers"] * 2)
    other = open_tiny("timm ViT", seed=9)
    with pytest.raises(
        PromptFileError, match=r"5 prompt files do not fit.*made for another backbone"
    ):
        open_library(path, other)
    assert other.attachment is None
    with pytest.raises(PromptFileError, match="Found no prompt files"):
        prompt_files(path / "first" / "nothing")


def test_a_file_that_is_gone_or_altered_when_it_is_used(folder: tuple[vpt.Backbone, Path]) -> None:
    backbone, path = folder
    with open_library(path, backbone) as library, torch.no_grad():
        (path / "task1.vpt").unlink()
        (path / "task2.vpt").write_bytes(b"rubbish")
        for name in ("task1", "task2"):
            with pytest.raises(PromptFileError, match=r"there is nothing|not a sound"):
                library(examples(backbone, 1), [name])
        assert library(examples(backbone, 1), ["task3"]).shape == (1, 3)


def reader(
    backbone: vpt.Backbone, seed: int, of: str = "queries", count: int = 2, **how: Any
) -> tuple[vpt.Prompt | None, vpt.Linear]:
    """A task that only reads."""
    prompt = None
    if "queries" in of:
        prompt = drawn(vpt.QueryTokens.like(backbone, count, **how), seed)
    width = vpt.readouts.named.Named(of).width(backbone, prompt.reads if prompt else 0)
    readout = vpt.Linear(width, 2 + seed % 3, of)
    nn.init.normal_(readout.weight, generator=torch.Generator().manual_seed(seed))
    return prompt, readout


def readers(backbone: vpt.Backbone) -> dict[str, tuple[vpt.Prompt | None, vpt.Readout]]:
    found: dict[str, tuple[vpt.Prompt | None, vpt.Readout]] = {
        "queries": reader(backbone, 0),
        "more of them, elsewhere": reader(backbone, 1, count=5, blocks=[0, backbone.depth - 1]),
        "a last block": reader(backbone, 2, "blocks:1"),
        "blocks and queries": reader(backbone, 3, "blocks+queries+cls", 1),
    }
    if not any("Swin" in type(block.module).__name__ for block in backbone.blocks):
        found["through"] = reader(backbone, 4, through=True)
    one, two = reader(backbone, 5), reader(backbone, 6)
    found |= {"shared": one, "shared, too": (one[0], two[1])}
    found["both kinds"] = (
        one[0],
        vpt.Average([reader(backbone, 0)[1], reader(backbone, 0, "mean")[1]]),
    )
    return found


@pytest.mark.parametrize("name", of_each_kind(n for n in MODELS if not refusal(n, "prefix")))
def test_one_forward_answers_all_that_only_read(name: str) -> None:
    backbone = open_tiny(name)
    tasks = readers(backbone) | {"bare": (None, linear(backbone, 3, 7))}
    x = examples(backbone, 4)
    needed = alone(backbone, tasks, x)
    with PromptLibrary(backbone) as library:
        for task, parts in tasks.items():
            library.add(task, *parts)
        order = [list(tasks)[i % len(tasks)] for i in (0, 3, 5, 1)]
        forwards: list[object] = []
        count = backbone.blocks[0].module.register_forward_hook(lambda *_: forwards.append(_))
        with torch.no_grad():
            found = library.all(x)
            count.remove()
            assert list(found) == list(tasks)
            assert len(forwards) == 1
            for task, scores in needed.items():
                assert torch.allclose(found[task], scores, rtol=1e-5, atol=1e-5), task
            for i, row in enumerate(library(x, order)):
                assert torch.allclose(row, needed[order[i]][i], rtol=1e-4, atol=1e-5)


def test_all_runs_what_acts_on_the_model_by_itself() -> None:
    backbone = open_tiny("timm ViT")
    deep = drawn(vpt.DeepTokens.like(backbone, 2), 1)
    read, readout = reader(backbone, 2)
    tasks = tasks_for("timm ViT", backbone) | readers(backbone)
    tasks["deep, and queries"] = (vpt.Stack([deep, read]), readout)
    x = examples(backbone, 3)
    needed = alone(backbone, tasks, x)
    with PromptLibrary(backbone) as library, torch.no_grad():
        assert library.all(x) == {}
        for task, parts in tasks.items():
            library.add(task, *parts)
        found = library.all(x)
        for task, scores in needed.items():
            assert torch.allclose(found[task], scores, rtol=1e-4, atol=1e-5), task
        # and mixed with each other
        order = ["deep, and queries", "prefix", "queries"]
        for i, row in enumerate(library(x, order)):
            assert torch.allclose(row, needed[order[i]][i], rtol=1e-4, atol=1e-5)
        assert {task: tuple(rows.shape) for task, rows in library.all(x[:0]).items()} == {
            task: (0, rows.shape[1]) for task, rows in needed.items()
        }


def test_queries_are_read_from_files(tmp_path: Path) -> None:
    backbone = open_tiny("timm ViT")
    tasks = {name: parts for name, parts in readers(backbone).items() if "shared" not in name}
    x = examples(backbone, 3)
    needed = alone(backbone, tasks, x)
    for name, parts in tasks.items():
        vpt.save(tmp_path / f"{name}.vpt", vpt.PromptedModel(backbone, *parts))
    with open_library(tmp_path, backbone, keep=2) as library, torch.no_grad():
        found = library.all(x)
        for task, scores in needed.items():
            assert torch.allclose(found[task], scores, rtol=1e-5, atol=1e-5), task


def test_what_looks_at_the_model_itself_is_refused() -> None:
    class Watcher(vpt.Prompt):
        def sites(self) -> tuple[vpt.sites.Site, ...]:
            return (vpt.sites.Observe(0, tokens=lambda x: None),)

    backbone = open_tiny("timm ViT")
    with PromptLibrary(backbone) as library:
        with pytest.raises(PromptError, match="looks at the model's own tokens"):
            library.add("a", Watcher(), linear(backbone, 2, 0))
        with pytest.raises(PromptError, match="nothing reads them"):
            library.add("b", vpt.QueryTokens.like(backbone, 2), linear(backbone, 2, 0))


@pytest.mark.parametrize("name", of_each_kind([*MODELS, *EXTRA]))
def test_several_tasks_of_a_sample_are_as_each_alone(name: str) -> None:
    backbone = open_tiny(name)
    tasks = tasks_for(name, backbone, same=False)
    try:
        vpt.QueryTokens.like(backbone, 2)
        tasks |= {"reads": reader(backbone, 1), "reads more": reader(backbone, 2, "cls+queries")}
    except VptError:  # a model that no query reads
        pass
    names, x = list(tasks), examples(backbone, 4)
    needed = alone(backbone, tasks, x)
    wanted = [names, names[:1], names[::-2], [names[-1], names[0], names[-1]]]
    seen: list[int] = []
    run = backbone.run

    def counted(raw: Any, *args: object) -> Any:
        seen.append(len(raw[0] if isinstance(raw, tuple) else raw))
        return run(raw, *args)

    with PromptLibrary(backbone) as library, torch.no_grad():
        for task, parts in tasks.items():
            library.add(task, *parts)
        library.backbone.run = counted
        try:
            found = library.each(x, wanted)
        finally:
            del library.backbone.run
        acts = {task for task in names if library.task(task).acts}
    for i, (own, scores) in enumerate(zip(wanted, found, strict=True)):
        assert list(scores) == list(dict.fromkeys(own))
        for task, values in scores.items():
            assert torch.allclose(values, needed[task][i], rtol=1e-4, atol=1e-5), task
    if len(seen) == 1:  # what reads of a sample has one place in the batch
        assert sum(seen) == sum(len(acts & set(own)) + bool(set(own) - acts) for own in wanted)


def test_several_tasks_that_are_named_wrongly() -> None:
    backbone = open_tiny("timm ViT")
    x = examples(backbone, 2)
    with PromptLibrary(backbone) as library:
        library.add("one", None, linear(backbone, 3, 0))
        for wrong in ([["one"]], ["one", "one"], [["one"], []]):
            with pytest.raises(PromptError, match="needed is a list of names each"):
                library.each(x, wrong)
        with pytest.raises(PromptError, match="no task 'two'"):
            library.each(x, [["one"], ["one", "two"]])
        assert library.each(x[:0], []) == []


def test_all_of_several_that_read_where_one_carries_tokens(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where attention cannot be told who has what, tasks that read still share a forward."""
    monkeypatch.setattr("vpt.tasks.library.mixing._reachable", lambda *args: False)
    backbone = open_tiny("timm ViT")
    tasks = {
        "deep": (drawn(vpt.DeepTokens.like(backbone, 3), 1), linear(backbone, 3, 1)),
        "one": (None, linear(backbone, 3, 2)),
        "two": (None, linear(backbone, 3, 3)),
    }
    x = examples(backbone, 5)
    needed = alone(backbone, tasks, x)
    with PromptLibrary(backbone) as library, torch.no_grad():
        for name, parts in tasks.items():
            library.add(name, *parts)
        found, each = library.all(x), library.each(x, [list(tasks)] * 5)
    for name, scores in needed.items():
        assert torch.allclose(found[name], scores, atol=1e-5)
        assert torch.allclose(torch.stack([one[name] for one in each]), scores, atol=1e-5)
