"""The score of the Numenta Anomaly Benchmark, version 1.1: what an early alarm earns and a false one costs.

Lavin & Ahmad, "Evaluating real-time anomaly detection algorithms: the Numenta Anomaly Benchmark", 2015.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from pipeline.core.readings import BoolArray, FloatArray

PROBATION = 0.15  # of the rows at a file's start are not scored
PROBATION_CAP = 750  # rows: 15 % of 5000
FAR = 3.0  # window widths behind a window, from where on an alarm is wholly false


class Profile(NamedTuple):
    """What a found window earns, a false alarm and a missed window cost."""

    found: float
    false: float
    missed: float


PROFILES: Mapping[str, Profile] = MappingProxyType(
    {
        "standard": Profile(1.0, 0.11, 1.0),
        "reward_low_FP_rate": Profile(1.0, 0.22, 1.0),
        "reward_low_FN_rate": Profile(1.0, 0.11, 2.0),
    }
)


@dataclass(frozen=True, slots=True, eq=False)
class Course:
    """What an alarm is worth at each row of one file, before a profile weighs it."""

    worth: FloatArray  # (n,) in a window 0..1, falling towards its end; outside it -1..0
    window: npt.NDArray[np.intp]  # (n,) which window the row lies in, -1 for none
    first_scored: int  # row
    windows: int  # that reach beyond the probation

    @classmethod
    def of(cls, rows: int, windows: Sequence[tuple[int, int]]) -> Course:
        """A file of `rows` rows with windows given by first and last row, inclusive, in order."""
        worth = np.full(rows, -1.0)  # nothing lies before the first window that an alarm could be about
        window = np.full(rows, -1, np.intp)
        starts = [first for first, _ in windows] + [rows]
        for k, (first, last) in enumerate(windows):
            width = last - first + 1
            inside = np.arange(first, last + 1)
            window[inside] = k
            worth[inside] = _fading(-(last - inside + 1) / width) / _fading(np.array(-1.0))
            behind = np.arange(last + 1, starts[k + 1])
            worth[behind] = _fading((behind - last) / max(width - 1, 1e-12))
        first_scored = min(int(PROBATION * rows), PROBATION_CAP)
        return cls(worth, window, first_scored, len(set(window[first_scored:].tolist()) - {-1}))

    def points(self, alarm: BoolArray, profile: Profile) -> float:
        """Sum over a file's alarms, (n,): each window its best, each alarm outside its cost."""
        rows = np.flatnonzero(alarm)
        rows = rows[rows >= self.first_scored]
        window, worth = self.window[rows], self.worth[rows]
        best: dict[int, float] = {}
        for k, value in zip(window.tolist(), worth.tolist(), strict=True):
            if k >= 0:
                best[k] = max(value, best.get(k, 0.0))
        earned = profile.found * sum(best.values()) - profile.missed * (self.windows - len(best))
        return earned + profile.false * float(worth[window < 0].sum())


def score(files: Iterable[tuple[Course, BoolArray]], windows: int) -> dict[str, float]:
    """By profile: 0 for no alarm at all, 100 for one at the start of each of the corpus' `windows` and no other."""
    files = list(files)
    out = {}
    for name, profile in PROFILES.items():
        silent = -profile.missed * sum(course.windows for course, _ in files)
        points = sum(course.points(alarm, profile) for course, alarm in files)
        out[name] = 100 * (points - silent) / (windows * profile.found - silent)
    return out


def _fading(position: FloatArray) -> FloatArray:
    """1 well before 0, 0 at 0, -1 behind it: 2 / (1 + exp(5 position)) - 1, and flat beyond FAR."""
    return np.where(position > FAR, -1.0, 2 / (1 + np.exp(5 * np.minimum(position, FAR))) - 1)
