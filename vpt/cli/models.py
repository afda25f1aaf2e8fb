"""Commands about models: which there are, and what prompts cost on them."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Annotated

import typer
from rich.table import Column, Table

from vpt.cli.options import Dtype, Weights
from vpt.cli.terminal import console
from vpt.report.progress import clean


def backbones() -> None:
    """List the bundled backbones, and what else can be opened."""
    from vpt.backbones import bundled

    table = Table(Column("name", no_wrap=True), "what", "classes", "size", "licence")
    for name, about in bundled().items():
        table.add_row(
            name,
            about["summary"],
            str(about["classes"]),
            f"{about['bytes'] / 1e6:.1f} MB",
            about["licence"],
        )
    console.print(table)
    for name, about in bundled().items():
        console.print(
            f"{name}, its card: {about['card']}", soft_wrap=True, highlight=False, markup=False
        )
    console.print(
        "Others by name: timm (vit_base_patch16_224.augreg_in21k, swin_tiny_patch4_window7_224, …),"
        " Hugging Face ids (ViT, DINOv2 and v3, CLIP, SigLIP, BEiT, Swin, AST, wav2vec2, HuBERT,"
        " Whisper, …), or a local folder."
    )


def bench(
    out: Annotated[Path, typer.Option(help="where bench.json and bench.png go")] = Path(
        "vpt-bench"
    ),
    backbone: Annotated[
        str, typer.Option(help="a bundled, timm or Hugging Face name, or a local folder")
    ] = "vpt:vit-p8-64",
    weights: Weights = "pretrained",
    tokens: Annotated[
        list[int] | None, typer.Option(help="prompt lengths (10, 50 and 100)")
    ] = None,
    batch_size: Annotated[int, typer.Option(min=1)] = 8,
    repeats: Annotated[int, typer.Option(min=1, help="rounds; in each, everything once")] = 10,
    images: Annotated[
        int, typer.Option(min=0, help="examples of an epoch with a late prompt; 0 leaves it out")
    ] = 300,
    precision: Annotated[str, typer.Option(help="no (fp32) or bf16 (autocast)")] = "no",
    dtype: Dtype = None,
    compiled: Annotated[bool, typer.Option("--compile", help="with torch.compile")] = False,
    device: Annotated[str, typer.Option(help="cpu or cuda")] = "cpu",
    memory: Annotated[bool, typer.Option(help="peak memory too, in fresh processes")] = True,
) -> None:
    """Time prompts against a plain forward, LoRA and full fine-tuning on this machine.

    All are timed side by side; LoRA needs peft installed.
    """
    from vpt.bench.bench import bench as run_bench
    from vpt.bench.steps import Setting
    from vpt.bench.tables import bench_tables

    start = time.monotonic()
    setting = Setting(
        backbone,
        weights,
        dtype,
        precision,
        compiled,
        device,
        batch_size,
        tuple(tokens or (10, 50, 100)),
    )
    for table in bench_tables(
        run_bench(setting, repeats=repeats, images=images, memory=memory, out=out)
    ):
        console.print(table)
    console.print(
        f"Numbers and a picture are in [bold]{clean(out)}[/] ({time.monotonic() - start:.0f} s)."
    )
