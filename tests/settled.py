"""A detector that has followed one calm sensor for long enough to be surprised, and the readings that come next."""

from __future__ import annotations

from functools import cache

import numpy as np

from pipeline.core.detector import Detector
from pipeline.core.events import Bound, Rules
from pipeline.core.readings import FloatArray, ReadingBatch
from pipeline.core.table import Arrays
from pipeline.core.thresholds import Budget
from tests import models

CALM = 560  # readings until the tails have counts and no alert is open
RULES = Rules(budget=Budget.parse("1/1000/sensor"), bounds=(Bound("*", "c0", -100.0, 100.0, "bar"),))


def calm(rows: int, channels: int = 1, seed: int = 1) -> FloatArray:
    """Noise of deviation 1 around 20, (rows, channels)."""
    noise: FloatArray = np.random.default_rng(seed).standard_normal((rows, channels))
    return 20 + noise


@cache
def settled_state(channels: int) -> Arrays:
    detector = Detector(models.learnt(models.model(channels), models.one(calm(CALM, channels, seed=2))), RULES)
    detector.step(models.one(calm(CALM, channels, seed=0)))
    assert detector.open_alerts() == []
    return detector.snapshot(0)


def settled(channels: int = 1, rules: Rules = RULES) -> Detector:
    """A detector that has followed one sensor, s, for CALM readings; the model was trained on it."""
    detector = Detector(models.model(channels), rules)
    detector.restore(0, settled_state(channels))
    return detector


def after(values: FloatArray, *, first: int = CALM) -> ReadingBatch:
    """The readings of s that come next."""
    return models.one(values, first=first)


def at(reading: int) -> int:
    """The time of a reading, µs."""
    return models.START + reading * models.INTERVAL


def assert_same_state(a: Detector, b: Detector) -> None:
    mine, theirs = a.snapshot(0), b.snapshot(0)
    for name in mine:
        np.testing.assert_array_equal(mine[name], theirs[name], err_msg=name)
