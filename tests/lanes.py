"""One lane of one sensor, stepped through values without a detector: what features, novelty and scoring do to it."""

from __future__ import annotations

import numpy as np

from pipeline.core.features import Lanes, features
from pipeline.core.model import Array
from pipeline.core.novelty import MEMORY_DELAY
from pipeline.core.table import Columns, SensorTable, layout
from tests import models


def blank(channels: int = 1) -> Columns:
    """One sensor that has seen nothing."""
    return SensorTable(layout(models.model(channels))).blank(1)


def lanes(targets: list[int], seen: int = 0, *, learns: bool = False, unseen: bool = False) -> Lanes:
    """These targets of one sensor have a value."""
    at, one = np.array(targets, np.intp), np.ones(len(targets), np.int64)
    each = np.ones(len(targets), np.bool_)
    old = at[: len(at) * (seen >= MEMORY_DELAY)]
    return Lanes(at, at, seen * one, (seen * one).astype(np.int32), learns * each, unseen * each, old)


def follow(arrays: Columns, x: Array, errors: Array | None = None, made: Array | None = None) -> Array:
    """The features of lane 0 over scaled values (n,) and errors (n, horizons), as (n, FEATURES).

    `errors` may be (n,), the same at every horizon, and are 0 by default; `made` says of which forecasts there are any.
    """
    errors = np.zeros(len(x), np.float32) if errors is None else errors
    wrong = np.broadcast_to(errors.reshape(len(x), -1), (len(x), 3)).astype(np.float32)
    valid = np.ones((len(x), 3), np.bool_) if made is None else made.astype(np.bool_)
    found = []
    for seen in range(len(x)):
        then = x[seen - MEMORY_DELAY] if seen >= MEMORY_DELAY else np.float32(0)
        each = features(
            arrays, lanes([0], seen), x[seen : seen + 1], np.array([then], np.float32), wrong[seen][:, None],
            valid[seen][:, None], arrays.lane.shape[1],
        )  # fmt: skip
        found.append(each[:, 0])
    return np.array(found)
