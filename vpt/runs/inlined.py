"""Pictures and costs of a run, as its page shows them."""

from __future__ import annotations

import base64
from pathlib import Path

from vpt.report.progress import span
from vpt.sites import Config

TITLES = {
    "why-*.png": "Why it answered so: orange speaks for the answer, blue against it",
    "crops.png": "The places whose tokens are the queries",
    "border.png": "The border that was learned",
    "patch.png": "The patch that was learned",
    "full.png": "The pattern that was learned",
    "reprogrammed.png": "Examples as they came, and as the model sees them",
    "groups.png": "How often each group is right, before and after",
    "frontier.png": "What fairness costs in accuracy, at each strength",
}
LARGEST = 2_000_000  # bytes of a picture on the page


def pictures_in(folder: Path) -> list[Config]:
    """The pictures of a run's folder, with what they show."""
    found = []
    for pattern, title in TITLES.items():
        for path in sorted(folder.glob(pattern)):
            if path.stat().st_size <= LARGEST:
                text = base64.b64encode(path.read_bytes()).decode()
                found.append({"title": title, "source": f"data:image/png;base64,{text}"})
                title = ""  # said once
    return found


def cost_of(cost: Config | None) -> Config | None:
    """What a run took, beside its alternatives."""
    if cost is None:
        return None
    own = {"method": "this run", "seconds": cost["seconds"]}
    own |= {name: cost[name] for name in ("parameters", "bytes")}
    rows = [
        {
            "method": _named(one),
            "parameters": f"{one['parameters']:,}",
            "bytes": _size(one["bytes"]),
            "seconds": span(one["seconds"]),
            "operations": _power(one.get("operations")),
            "energy": _energy(one["seconds"], cost),
            "strong": one is own,
        }
        for one in [own, *cost["others"]]
    ]
    times = cost["bytes_of_the_model"] / max(1, cost["bytes"])
    said = (
        f"A copy of the model for each task would be {_size(cost['bytes_of_the_model'])}:"
        f" {times:,.0f} times what was learned."
    )
    clock = "CPU time" if cost["device"] == "cpu" else f"time ({cost['device']})"
    watts = f"{cost['watts_of_a_core']:g}"
    return {"rows": rows, "said": said, "watts": watts, "clock": clock}


def _named(one: Config) -> str:
    return f"{one['method']}, {one['epochs']} epochs" if one.get("epochs", 1) > 1 else one["method"]


def _size(count: int) -> str:
    for unit, size in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if count >= size:
            return f"{count / size:.3g} {unit}"
    return f"{count} bytes"


def _power(operations: int | None) -> str:
    return "" if operations is None else f"{operations / 1e12:,.3g}"


def _energy(seconds: float, cost: Config) -> str:
    if cost["device"] != "cpu":
        return ""
    return f"{seconds * cost['watts_of_a_core'] / 3600:.2g}"
