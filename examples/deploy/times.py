"""An exported prompt beside the exported bare model in onnxruntime, side by side in one run.

python examples/deploy/times.py MODEL --prompt queries:4@6,9,11
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path

import numpy as np
import onnxruntime

import vpt
from vpt.readouts.named import Named

CLASSES = [str(c) for c in range(10)]


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("backbone")
    parser.add_argument("--prompt", default="queries:4")
    parser.add_argument("--batches", type=int, nargs="+", default=[1, 8])
    parser.add_argument("--repeats", type=int, default=10)
    options = parser.parse_args(argv)
    backbone = vpt.load_backbone(options.backbone)
    prompt = vpt.prompts.parse(options.prompt, backbone)
    of = "cls+queries" if prompt.reads else "cls"
    kinds = {"bare": (None, "cls", 0), "prompted": (prompt, of, prompt.reads)}
    with tempfile.TemporaryDirectory() as folder:
        sessions = {}
        for name, (acts, features, reads) in kinds.items():
            readout = vpt.Linear(Named(features).width(backbone, reads), CLASSES, features)
            with vpt.PromptedModel(backbone, acts, readout) as model:
                found = vpt.export(model.eval(), Path(folder) / f"{name}.onnx")
            sessions[name] = onnxruntime.InferenceSession(
                str(found.path), providers=["CPUExecutionProvider"]
            )
        for batch in options.batches:
            x = {"x": backbone.inputs.example(batch).numpy()}
            times: dict[str, list[float]] = {name: [] for name in sessions}
            for _ in range(options.repeats + 1):  # the first one warms up
                for name, session in sessions.items():
                    began = time.perf_counter()
                    session.run(None, x)
                    times[name].append(time.perf_counter() - began)
            ratio = np.median(np.array(times["prompted"][1:]) / np.array(times["bare"][1:]))
            bare = np.median(times["bare"][1:])
            print(f"batch {batch}: bare {1000 * bare:.0f} ms, prompted {ratio:.2f} times as long")


if __name__ == "__main__":
    main()
