"""Pages about groups, from the numbers of a run or of an audit."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from helpers import planted, planted_model

import vpt
from vpt.errors import PromptFileError
from vpt.fairness.audited import audit
from vpt.fairness.page import is_reprogrammed, write_audited, write_reprogrammed
from vpt.fairness.reprogramming import reprogram


def test_a_page_says_what_the_tables_say(tmp_path: Path) -> None:
    data = {name: planted(60, seed) for seed, name in enumerate(("train", "val", "test"))}
    backbone = vpt.load_backbone(planted_model(), classes=("dull", "red"))
    out = tmp_path / "run"
    result = reprogram(
        data, backbone, "border:4", out=out, epochs=1, strengths=[5.0], progress=False
    )
    result.model.close()
    page = (out / "report.html").read_text()
    numbers = json.loads((out / "metrics.json").read_text())
    value = numbers["base"]["test"]["metrics"]["accuracy"]["value"]
    assert f"{100 * value:.1f} %" in page
    assert numbers["verdict"][1:] in page
    assert page.count("data:image/png;base64,") == 4  # border, examples, groups, trade-off
    assert "http" not in page.replace("http-equiv", "").replace("http://www.w3.org/2000/svg", "")
    assert is_reprogrammed(out)
    (out / "border.png").unlink()
    assert write_reprogrammed(out).read_text().count("data:image/png;base64,") == 3


def test_an_audit_has_a_page_and_names_are_no_markup(tmp_path: Path) -> None:
    examples = planted(60, 0)
    backbone = vpt.load_backbone(planted_model(), classes=("dull", "red"))
    found = audit(examples, backbone, progress=False)
    found["per_group"] = {f"<b>{name}": row for name, row in found["per_group"].items()}
    found["cells"] = {
        label: {f"<b>{name}": cell for name, cell in row.items()}
        for label, row in found["cells"].items()
    }
    page = write_audited(tmp_path / "audit.html", found, "a <script>", "faces.csv").read_text()
    assert "<script" not in page
    assert "<b>" not in page.replace("<b>Careful", "")
    assert "Worst served is" in page
    assert "faces.csv" in page


def test_other_folders_are_refused(tmp_path: Path) -> None:
    assert not is_reprogrammed(tmp_path)
    with pytest.raises(PromptFileError, match=r"Found no metrics\.json"):
        write_reprogrammed(tmp_path)
    (tmp_path / "metrics.json").write_text("{")
    assert not is_reprogrammed(tmp_path)
    with pytest.raises(PromptFileError, match="cannot be read"):
        write_reprogrammed(tmp_path)
