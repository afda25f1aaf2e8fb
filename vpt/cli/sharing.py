"""The command that gives a run to others."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from vpt.cli.options import AsJson, Run
from vpt.cli.terminal import console, dim, print_json
from vpt.report.progress import clean


def push(
    run: Run,
    repo: Annotated[str, typer.Argument(help="where to, on the Hugging Face hub: user/name")],
    card: Annotated[
        Path | None,
        typer.Option(help="write the card to this file to look at, and send nothing"),
    ] = None,
    private: Annotated[bool, typer.Option("--private", help="only you see it")] = False,
    licence: Annotated[
        str | None, typer.Option(help="of the prompt, as the hub calls it: apache-2.0, …")
    ] = None,
    message: Annotated[str, typer.Option(help="of the commit")] = "Upload a prompt with vpt",
    as_json: AsJson = False,
) -> None:
    """Send a run's prompt file, with a card that says what it is worth, to the Hugging Face hub.

    Log in first: hf auth login, or HF_TOKEN.
    """
    from vpt.deploy.pushing import push as run_push
    from vpt.deploy.pushing import to_send
    from vpt.files import write_atomically

    if card is not None:
        if card.exists():
            raise typer.BadParameter(f"{card} is there already; name a new file for the card")
        data, text = to_send(run, repo, licence)
        write_atomically(card, text.encode())
        if as_json:
            print_json({"card": str(card), "bytes": len(data)})
        else:
            console.print(f"[bold]{clean(card)}[/] is the card. Nothing was sent.", highlight=False)
        return
    found = run_push(run, repo, private=private, message=message, licence=licence)
    if as_json:
        print_json({"place": found.place, "url": found.url, "bytes": found.bytes})
        return
    console.print(f"[bold]{clean(found.place)}[/] ({found.bytes:,} bytes)", highlight=False)
    dim(f"Its page: {found.url}")
    dim(f"Anybody uses it so: vpt predict {found.place} FILE")
