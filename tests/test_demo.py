"""The demonstration, on a tiny budget."""

from __future__ import annotations

from pathlib import Path

import pytest

import vpt
from vpt import demo as module


def test_split_is_disjoint_and_stratified() -> None:
    data = module.digits(vpt.load_backbone("vpt:vit-p8-64"), seed=1)
    assert (len(data.train), len(data.val), len(data.test)) == (240, 60, 500)
    assert sorted(data.train.targets) == [d for d in range(10) for _ in range(24)]
    parts = [set(part.indices) for part in (data.train, data.val, data.test)]
    assert len(parts[0] | parts[1] | parts[2]) == 800
    x, y = data.test[0]
    assert x.shape == (3, 64, 64)
    assert 0 <= float(x.min()) < float(x.max()) <= 1
    assert 0 <= y < 10


def test_rows_and_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = module.digits

    def few(backbone, seed):
        data = real(backbone, seed)
        data.train, data.val, data.test = (
            data.train.subset(range(0, 240, 6)),
            data.val.subset(range(0, 60, 3)),
            data.test.subset(range(30)),
        )
        return data

    monkeypatch.setattr(module, "digits", few)
    monkeypatch.setattr(module, "FORMS", {name: (prompt, {"epochs": 1}) for name, (prompt, _) in module.FORMS.items()})
    rows = module.demo(tmp_path, seeds=2, progress=False)
    assert [row.name.split(" (")[0] for row in rows] == ["nearest mean", "linear probe", "deep tokens", "border"]
    assert all(len(row.accuracies) == 2 and "±" in row.text() for row in rows)
    assert (tmp_path / "border-seed1" / "reprogrammed.png").exists()
    assert rows[1].parameters == 1930
