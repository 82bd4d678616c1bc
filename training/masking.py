"""What training must not learn from: spans under alert, and readings that their sender calls bad or maintenance."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from pipeline.adapters.files import DataError, Series
from pipeline.codecs.json import decode_alert
from pipeline.core.alerts import Alert, Kind, Resolution
from pipeline.core.readings import Quality
from training.dataset import NO_SPANS, Spans, in_time, sampling_interval, unmasked
from training.report import Masked

MARGIN_INTERVALS = 5  # after an episode: its last readings are normal to the detector, but not usual
FOREVER = 2**62  # µs: later than any reading
QUALITIES = tuple(Quality)  # good is the first

QualityArray = npt.NDArray[np.uint8]  # index into QUALITIES


class Episode(NamedTuple):
    """A stretch of one sensor that an alert speaks of. Times in µs UTC."""

    sensor: str
    alert_id: str
    kind: Kind
    revision: int
    start: int
    last: int  # FOREVER while the alert is open
    settles: bool  # it takes some more readings until all is as usual

    @property
    def reason(self) -> str:
        """In words, for the report."""
        return f"under {self.kind} alert {self.alert_id}{', still open' if self.last == FOREVER else ''}"


@dataclass(frozen=True, slots=True, eq=False)
class Mask:
    """Spans of each sensor that hide at least one reading, and the list of them for people."""

    spans: Mapping[str, Spans]
    listed: tuple[Masked, ...]  # by sensor and time; where two overlap, both count a reading

    def hidden(self, series: Series) -> int:
        """How many of the sensor's usable readings are masked; one is counted once."""
        return int((~unmasked(in_time(series).times, self.spans.get(series.sensor, NO_SPANS))).sum())


def mask(series: Sequence[Series], found: Iterable[Episode], quality: Mapping[str, QualityArray]) -> Mask:
    """All there is to leave out of `series`; `quality` has an entry for each reading of the sensors it names."""
    of_sensor: dict[str, list[Episode]] = defaultdict(list)
    for episode in found:
        of_sensor[episode.sensor].append(episode)
    spans: dict[str, Spans] = {}
    listed: list[Masked] = []
    for one in sorted(series, key=lambda s: s.sensor):
        hidden = list(_under_alert(in_time(one), of_sensor[one.sensor]))
        if one.sensor in quality:
            hidden += _unusable(one, quality[one.sensor])
        if hidden:
            spans[one.sensor] = np.array([(m.first, m.last) for m in hidden], np.int64)
            listed += sorted(hidden, key=lambda m: m.first)
    return Mask(spans, tuple(listed))


def episodes(alerts: Iterable[Alert]) -> list[Episode]:
    """The last that was said of each alert. A gap has no readings that could be learned."""
    latest: dict[str, Episode] = {}
    for alert in alerts:
        before = latest.get(alert.alert_id)
        if alert.kind is not Kind.GAP and (before is None or alert.revision >= before.revision):
            latest[alert.alert_id] = _episode(alert)
    return list(latest.values())


def read_alerts(path: Path) -> Iterator[Alert]:
    """Alerts from JSON lines, as `foreshock replay --alerts` writes them; DataError names the line that is none."""
    try:
        with path.open("rb") as file:
            for number, line in enumerate(file, 1):
                if line.strip():
                    yield _alert(line, f"{path}: line {number}")
    except OSError as error:
        raise DataError(f"{path}: {error.strerror}; give the file of `foreshock replay --alerts`") from error


def _alert(line: bytes, where: str) -> Alert:
    try:
        return decode_alert(line)
    except ValueError as error:
        raise DataError(f"{where}: {error}; give the file of `foreshock replay --alerts`") from error


def _episode(alert: Alert) -> Episode:
    """An accepted level is how things are from its acceptance on: that is to be learned."""
    last = FOREVER if alert.resolution is None else alert.last if alert.end is None else alert.end
    settles = alert.resolution is not Resolution.ACCEPTED
    return Episode(alert.sensor, alert.alert_id, alert.kind, alert.revision, alert.start, last, settles)


def _under_alert(series: Series, found: Iterable[Episode]) -> Iterator[Masked]:
    """Each episode with the readings it hides, the margin after it among them."""
    margin = MARGIN_INTERVALS * (sampling_interval(series.times) or 0)
    for episode in found:
        last = episode.last + (margin if episode.settles else 0)
        first_row = int(np.searchsorted(series.times, episode.start))
        stop_row = int(np.searchsorted(series.times, last, side="right"))
        if stop_row > first_row:
            first, last = int(series.times[first_row]), int(series.times[stop_row - 1])
            yield Masked(series.sensor, first, last, stop_row - first_row, episode.reason)


def _unusable(series: Series, quality: QualityArray) -> Iterator[Masked]:
    """Runs of readings that are not good, late ones aside: they are not learned from anyway."""
    latest = np.maximum.accumulate(np.r_[np.iinfo(np.int64).min, series.times])[:-1]
    rows = np.flatnonzero(series.times > latest)
    times, said = series.times[rows], quality[rows]
    edges = np.flatnonzero(np.diff(said)) + 1
    for first, stop in zip([0, *edges.tolist()], [*edges.tolist(), len(said)], strict=True):
        if said[first]:
            reason = f"quality {QUALITIES[said[first]]}"
            yield Masked(series.sensor, int(times[first]), int(times[stop - 1]), stop - first, reason)
