"""A small bundle on disk, and the ways to damage it."""

from __future__ import annotations

import hashlib
import io
import json
import re
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load as load_tensors
from safetensors.numpy import save as save_tensors

from pipeline import bundle
from pipeline.bundle import GOLDEN, MANIFEST, SENSORS, WEIGHTS, BundleError, Tensors
from pipeline.core.model import Cell, Model
from tests import models

FILES = (WEIGHTS, SENSORS, GOLDEN)
Change = Callable[[Tensors], object]


@cache
def calibrated(cell: Cell = "lstm", networks: int = 1) -> Model:
    """Two channels, two sensors, a prior."""
    batch = models.stream(models.waves(2, 400, 2))
    return models.learnt(models.model(2, cell=cell, layers=2, networks=networks), batch)


def saved(root: Path, model: Model | None = None) -> Path:
    served = model or calibrated()
    golden = (
        np.random.default_rng(0).standard_normal((2, served.network.window, served.network.inputs)).astype(np.float32)
    )
    return bundle.save(served, root, {"why": "a test"}, golden)


def edit(folder: Path, **changes: object) -> None:
    """Change fields of the manifest."""
    manifest = json.loads((folder / MANIFEST).read_text())
    (folder / MANIFEST).write_text(json.dumps(manifest | changes))


def reseal(folder: Path, name: str, content: bytes) -> None:
    """Put another file in place with the hash to match, as one who means harm would."""
    (folder / name).write_bytes(content)
    hashes = json.loads((folder / MANIFEST).read_text())["sha256"]
    edit(folder, sha256=hashes | {name: hashlib.sha256(content).hexdigest()})


def retensor(folder: Path, name: str, change: Change) -> None:
    tensors = load_tensors((folder / name).read_bytes())
    change(tensors)
    reseal(folder, name, save_tensors({k: np.array(v, order="C") for k, v in tensors.items()}))


def npz(**arrays: Any) -> bytes:
    file = io.BytesIO()
    np.savez(file, **arrays)
    return file.getvalue()


def assert_refused(folder: Path, sentence: str) -> None:
    with pytest.raises(BundleError, match=re.escape(sentence)) as refused:
        bundle.load(folder)
    assert str(folder) in str(refused.value)
