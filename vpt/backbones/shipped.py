"""The files that ship with the package, each checked against the SHA-256 recorded for it.

A new one is recorded by `cd assets && sha256sum */*.json */*.safetensors *.zip > SHA256SUMS`.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

from vpt.errors import BundledFileError
from vpt.sites import Config

SUMS = "SHA256SUMS"
# of an installed wheel; in a checkout they lie beside the package
_inside = Path(__file__).parents[1] / "assets"
ASSETS = _inside if _inside.is_dir() else Path(__file__).parents[2] / "assets"


def recorded() -> dict[str, str]:
    """Path below the assets' folder → SHA-256 in hex, of every bundled file. Raises
    `BundledFileError`.
    """
    sums = ASSETS / SUMS
    if not sums.exists():
        raise BundledFileError(
            f"Found no {sums}, which lists the files that ship with vpt. {_repair()}"
        )
    rows = [line.split(maxsplit=1) for line in sums.read_text(encoding="utf-8").splitlines()]
    if not rows or any(len(row) != 2 for row in rows):
        raise BundledFileError(
            f"{sums} is not as it was shipped: needed are lines of a SHA-256 and a name."
            f" {_repair()}"
        )
    return {name: found for found, name in rows}


def bundled_file(name: str) -> Path:
    """The bundled file `name` ("vit-p8-64/config.json"), if it is as it was shipped. Raises
    `BundledFileError`.
    """
    expected, path = recorded().get(name), ASSETS / name
    if expected is None:
        raise BundledFileError(f"vpt ships no file {name!r}; it ships {', '.join(recorded())}.")
    if not path.is_file():
        raise BundledFileError(
            f"Found no {path}; it ships with vpt (SHA-256 {expected}). {_repair()}"
        )
    found = hashlib.sha256(path.read_bytes()).hexdigest()
    if found != expected:
        raise BundledFileError(
            f"{path} is not as it was shipped: its SHA-256 is {found}; it should be {expected}."
            f" {_repair()}"
        )
    return path


def bundled_folder(name: str) -> Path:
    """The folder of bundled files `name`, all of them as shipped. Raises `BundledFileError`."""
    for file in recorded():
        if file.startswith(f"{name}/"):
            bundled_file(file)
    return ASSETS / name


def _repair() -> str:
    if (ASSETS.parent / "pyproject.toml").exists():
        return f"Restore it: git -C {ASSETS.parent} checkout -- assets"
    return (
        "Reinstall vpt from where you had it: python -m pip install --force-reinstall --no-deps"
        " WHEEL-OR-FOLDER"
    )


def bundled() -> dict[str, Config]:
    """The backbones that ship with the package: name → summary, licence, classes (their number),
    bytes, card (its path).

    Raises `BundledFileError`.
    """
    found = {}
    for name in bundled_names():
        folder = bundled_folder(name[4:])
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        classes = len(config.get("label_names") or config.get("id2label"))
        size = (folder / "model.safetensors").stat().st_size
        found[name] = config["vpt"] | {
            "classes": classes,
            "bytes": size,
            "card": folder / "README.md",
        }
    return found


def bundled_names() -> list[str]:
    """Names of the bundled backbones, as "vpt:vit-p8-64"."""
    return [
        f"vpt:{file.split('/')[0]}" for file in recorded() if file.endswith("/model.safetensors")
    ]
