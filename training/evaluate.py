"""A replay's scores against labelled windows: how well they rank, how they alarm, how soon, at what cost.

Alarms are judged in events, never point by point and never point-adjusted: random scores reach an F1 of 0.9 with that.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass

import numpy as np

from pipeline.adapters.files import DataError
from pipeline.core.readings import BoolArray, FloatArray
from training import nab
from training.labelled import Replay, events, touched

MOST_ALARMED = 0.10  # share of rows: beyond it an always-on detector would find everything
HOLD_OFF = 100  # rows of silence after an alarm, where NAB is given every row above a threshold
VUS_BUFFER = 100  # rows around a window that still count, at most

Progress = Callable[[str, int, int], None]  # what was done, how many, of how many


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
class BudgetFigures:
    """The false alarms there were beside those there might have been."""

    budget: str  # in the operator's words
    allowed: float  # the budget per reading, times the rows outside windows
    realised: int  # events that touch no window
    ratio: float  # realised / allowed


@dataclass(frozen=True, slots=True)
class Figures:
    """All figures of an evaluation. `deployed` is what the alerts did; `oracle` what the best threshold would have."""

    series: int
    windows: int
    vus_pr: float | None  # mean over series with a window; None where not asked for, or none has one
    deployed: EventFigures
    oracle: EventFigures
    oracle_threshold: float | None  # None where every threshold alarms too often
    budget: BudgetFigures | None  # None where the replay left none
    nab: Mapping[str, Mapping[str, float]] | None  # deployed, oracle -> profile -> score
    head: Mapping[str, float] | None  # rows known to be normal at each series' start, alerts there per series
    vus_pr_by_series: Mapping[str, float]

    def as_json(self) -> str:
        """For a machine to read; what there is no figure for is null."""
        return json.dumps(asdict(self), indent=1)


def untold(_what: str, _done: int, _of: int) -> None:
    """Progress that nobody asked for."""


def evaluate(
    replays: Sequence[Replay],
    *,
    with_vus: bool = True,
    with_nab: bool = False,
    head: int | None = None,
    progress: Progress = untold,
) -> Figures:
    """Every figure over all series; VUS-PR takes longest, some seconds for a long series."""
    threshold, oracle = best_threshold(replays)
    deployed = event_figures(replays, [r.alert for r in replays])
    volumes = vus_pr(replays, progress) if with_vus else {}
    return Figures(
        series=len(replays),
        windows=sum(len(r.windows) for r in replays),
        vus_pr=float(np.mean(list(volumes.values()))) if volumes else None,
        deployed=deployed,
        oracle=oracle,
        oracle_threshold=threshold,
        budget=budget_figures(replays, deployed.false),
        nab=nab_scores(replays, progress) if with_nab else None,
        head=_head(replays, head) if head else None,
        vus_pr_by_series=volumes,
    )


def event_figures(replays: Sequence[Replay], alarms: Sequence[BoolArray]) -> EventFigures:
    """A window that an event touches is found; an event that touches no window is false."""
    found = missed = false = alarmed = rows = outside = 0
    delays: list[int] = []
    for replay, alarm in zip(replays, alarms, strict=True):
        raised = events(alarm)
        rows += len(replay)
        outside += replay.rows_outside
        alarmed += sum(last - first + 1 for first, last in raised)
        false += sum(not touched(event, replay.windows) for event in raised)
        for first, last in replay.windows:
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
        false_per_10k=1e4 * false / max(outside, 1),
        delay_rows=float(np.median(delays)) if delays else None,
    )


def budget_figures(replays: Sequence[Replay], false: int) -> BudgetFigures | None:
    """`false` events beside the budget that all series were replayed under; None where it is not known of each."""
    allowances = [(r.allowance, r.rows_outside) for r in replays if r.allowance is not None]
    allowed = sum(allowance.per_reading * rows for allowance, rows in allowances)
    if len(allowances) < len(replays) or allowed <= 0:
        return None
    return BudgetFigures(allowances[0][0].budget, allowed, false, false / allowed)


def best_threshold(replays: Sequence[Replay]) -> tuple[float | None, EventFigures]:
    """The one threshold for all series with the best event F1 among those that alarm bearably often: needs labels."""
    best: float | None = None
    reached = event_figures(replays, [np.zeros(len(r), np.bool_) for r in replays])
    for threshold in _thresholds(replays, -4.5, -0.8):
        figures = event_figures(replays, [r.scores >= threshold for r in replays])
        if figures.alarmed <= MOST_ALARMED and (best is None or figures.f1 > reached.f1):
            best, reached = threshold, figures
    return best, reached


def vus_pr(replays: Sequence[Replay], progress: Progress) -> dict[str, float]:
    """Volume under the precision-recall surface of each series that has rows both in and outside windows.

    Paparrizos et al., "Volume under the surface: a new accuracy evaluation measure for time-series anomaly
    detection", 2022.
    """
    try:
        from vus.metrics import get_metrics
    except ImportError as missing:
        raise DataError("VUS-PR needs the package vus: install the extra `evaluate`") from missing
    judged = [r for r in replays if 0 < r.inside.sum() < len(r)]
    volumes = {}
    for done, replay in enumerate(judged, 1):
        surface = get_metrics(replay.scores, replay.inside, metric="vus", slidingWindow=VUS_BUFFER)
        volumes[replay.sensor] = float(surface["VUS_PR"])
        progress("VUS-PR", done, len(judged))
    return volumes


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


def _thresholds(replays: Sequence[Replay], rarest: float, commonest: float) -> list[float]:
    """60 heights that a share of all rows from 10**rarest to 10**commonest lies above, rising."""
    pooled = np.concatenate([r.scores for r in replays])
    heights: FloatArray = np.unique(np.quantile(pooled, 1 - np.logspace(rarest, commonest, 60)))
    return [float(height) for height in heights]


def _head(replays: Sequence[Replay], rows: int) -> dict[str, float]:
    return {"rows": rows, "alerts_per_series": float(np.mean([r.onsets[:rows].sum() for r in replays]))}
