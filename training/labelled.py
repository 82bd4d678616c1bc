"""A replay's scores and alerts beside the windows of known anomalies, as far as rows are concerned."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from pipeline.adapters.columns import instant
from pipeline.adapters.files import DataError, read
from pipeline.adapters.replay_folder import Run, read_run
from pipeline.core.readings import BoolArray, FloatArray, IntArray

SAME_EVENT = 100  # rows: alarms no further apart are one event

Span = tuple[int, int]  # first and last row, inclusive


@dataclass(frozen=True, slots=True)
class Allowance:
    """What the replay was asked to keep to, and from where on it alarmed."""

    budget: str  # in the operator's words
    per_reading: float  # false alarms
    threshold: float


@dataclass(frozen=True, slots=True, eq=False)
class Replay:
    """The scores and alerts of one series with its labelled windows."""

    sensor: str
    times: IntArray  # (n,) µs UTC
    scores: FloatArray  # (n,)
    alert: BoolArray  # (n,)
    windows: tuple[Span, ...]
    allowance: Allowance | None = None  # None where the scores are not those of `foreshock replay`

    def __len__(self) -> int:
        return len(self.times)

    @property
    def onsets(self) -> BoolArray:
        """Rows at which an alert opens, (n,)."""
        opening: BoolArray = self.alert & ~np.r_[False, self.alert[:-1]]
        return opening

    @property
    def rows_outside(self) -> int:
        """How many rows no window labels."""
        return len(self) - sum(last - first + 1 for first, last in self.windows)

    @property
    def inside(self) -> IntArray:
        """1 in a window, 0 outside, (n,)."""
        inside = np.zeros(len(self), np.int64)
        for first, last in self.windows:
            inside[first : last + 1] = 1
        return inside


def load(scores: Path, labels: Path) -> list[Replay]:
    """The replay of each labelled series: `scores/<series>.csv` as `foreshock replay` writes it."""
    try:
        named = json.loads(labels.read_text(encoding="utf-8"))
        spans = {name: [(instant(a), instant(b)) for a, b in windows] for name, windows in named.items()}
    except (OSError, ValueError, TypeError, AttributeError) as error:
        raise DataError(f"{labels}: is not {{series: [[first time, last time], …]}}: {error}") from error
    if not spans:
        raise DataError(f"{labels}: names no series; one without an anomaly has an empty list of windows")
    run = read_run(scores)
    allowances = _allowances(run) if run is not None else {}
    return [_replay(scores / f"{name}.csv", name, its, allowances.get(name)) for name, its in spans.items()]


def events(alarm: BoolArray) -> list[Span]:
    """Alarmed rows, (n,), as events: alarms at most SAME_EVENT rows apart belong together."""
    rows = np.flatnonzero(alarm)
    if not len(rows):
        return []
    breaks = np.flatnonzero(np.diff(rows) > SAME_EVENT)
    firsts, lasts = rows[np.r_[0, breaks + 1]], rows[np.r_[breaks, -1]]
    return list(zip(firsts.tolist(), lasts.tolist(), strict=True))


def touched(span: Span, others: Sequence[Span]) -> bool:
    """Whether it shares a row with one of the others."""
    return any(span[0] <= last and first <= span[1] for first, last in others)


def _allowances(run: Run) -> dict[str, Allowance]:
    return {
        sensor: Allowance(run.budget, group.allowed, group.threshold)
        for group in run.groups.values()
        for sensor in group.sensors
    }


def _replay(path: Path, name: str, spans: Sequence[Span], allowance: Allowance | None) -> Replay:
    if not path.is_file():
        raise DataError(f"{path}: there are no scores of the labelled series {name!r}; replay it first")
    [table] = read(path)
    if not {"score", "alert"} <= set(table.channels):
        raise DataError(f"{path}: needs the columns timestamp, score, alert; it has {', '.join(table.channels)}")
    scores, alert = table.columns(["score", "alert"]).T
    if not np.isfinite(scores).all():
        raise DataError(f"{path}: the score in row {int(np.argmin(np.isfinite(scores))) + 1} is not a finite number")
    windows = []
    for first, last in spans:
        inside = np.flatnonzero((table.times >= first) & (table.times <= last))
        if not len(inside):
            day, _ = np.array([first, last]).astype("datetime64[us]").astype(str).tolist()
            raise DataError(f"{path}: no row lies in the window that begins at {day}; do the labels belong to it?")
        windows.append((int(inside[0]), int(inside[-1])))
    return Replay(name, table.times, scores, alert > 0, tuple(windows), allowance)
