"""What a sensor that the model was not trained on is like: the group's sensors, read as if they were new.

An unseen sensor is scaled by its first window and forecast by a network that does not know it, so what is usual for
it cannot be read off the sensors that were trained on. It is read off stretches of their history, each begun as a new
sensor's would be, by the detector itself.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt

from pipeline.core import episodes
from pipeline.core.detector import Detector
from pipeline.core.model import Model, SensorTables
from pipeline.core.table import Clock, Columns, Lane, Level, SensorTable, layout, learned
from pipeline.core.tails import BLOCK_ROWS
from training.rehearsal import Rehearsed, Stretch, rehearse, usual_episode

PRIOR_COUNTS = 3000  # readings that the group's tails weigh: an unseen sensor is judged by them until it is trained on
STRETCH_READINGS = 2048  # about as long as an unseen sensor goes before the next retraining knows it
MOST_STRETCHES = 64

Prior = dict[str, npt.NDArray[Any]]


def group_prior(
    model: Model,
    trained: Columns,
    histories: Sequence[Stretch],
    detector_of: Callable[[Model], Detector] = Detector,
) -> Prior:
    """The prior of a group whose sensors, by their own tables, are `trained`; `model` has no sensors of its own."""
    fields = layout(model)
    prior = {name: rows[0].copy() for name, rows in learned(SensorTable(fields).blank(1), fields).items()}
    del prior["scale"]  # of its own first readings
    prior["lane"][:, Lane.LOG_ERROR] = np.median(trained.lane[..., Lane.LOG_ERROR], axis=0)
    for pace in (Clock.GAP_LIMIT, Clock.USUAL_STEP):
        prior["clock"][pace] = int(np.median(trained.clock[:, pace]))
    prior["level"][: Level.OWN_BLOCKS + 1] = episodes.NO_GROUP
    unknown = replace(model, sensors=SensorTables((), {}), prior=prior)
    stretches = _stretches(histories, model.network.window)
    if not stretches:  # none is long enough to be new for a while
        prior["tail"] = pooled(trained.tail)
        return prior
    prior["tail"] = pooled(rehearse(unknown, stretches, detector_of=detector_of).arrays.tail)
    judged: Rehearsed = rehearse(replace(unknown, prior=prior), stretches, detector_of=detector_of)
    blocks = judged.blocks[np.isfinite(judged.blocks)][None]
    usual, excess = usual_episode(blocks, episodes.WINSORED, anywhere=0.0)  # one sensor's incidents weigh little here
    prior["level"][: Level.OWN_BLOCKS + 1] = usual, excess, usual, excess, episodes.UNSEEN_BLOCKS
    return prior


def _stretches(histories: Sequence[Stretch], window: int) -> list[Stretch]:
    """Histories cut into stretches long enough for a window, and for their tails to count something."""
    cut: list[Stretch] = []
    for history in histories:
        parts = max(len(history.times) // STRETCH_READINGS, 1)
        edges = np.arange(parts + 1) * len(history.times) // parts
        cut += [
            Stretch(f"{len(cut) + k:06d}", history.times[a:b], history.values[a:b])
            for k, (a, b) in enumerate(zip(edges[:-1].tolist(), edges[1:].tolist(), strict=True))
        ]
    long = [stretch for stretch in cut if len(stretch.times) >= window + BLOCK_ROWS]
    return long[:: -(-len(long) // MOST_STRETCHES)] if long else []


def pooled(tail: npt.NDArray[np.uint16]) -> npt.NDArray[np.uint16]:
    """Counts (sensors, targets, FEATURES, TAIL_BINS) of all sensors together, as if of PRIOR_COUNTS readings."""
    total = tail.astype(np.float64).sum(axis=0)
    share = total / np.maximum(total[..., :1], 1)
    counts: npt.NDArray[np.uint16] = np.rint(share * PRIOR_COUNTS).astype(np.uint16)
    return counts
