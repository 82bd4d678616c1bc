"""What went wrong in a replay, case by case: windows that no alert touched, and events that touch no window."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from pipeline.adapters.replay_folder import Signals
from pipeline.core.readings import FloatArray
from training.labelled import Replay, Span, events, touched

MOST_CHANNELS = 3  # of many, that are worth a picture
LEAST_CONTEXT = 150  # rows shown before and behind a case
LONGEST_CONTEXT = 1000


@dataclass(frozen=True, slots=True, eq=False)
class Case:
    """A missed window or a false alarm."""

    replay: Replay
    span: Span
    missed: bool
    peak: float  # the highest score in it

    @property
    def margin(self) -> float:
        """By how much the score was on the wrong side of the threshold: powers of ten in rarity."""
        threshold = self.replay.allowance.threshold if self.replay.allowance is not None else 0.0
        return threshold - self.peak if self.missed else self.peak - threshold

    @property
    def surroundings(self) -> slice:
        """The rows of a picture of it: itself, and as much again on either side."""
        first, last = self.span
        around = min(max(last - first + 1, LEAST_CONTEXT), LONGEST_CONTEXT)
        return slice(max(first - around, 0), min(last + around + 1, len(self.replay)))


def cases(replay: Replay) -> list[Case]:
    """All of one series, in the order of their rows."""
    raised = events(replay.alert)
    missed = [window for window in replay.windows if not touched(window, raised)]
    false = [event for event in raised if not touched(event, replay.windows)]
    spans = sorted([(span, True) for span in missed] + [(span, False) for span in false])
    return [Case(replay, span, kind, float(replay.scores[span[0] : span[1] + 1].max())) for span, kind in spans]


def worst(every: Sequence[Case], most: int) -> list[Case]:
    """Half of each kind as far as there are as many: the least noticed windows, then the surest false alarms."""
    ranked = sorted(every, key=lambda case: (-case.margin, case.replay.sensor, case.span))
    missed, false = [case for case in ranked if case.missed], [case for case in ranked if not case.missed]
    of_missed = min(len(missed), max(most // 2, most - len(false)))
    return missed[:of_missed] + false[: most - of_missed]


def late(replay: Replay) -> int:
    """How many windows are found, but not before their second half."""
    first_alarms = [(window, np.flatnonzero(replay.alert[window[0] : window[1] + 1])[:1]) for window in replay.windows]
    return sum(int(2 * at[0] > last - first) for (first, last), at in first_alarms if len(at))


def telling_channels(signals: Signals, spans: Sequence[Span]) -> dict[int, float]:
    """The few channels that were furthest off in those rows, with how many bands; without spans, in all rows."""
    rows = np.concatenate([np.arange(first, last + 1) for first, last in spans]) if spans else np.arange(len(signals))
    off = np.fmax.reduce(_bands_off(signals, rows), axis=0, initial=0.0)
    first, *others = np.argsort(-off, kind="stable")[:MOST_CHANNELS].tolist()
    return {channel: float(off[channel]) for channel in (first, *others) if channel == first or off[channel] > 1}


def _bands_off(signals: Signals, rows: np.ndarray[tuple[int], np.dtype[np.int64]]) -> FloatArray:
    """|actual - expected| in bands, (rows, channels); NaN where there is none of the two."""
    error, band = np.abs(signals.values[rows] - signals.expected[rows]), signals.band[rows]
    return np.divide(error, band, out=np.where(error > 0, np.inf, error), where=band > 0)
