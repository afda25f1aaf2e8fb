"""What frozen blocks make of inputs, on disk: shards of safetensors that are mapped into memory,
for one model and one preparation.
"""

from __future__ import annotations

import json
import os
import secrets
import shutil
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from vpt.backbones import Backbone
from vpt.errors import PromptFileError, StoreError
from vpt.errors.places import is_file
from vpt.files import write_atomically
from vpt.sites import Config

FACTS = "store.json"
FORMAT = "vpt-features"
VERSION = 1
KEYS = "inputs"  # the tensor of digests `[n,32]` in a shard
LARGE = 1 << 14  # bytes of a row
SAME = ("model", "preparation", "dtype", "depth", "pool", "blocks_at", "fingerprint")
Place = tuple[int, int]  # (number of a shard, row)


@dataclass
class Store:
    """A folder of shards, and where in them each input is.

    folder: where it is.
    facts: what it is for.
    blocks: whose keys and values it has.
    """

    folder: Path
    facts: Config
    _shards: list[Path] = field(default_factory=list, repr=False)
    _opened: dict[int, dict[str, Tensor]] = field(default_factory=dict, repr=False)
    _places: dict[bytes, Place] = field(default_factory=dict, repr=False)

    @classmethod
    def open(cls, folder: str | Path, backbone: Backbone, blocks: Sequence[int] = ()) -> Store:
        """The store in a folder, or a new one. Raises `StoreError` for one that another model or
        another preparation made, and for one that is damaged.

        backbone: whose features they are. blocks: whose keys and values a new one has.
        """
        folder, wanted = Path(folder), facts_of(backbone) | {"blocks": list(blocks)}
        if not is_file(folder / FACTS):
            if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
                raise StoreError(
                    f"{folder} holds something, and no {FACTS}: it is no feature store. Name a"
                    " folder that is new or empty."
                )
            try:
                folder.mkdir(parents=True, exist_ok=True)
                write_atomically(folder / FACTS, json.dumps(wanted, indent=1).encode())
            except (OSError, PromptFileError) as error:
                raise StoreError(f"{folder} cannot be written: {error}.") from error
        found = _read(folder / FACTS)
        apart = [name for name in SAME if found.get(name) != wanted[name]]
        if apart:
            there, here = (
                _differing(one[apart[0]], other[apart[0]])
                for one, other in ((found, wanted), (wanted, found))
            )
            raise StoreError(
                f"The features in {folder} are of another model or preparation: {apart[0]} is"
                f" {there}, and here {here}. Build a store for this one in another folder (vpt"
                " features), or go without."
            )
        store = cls(folder, found)
        for path in sorted(folder.glob("*.safetensors")):
            store._index(path)
        return store

    @property
    def blocks(self) -> list[int]:
        """The blocks whose keys and values it has."""
        return list(self.facts["blocks"])

    def __len__(self) -> int:
        """How many inputs it has."""
        return len(self._places)

    def __contains__(self, key: object) -> bool:
        return key in self._places

    @property
    def size(self) -> int:
        """Bytes of all shards."""
        return sum(path.stat().st_size for path in self._shards)

    def add(self, keys: Sequence[bytes], tensors: dict[str, Tensor]) -> None:
        """Keep what was made of some inputs. keys: digests; tensors: a row for each. Raises
        `StoreError`, with nothing kept, where there is no room.
        """
        size = sum(part.nbytes for part in tensors.values())
        if size > shutil.disk_usage(self.folder).free:
            raise StoreError(f"{self.folder} has no room for another {size / 1e6:.0f} MB.")
        digests = torch.frombuffer(bytearray(b"".join(keys)), dtype=torch.uint8).view(-1, 32)
        place = self.folder / f"{len(self._shards):05d}-{secrets.token_hex(4)}.safetensors"
        part = place.with_suffix(".part")
        try:
            whole = {name: value.contiguous() for name, value in tensors.items()}
            save_file(whole | {KEYS: digests}, part, {"format": FORMAT, **self._marks()})
            part.chmod(0o644)
            os.replace(part, place)
        except (OSError, SafetensorError) as error:
            raise StoreError(f"{self.folder} cannot be written: {error}.") from error
        finally:
            part.unlink(missing_ok=True)
        self._index(place)

    def rows(self, keys: Sequence[bytes], name: str) -> Tensor:
        """A tensor of these inputs, in order `[n,…]`, copied from where it is mapped."""
        by_shard: dict[int, list[tuple[int, int]]] = defaultdict(list)
        for i, key in enumerate(keys):
            shard, row = self._places[key]
            by_shard[shard].append((i, row))
        out: Tensor | None = None
        for shard, places in by_shard.items():
            mapped = self._tensors(shard)[name]
            if out is None:
                out = torch.empty(len(keys), *mapped.shape[1:], dtype=mapped.dtype)
            if mapped[0].nbytes > LARGE:  # copied once, not twice
                for i, row in places:
                    out[i].copy_(mapped[row])
            else:
                to, of = torch.tensor(places).T
                out[to] = mapped[of]
        if out is None:
            raise StoreError("Nothing was asked for.")
        return out

    def has(self, name: str) -> bool:
        """Whether every shard has such a tensor."""
        return all(name in self._tensors(shard) for shard in range(len(self._shards)))

    def _marks(self) -> dict[str, str]:
        return {"fingerprint": str(self.facts["fingerprint"])}

    def _index(self, path: Path) -> None:
        """Find out what a shard has. Raises `StoreError` for one that is cut, or is another's."""
        number = len(self._shards)
        try:
            with safe_open(path, framework="pt") as shard:
                marks, keys = shard.metadata() or {}, shard.get_tensor(KEYS)
        except (SafetensorError, OSError) as error:
            raise StoreError(
                f"{path} cannot be read, or was cut short ({error}). Delete this file: what it had"
                " is computed again."
            ) from error
        if marks.get("fingerprint") != self.facts["fingerprint"]:
            raise StoreError(f"{path} is of another model than {self.folder / FACTS} says.")
        self._shards.append(path)
        for row, key in enumerate(keys.numpy()):
            self._places.setdefault(key.tobytes(), (number, row))

    def _tensors(self, number: int) -> dict[str, Tensor]:
        """What is in a shard, mapped and not read."""
        if number not in self._opened:
            with safe_open(self._shards[number], framework="pt") as shard:
                self._opened[number] = {n: shard.get_tensor(n) for n in list(shard.keys())}
        return self._opened[number]


