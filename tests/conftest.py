"""What every test runs under: the CPU, no hub, one thread per worker, one seed."""

from __future__ import annotations

import logging
import os

os.environ.setdefault("ACCELERATE_USE_CPU", "true")
os.environ.setdefault("CUDA_VISIBLE_DEVICES", "")
os.environ.setdefault("HF_HUB_OFFLINE", "1")
# two workers side by side: more threads than cores slow each other down
if "PYTEST_XDIST_WORKER" in os.environ:
    os.environ.setdefault("OMP_NUM_THREADS", "1")

import sys
from pathlib import Path

import pytest
import torch

logging.getLogger("torch").setLevel(logging.ERROR)
sys.path.insert(0, str(Path(__file__).parent))


@pytest.fixture(autouse=True)
def _steady() -> None:
    torch.manual_seed(0)
