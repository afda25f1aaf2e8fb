"""One small file: a prompt, its readout, and all that is needed to use them again."""

from vpt.files.matching import check_backbone
from vpt.files.packing import file_bytes, pack, unpack, write_atomically
from vpt.files.rebuilding import rebuild
from vpt.files.saving import learned, learned_copy, load, read, restore, save

__all__ = [
    "check_backbone",
    "file_bytes",
    "learned",
    "learned_copy",
    "load",
    "pack",
    "read",
    "rebuild",
    "restore",
    "save",
    "unpack",
    "write_atomically",
]