def facts_of(backbone: Backbone) -> Config:
    """What features depend on: the weights, how input is prepared, what is read of them."""
    identity = backbone.identity
    return {
        "format": FORMAT,
        "version": VERSION,
        "fingerprint": backbone.fingerprint(),
        "preparation": json.loads(json.dumps(backbone.inputs.describe())),
        "model": type(backbone.model).__name__,
        "dtype": str(backbone.dtype).removeprefix("torch."),
        "depth": backbone.depth,
        "pool": identity.get("pool"),
        "blocks_at": identity.get("blocks"),
    }


def _read(path: Path) -> Config:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        if found["format"] != FORMAT or not isinstance(found["blocks"], list):
            raise ValueError("it says something else")
    except (OSError, ValueError, LookupError, TypeError) as error:
        raise StoreError(f"{path} is not that of a feature store: {error}.") from error
    if found.get("version") != VERSION:
        raise StoreError(
            f"{path} is of version {found.get('version')!r}; this vpt reads {VERSION}."
        )
    return dict(found)


def _differing(value: object, other: object) -> str:
    """What is different in a value, for people."""
    if isinstance(value, dict) and isinstance(other, dict):
        value = {name: own for name, own in value.items() if other.get(name) != own}
    text = json.dumps(value)
    return text if len(text) <= 200 else f"{text[:200]}…"
