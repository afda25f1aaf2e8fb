"""A store gives what the model gives, runs it over nothing twice, and is refused where it is of
another model, another preparation, or damaged.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from families import open_tiny
from helpers import colours, pictures, planted_model, table, write_images

import vpt
from vpt.data import read_parts
from vpt.data.joining import appended
from vpt.errors import StoreError, TrainingError
from vpt.runs.kept import keep
from vpt.runs.store import FACTS, Store
from vpt.runs.stored import SHARD, stored

SAME = {"rtol": 1e-4, "atol": 1e-4}
HALF = {"rtol": 5e-3, "atol": 5e-3}


def forwards(monkeypatch: pytest.MonkeyPatch, backbone: vpt.Backbone) -> list[int]:
    """How many inputs each batch had that the model ran over, from now on."""
    seen: list[int] = []
    run = backbone.run

    def counted(x: object, *args: object, **options: object) -> object:
        seen.append(len(x[0] if isinstance(x, (tuple, list)) else x))
        return run(x, *args, **options)

    monkeypatch.setattr(backbone, "run", counted, raising=False)
    return seen


@pytest.mark.parametrize("name", ["timm ViT", "timm Swin", "transformers ViT"])
def test_what_is_stored_is_what_the_model_gives(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    backbone = open_tiny(name)
    examples = colours(40, size=backbone.inputs.size[0])
    prompt = vpt.QueryTokens.like(backbone, 4)
    live = keep(backbone, examples, blocks=prompt.blocks, prompt=prompt, logits=True)
    with stored(tmp_path / "s", backbone):
        keep(backbone, examples.subset(range(7, 30)))  # some are there before, in another order
        keep(backbone, examples.subset([39, 3, 12]))
        keep(backbone, examples)
        seen = forwards(monkeypatch, backbone)
        found = keep(backbone, examples, blocks=prompt.blocks, prompt=prompt, logits=True)
        assert sum(seen) <= 4  # the first alone, and what attaching tries out
    torch.testing.assert_close(found.features, live.features, **SAME)
    for place, sums in live.sums.items():
        torch.testing.assert_close(found.sums[place], sums, **SAME)
    torch.testing.assert_close(found.read, live.read, **HALF)
    torch.testing.assert_close(found.with_read(prompt).read, live.read, **HALF)
    if live.logits is not None:
        torch.testing.assert_close(found.logits, live.logits, **SAME)
    assert torch.equal(found.y, live.y)


def test_windows_and_files_of_sound(tmp_path: Path) -> None:
    backbone = open_tiny("transformers AST base")
    rate, heard = backbone.inputs.sample_rate, backbone.inputs.samples
    draw = np.random.default_rng(0)
    for i in range(6):
        path = tmp_path / "data" / "ab"[i % 2] / f"{i}.wav"
        path.parent.mkdir(parents=True, exist_ok=True)
        soundfile.write(path, 0.1 * draw.standard_normal(heard * (1 + i % 3)), rate)
    examples = read_parts(tmp_path / "data", backbone.inputs, "train", progress=False)
    live = keep(backbone, examples)
    with stored(tmp_path / "s", backbone):
        keep(backbone, examples)
    again = read_parts(tmp_path / "data", backbone.inputs, "train", progress=False)
    with stored(tmp_path / "s", backbone) as store:
        before = len(store)
        found = keep(backbone, again)
        assert len(store) == before == len(live.clips)
    torch.testing.assert_close(found.features, live.features, **SAME)
    assert torch.equal(found.clips, live.clips)


def test_parts_that_are_put_together_are_known_by_their_files(tmp_path: Path) -> None:
    backbone = open_tiny("timm ViT")
    data = write_images(tmp_path / "photos/train", per_class=6).parent
    pictures(data / "val", colours(12, 1, size=40))
    parts = [read_parts(data, backbone.inputs, name) for name in ("train", "val")]
    with stored(tmp_path / "s", backbone) as store:
        for part in parts:
            keep(backbone, part)
        before = len(store)
        keep(backbone, appended(*parts))
        assert len(store) == before == sum(map(len, parts))


def test_a_run_with_a_store_is_the_run_without(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = write_images(tmp_path / "photos", per_class=12)
    bare = vpt.adapt(data, "vpt:vit-p8-64", progress=False)
    built = vpt.features(data, tmp_path / "s", "vpt:vit-p8-64", progress=False)
    assert built.inputs == built.new > 0
    assert built.bytes > 0
    backbone = vpt.load_backbone("vpt:vit-p8-64")
    seen = forwards(monkeypatch, backbone)
    read: list[Path] = []
    opened = vpt.data.readers.open_image
    monkeypatch.setattr(
        vpt.data.readers, "open_image", lambda path: read.append(path) or opened(path)
    )
    found = vpt.adapt(data, backbone, store=tmp_path / "s", progress=False)
    assert sum(seen) < 30
    assert len(set(read)) < built.inputs  # nor is every picture decoded
    assert found.metrics["chosen"]["name"] == bare.metrics["chosen"]["name"]
    for part, own in bare.metrics["parts"].items():
        for method, scored in own["methods"].items():
            other = found.metrics["parts"][part]["methods"][method]
            assert other["accuracy"] == pytest.approx(scored["accuracy"], abs=0.05)
            assert other["loss"] == pytest.approx(scored["loss"], abs=0.02)
    found.model.close()
    seen.clear()
    same = vpt.adapt(data, backbone, store=tmp_path / "s", progress=False)
    assert sum(seen) < 8  # nor are queries begun anew
    assert same.metrics["parts"] == found.metrics["parts"]
    again = vpt.features(data, tmp_path / "s", "vpt:vit-p8-64", progress=False)
    assert (again.new, again.inputs) == (0, built.inputs)


def test_new_pictures_are_added_and_bad_ones_are_still_found(tmp_path: Path) -> None:
    data = write_images(tmp_path / "photos", per_class=8)
    vpt.features(data, tmp_path / "s", "vpt:vit-p8-64", progress=False)
    first = next(iter(sorted(data.glob("*/*.png"))))
    first.with_name("new.png").write_bytes(first.read_bytes()[:200])
    with pytest.raises(vpt.errors.BadFilesError, match=r"new\.png"):
        vpt.adapt(data, "vpt:vit-p8-64", store=tmp_path / "s", progress=False)
    with pytest.raises(vpt.errors.BadFilesError, match=r"new\.png"):
        vpt.features(data, tmp_path / "s", "vpt:vit-p8-64", progress=False)
    built = vpt.features(data, tmp_path / "s", "vpt:vit-p8-64", skip_bad=True, progress=False)
    assert built.new == 0


def test_an_audit_takes_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = table(tmp_path / "data")
    backbone = vpt.load_backbone(planted_model(), classes=("dull", "red"))
    how = {"label": "look", "group": "sky", "progress": False}
    bare = vpt.audit(data, backbone, **how)
    first = forwards(monkeypatch, backbone)
    vpt.audit(data, backbone, store=tmp_path / "s", **how)
    count, _ = sum(first), first.clear()
    found = vpt.audit(data, backbone, store=tmp_path / "s", **how)
    assert sum(first) < count / 2
    assert found["metrics"] == bare["metrics"]
    assert found["remedies"]["verdict"] == bare["remedies"]["verdict"]


def test_another_model_or_preparation_is_refused(tmp_path: Path) -> None:
    backbone = open_tiny("timm ViT")
    with stored(tmp_path / "s", backbone):
        keep(backbone, colours(12))
    with pytest.raises(StoreError, match="another model or preparation: fingerprint"):
        Store.open(tmp_path / "s", open_tiny("timm ViT", seed=1))
    facts = json.loads((tmp_path / "s" / FACTS).read_text())
    facts["preparation"]["mean"] = [0.1, 0.2, 0.3]
    (tmp_path / "s" / FACTS).write_text(json.dumps(facts))
    with pytest.raises(StoreError, match="preparation is"), stored(tmp_path / "s", backbone):
        pass


def test_features_that_the_model_does_not_give_are_refused(tmp_path: Path) -> None:
    backbone = open_tiny("timm ViT")
    examples = colours(6)
    with stored(tmp_path / "s", backbone):
        keep(backbone, examples)
    shard = next((tmp_path / "s").glob("*.safetensors"))
    from safetensors import safe_open
    from safetensors.torch import save_file

    with safe_open(shard, framework="pt") as file:
        marks, tensors = file.metadata(), {n: file.get_tensor(n).clone() for n in list(file.keys())}
    tensors["features"] += 1
    save_file(tensors, shard, marks)
    with (
        stored(tmp_path / "s", backbone),
        pytest.raises(StoreError, match=r"other features of .* than this model gives"),
    ):
        keep(backbone, examples)


def test_a_store_that_was_cut_short_says_which_file(tmp_path: Path) -> None:
    backbone = open_tiny("timm ViT")
    with stored(tmp_path / "s", backbone):
        keep(backbone, colours(6))
        keep(backbone, colours(12, seed=1))
    shards = sorted((tmp_path / "s").glob("*.safetensors"))
    whole = shards[0].read_bytes()
    for cut in (whole[: len(whole) // 2], whole[:4], b""):
        shards[0].write_bytes(cut)
        with pytest.raises(StoreError, match="cut short") as raised:
            Store.open(tmp_path / "s", backbone)
        assert shards[0].name in str(raised.value)
    shards[0].unlink()  # as it says
    with stored(tmp_path / "s", backbone) as store:
        assert 0 < len(store) <= 12
        keep(backbone, colours(6))


def test_a_shard_of_another_store_is_refused(tmp_path: Path) -> None:
    for name in ("timm ViT", "transformers ViT"):
        backbone = open_tiny(name)
        with stored(tmp_path / name, backbone):
            keep(backbone, colours(6, size=backbone.inputs.size[0]))
    shard = next((tmp_path / "timm ViT").glob("*.safetensors"))
    shutil.copy(shard, tmp_path / "transformers ViT" / "99.safetensors")
    with pytest.raises(StoreError, match="of another model than"):
        Store.open(tmp_path / "transformers ViT", backbone)


def test_a_folder_of_something_else_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("x")
    (tmp_path / "file").write_text("x")
    backbone = open_tiny("timm ViT")
    for name in ("mine", "file"):
        with pytest.raises(StoreError, match="no feature store"):
            Store.open(tmp_path / name, backbone)
    (tmp_path / "odd").mkdir()
    for said in ("{}", "no json", '{"format": "vpt-features", "blocks": 3}'):
        (tmp_path / "odd" / FACTS).write_text(said)
        with pytest.raises(StoreError, match="not that of a feature store"):
            Store.open(tmp_path / "odd", backbone)


def test_without_room_nothing_is_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    backbone = open_tiny("timm ViT")
    usage = shutil.disk_usage(tmp_path)._replace(free=10)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage)
    with stored(tmp_path / "s", backbone), pytest.raises(StoreError, match="no room"):
        keep(backbone, colours(6))
    assert not list((tmp_path / "s").glob("*.safetensors"))


def test_more_inputs_than_a_shard_holds(tmp_path: Path) -> None:
    backbone = open_tiny("timm ViT")
    examples = colours(SHARD + 9)
    with stored(tmp_path / "s", backbone, queries=False):
        found = keep(backbone, examples)
    assert len(list((tmp_path / "s").glob("*.safetensors"))) == 2
    torch.testing.assert_close(found.features, keep(backbone, examples).features, **SAME)


def test_what_a_store_has_not_is_computed(tmp_path: Path) -> None:
    backbone = open_tiny("timm ViT")
    prompt = vpt.DeepTokens.like(backbone, 2)
    with stored(tmp_path / "s", backbone, queries=False) as store:
        found = keep(backbone, colours(6), blocks=[0])  # it has no keys and values
        assert len(found.memories[0].keys) == 6
        keep(backbone, colours(6), prompt=prompt)  # which changes what the blocks make
        assert len(store) == 0


def test_a_trained_prompt_has_no_use_for_one(tmp_path: Path) -> None:
    data = write_images(tmp_path / "photos", per_class=6)
    with pytest.raises(TrainingError, match="with store"):
        vpt.adapt(data, "vpt:vit-p8-64", "deep:1", store=tmp_path / "s", progress=False)
