"""One small file: a prompt, its readout, and all that is needed to use them again."""

from vpt.files.packing import file_bytes, pack, unpack, write_atomically
from vpt.files.saving import (
    check_backbone,
    learned,
    learned_copy,
    load,
    read,
    rebuild,
    restore,
    save,
)

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
