"""A replay's scores against labelled windows: how well they rank, how they alarm, how soon, at what cost.

Alarms are judged in events, never point by point and never point-adjusted: random scores reach an F1 of 0.9 with that.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from pipeline.adapters.columns import instant
from pipeline.adapters.files import DataError, read
from pipeline.core.readings import BoolArray, FloatArray, IntArray
from training import nab

SAME_EVENT = 100  # rows: alarms no further apart are one event
MOST_ALARMED = 0.10  # share of rows: beyond it an always-on detector would find everything
HOLD_OFF = 100  # rows of silence after an alarm, where NAB is given every row above a threshold
VUS_BUFFER = 100  # rows around a window that still count, at most

Span = tuple[int, int]  # first and last row, inclusive
Progress = Callable[[str, int, int], None]  # what was done, how many, of how many


@dataclass(frozen=True, slots=True, eq=False)
class Replay:
    """The scores and alerts of one series with its labelled windows."""

    sensor: str
    times: IntArray  # (n,) µs UTC
    scores: FloatArray  # (n,)
    alert: BoolArray  # (n,)
    windows: tuple[Span, ...]

    def __len__(self) -> int:
        return len(self.times)

    @property
    def onsets(self) -> BoolArray:
        """Rows at which an alert opens, (n,)."""
        opening: BoolArray = self.alert & ~np.r_[False, self.alert[:-1]]
        return opening


@dataclass(frozen=True, slots=True)
class EventFigures:
    """How alarms and windows met."""

    precision: float
    recall: float
    f1: float
    found: int  # windows
    missed: int  # windows
    false: int  # events that touch no window
    alarmed: float  # share of rows
    false_per_10k: float  # false events per 10,000 rows outside windows
    delay_rows: float | None  # median, from a window's first row to its first alarmed one; None where none was found


@dataclass(frozen=True, slots=True)
class Figures:
    """All figures of an evaluation. `deployed` is what the alerts did; `oracle` what the best threshold would have."""

    series: int
    windows: int
    vus_pr: float | None  # mean over series with a window; None where not asked for, or none has one
    deployed: EventFigures
    oracle: EventFigures
    oracle_threshold: float | None  # None where every threshold alarms too often
    nab: Mapping[str, Mapping[str, float]] | None  # deployed, oracle -> profile -> score
    head: Mapping[str, float] | None  # rows known to be normal at each series' start, alerts there per series

    def as_json(self) -> str:
        """For a machine to read; what there is no figure for is null."""
        return json.dumps(asdict(self), indent=1)


def _untold(_what: str, _done: int, _of: int) -> None:
    """Progress that nobody asked for."""


def load(scores: Path, labels: Path) -> list[Replay]:
    """The replay of each labelled series: `scores/<series>.csv` as `foreshock replay` writes it."""
    try:
        named = json.loads(labels.read_text(encoding="utf-8"))
        spans = {name: [(instant(a), instant(b)) for a, b in windows] for name, windows in named.items()}
    except (OSError, ValueError, TypeError, AttributeError) as error:
        raise DataError(f"{labels}: is not {{series: [[first time, last time], …]}}: {error}") from error
    return [_replay(scores / f"{name}.csv", name, windows) for name, windows in spans.items()]


def evaluate(
    replays: Sequence[Replay],
    *,
    with_vus: bool = True,
    with_nab: bool = False,
    head: int | None = None,
    progress: Progress = _untold,
) -> Figures:
    """Every figure over all series; VUS-PR takes longest, a second or so a series."""
    threshold, oracle = best_threshold(replays)
    return Figures(
        series=len(replays),
        windows=sum(len(r.windows) for r in replays),
        vus_pr=vus_pr(replays, progress) if with_vus else None,
        deployed=event_figures(replays, [r.alert for r in replays]),
        oracle=oracle,
        oracle_threshold=threshold,
        nab=nab_scores(replays, progress) if with_nab else None,
        head=_head(replays, head) if head else None,
    )


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


def event_figures(replays: Sequence[Replay], alarms: Sequence[BoolArray]) -> EventFigures:
    """A window that an event touches is found; an event that touches no window is false."""
    found = missed = false = alarmed = rows = inside = 0
    delays: list[int] = []
    for replay, alarm in zip(replays, alarms, strict=True):
        raised = events(alarm)
        rows += len(replay)
        alarmed += sum(last - first + 1 for first, last in raised)
        false += sum(not touched(event, replay.windows) for event in raised)
        for first, last in replay.windows:
            inside += last - first + 1
            if not touched((first, last), raised):
                missed += 1
                continue
            found += 1
            delays += np.flatnonzero(alarm[first : last + 1])[:1].tolist()
    precision, recall = found / max(found + false, 1), found / max(found + missed, 1)
    return EventFigures(
        precision=precision,
        recall=recall,
        f1=2 * precision * recall / (precision + recall) if found else 0.0,
        found=found,
        missed=missed,
        false=false,
        alarmed=alarmed / max(rows, 1),
        false_per_10k=1e4 * false / max(rows - inside, 1),
        delay_rows=float(np.median(delays)) if delays else None,
    )


def best_threshold(replays: Sequence[Replay]) -> tuple[float | None, EventFigures]:
    """The one threshold for all series with the best event F1 among those that alarm bearably often: needs labels."""
    best: float | None = None
    reached = event_figures(replays, [np.zeros(len(r), np.bool_) for r in replays])
    for threshold in _thresholds(replays, -4.5, -0.8):
        figures = event_figures(replays, [r.scores >= threshold for r in replays])
        if figures.alarmed <= MOST_ALARMED and (best is None or figures.f1 > reached.f1):
            best, reached = threshold, figures
    return best, reached


def vus_pr(replays: Sequence[Replay], progress: Progress) -> float | None:
    """Volume under the precision-recall surface, mean over the series that have rows both in and outside windows.

    Paparrizos et al., "Volume under the surface: a new accuracy evaluation measure for time-series anomaly
    detection", 2022.
    """
    try:
        from vus.metrics import get_metrics
    except ImportError as missing:
        raise DataError("VUS-PR needs the package vus: pip install 'foreshock[evaluate]'") from missing
    labelled = [(r, _inside_windows(r)) for r in replays]
    judged = [(r.scores, inside) for r, inside in labelled if 0 < inside.sum() < len(r)]
    volumes = []
    for done, (scores, inside) in enumerate(judged, 1):
        surface = get_metrics(scores, inside, metric="vus", slidingWindow=VUS_BUFFER)
        volumes.append(float(surface["VUS_PR"]))
        progress("VUS-PR", done, len(judged))
    return float(np.mean(volumes)) if volumes else None


def nab_scores(replays: Sequence[Replay], progress: Progress) -> dict[str, dict[str, float]]:
    """The NAB score of the alerts as they opened, and by profile that of the best threshold on the scores."""
    if not any(r.windows for r in replays):
        raise DataError("the NAB score needs at least one labelled window; leave it out for these labels")
    courses = [nab.Course.of(len(r), r.windows) for r in replays]
    windows = sum(len(r.windows) for r in replays)
    oracle = dict.fromkeys(nab.PROFILES, float("-inf"))
    thresholds = _thresholds(replays, -4, -1)
    for done, threshold in enumerate(thresholds, 1):
        alarms = [hold_off(r.scores >= threshold) for r in replays]
        for profile, score in nab.score(zip(courses, alarms, strict=True), windows).items():
            oracle[profile] = max(oracle[profile], score)
        progress("NAB", done, len(thresholds))
    onsets = [r.onsets for r in replays]
    return {"deployed": nab.score(zip(courses, onsets, strict=True), windows), "oracle": oracle}


def hold_off(alarm: BoolArray) -> BoolArray:
    """The first alarmed row, then none for HOLD_OFF rows: one alarm for an event, not one for each of its rows."""
    rows = np.flatnonzero(alarm)
    kept = np.zeros(len(alarm), np.bool_)
    at = 0
    while at < len(rows):
        kept[rows[at]] = True
        at = int(np.searchsorted(rows, rows[at] + HOLD_OFF, side="right"))
    return kept


def _replay(path: Path, name: str, spans: Sequence[Span]) -> Replay:
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
    return Replay(name, table.times, scores, alert > 0, tuple(windows))


def _thresholds(replays: Sequence[Replay], rarest: float, commonest: float) -> list[float]:
    """60 heights that a share of all rows from 10**rarest to 10**commonest lies above, rising."""
    pooled = np.concatenate([r.scores for r in replays])
    heights: FloatArray = np.unique(np.quantile(pooled, 1 - np.logspace(rarest, commonest, 60)))
    return [float(height) for height in heights]


def _inside_windows(replay: Replay) -> IntArray:
    inside = np.zeros(len(replay), np.int64)
    for first, last in replay.windows:
        inside[first : last + 1] = 1
    return inside


def _head(replays: Sequence[Replay], rows: int) -> dict[str, float]:
    return {"rows": rows, "alerts_per_series": float(np.mean([r.onsets[:rows].sum() for r in replays]))}
