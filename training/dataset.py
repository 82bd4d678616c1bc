"""Series into what training reads: groups of like sensors, each with its history cleaned, cut and split in time."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

import numpy as np
from sklearn.preprocessing import RobustScaler, StandardScaler

from pipeline.adapters.files import DataError, Series
from pipeline.core.model import Model
from pipeline.core.quality import USUAL_SILENCE, gap_limit, usual_step
from pipeline.core.readings import DAY, SECOND, BoolArray, FloatArray, IntArray
from pipeline.core.scaling import LARGEST_RAW, Statistics

FEWEST_ROWS = 60  # a sensor with fewer is served by its group's network, but neither fits nor calibrates it
HELD_OUT = 0.3  # share of a history, its end: never fitted, so that calibration sees errors as live ones will be
UNITS = {"d": DAY, "h": 3600 * SECOND, "min": 60 * SECOND, "s": SECOND, "ms": SECOND // 1000, "us": 1}

Spans = IntArray  # (spans, 2): first and last time of each, µs UTC
NO_SPANS: Spans = np.empty((0, 2), np.int64)
NOTHING_MASKED: Mapping[str, Spans] = {}


@dataclass(frozen=True, slots=True, eq=False)
class History:
    """One sensor's readings as the detector would have taken them in: in time, with a value, gaps marked."""

    sensor: str
    times: IntArray  # (n,) µs UTC, rising
    values: FloatArray  # (n, channels); a missing value is the channel's last one
    missing: BoolArray  # (n, channels) where `values` was filled
    starts: IntArray  # (segments,) the first row after each gap; row 0 is one
    held_out: int  # the first row of the held-out part
    gap_limit: int  # µs of silence beyond which a new segment starts
    usual_step: int = 0  # µs, the longest between readings that is usual; 0: the interval

    def __len__(self) -> int:
        return len(self.times)

    @property
    def enough(self) -> bool:
        """Long enough to fit and calibrate on."""
        return len(self) >= FEWEST_ROWS

    def fit_segments(self) -> list[slice]:
        """Rows to fit on, in stretches without a gap."""
        return self._segments(0, self.held_out)

    def held_out_segments(self) -> list[slice]:
        """Rows to validate and calibrate on, in stretches without a gap."""
        return self._segments(self.held_out, len(self))

    def _segments(self, first: int, stop: int) -> list[slice]:
        inner = self.starts[(self.starts > first) & (self.starts < stop)].tolist()
        return [slice(a, b) for a, b in pairwise([first, *inner, stop]) if b > a]


@dataclass(frozen=True, slots=True, eq=False)
class Group:
    """Sensors with the same channels and sampling interval: one bundle, one network or one for each."""

    name: str
    channels: tuple[str, ...]
    targets: tuple[str, ...]  # what is forecast and scored; the other channels are inputs only
    interval: int  # µs between readings
    histories: tuple[History, ...]  # by sensor name; at least one is long enough
    notes: tuple[str, ...]  # what was decided about this group, in sentences


@dataclass(frozen=True, slots=True)
class Dataset:
    """All groups that can be trained, and a sentence for each sensor that cannot."""

    groups: tuple[Group, ...]
    left_out: tuple[str, ...]


def training_part(series: Sequence[Series], fraction: float = 1.0, max_rows: int | None = None) -> list[Series]:
    """The first `fraction` of each sensor's rows, at most `max_rows` of them."""
    if not 0 < fraction <= 1:
        raise ValueError(f"the fraction to train on must be above 0 and at most 1, not {fraction:g}")
    if max_rows is not None and max_rows < 1:
        raise ValueError(f"the rows to train on must be at least 1, not {max_rows}")
    most = max_rows if max_rows is not None else max(map(len, series), default=0)
    return [s.first(min(int(fraction * len(s)), most)) for s in series]


def prepare(
    series: Sequence[Series], masked: Mapping[str, Spans] = NOTHING_MASKED, taken: Collection[str] = ()
) -> Dataset:
    """Sort sensors into groups by channels and interval; DataError where none has enough readings to learn from.

    Readings in the spans `masked` of their sensor are left out. No group gets one of the names `taken`.
    """
    like: dict[tuple[frozenset[str], int], list[Series]] = defaultdict(list)
    brief: list[Series] = []
    left_out: list[str] = []
    for one in sorted(map(in_time, series), key=lambda s: s.sensor):
        interval = sampling_interval(one.times)
        if not len(_left(one, masked)):
            why = f"all of its {len(one)} readings are masked" if len(one) else "no reading of it has a value"
            left_out.append(f"{one.sensor}: {why}; not trained")
        elif interval is None:
            brief.append(one)
        else:
            like[frozenset(one.channels), interval].append(one)
    left_out += [_join_largest(one, like) for one in brief]
    groups: list[Group] = []
    for (_, interval), members in sorted(like.items(), key=lambda item: (-len(item[1]), item[1][0].sensor)):
        group = _group(members, interval, {g.name for g in groups} | set(taken), masked)
        if group is not None:
            groups.append(group)
        else:
            names = ", ".join(s.sensor for s in members[:3]) + (", …" if len(members) > 3 else "")
            left_out.append(f"{names}: no sensor of this kind has {FEWEST_ROWS} readings with a value; not trained")
    if not groups:
        longest = max(series, key=len, default=None)
        found = f"the longest, {longest.sensor!r}, has {len(longest)} rows" if longest else "there are none"
        raise DataError(
            f"no sensor has {FEWEST_ROWS} readings in time order with a value, which training needs ({found}); "
            "give more history, or raise --fraction and --max-rows"
        )
    return Dataset(tuple(groups), tuple(sentence for sentence in left_out if sentence))


def plausible(series: Series, now: int) -> tuple[Series, str]:
    """Without the readings stamped after `now` (µs) and the values no sensor has; a sentence where there were any.

    One stamp from the far future would make every reading before it late, and say that the model knows that future.
    """
    past = series.times <= now
    sane = np.abs(np.where(np.isnan(series.values), 0.0, series.values)) <= LARGEST_RAW
    found = [
        f"{count} {what}"
        for count, what in (
            (int((~past).sum()), "readings stamped in the future"),
            (int((~sane).sum()), f"values beyond {LARGEST_RAW:g}"),
        )
        if count
    ]
    values = np.where(sane, series.values, np.nan)[past]
    kept = Series(series.sensor, series.times[past], series.channels, values, series.zone)
    return kept, f"{series.sensor}: {' and '.join(found)} left out" if found else ""


def in_time(series: Series) -> Series:
    """Without the readings that the detector would not take in: late, duplicate, or without any value."""
    latest = np.maximum.accumulate(np.r_[np.iinfo(np.int64).min, series.times])[:-1]
    kept = (series.times > latest) & ~np.isnan(series.values).all(axis=1)
    return Series(series.sensor, series.times[kept], series.channels, series.values[kept], series.zone)


def regroup(series: Sequence[Series], like: Model, masked: Mapping[str, Spans] = NOTHING_MASKED) -> Group | None:
    """The sensors of a group that is served already, as its next version reads them; None where none is long enough.

    Name, channels, targets and interval stay, whatever the readings are like by now: only so can a running service
    take the version up. A sensor with too few readings is left out if `like` knows it: it knew more of it.
    """
    known = set(like.sensors.names)
    members = [s for s in sorted(map(in_time, series), key=lambda s: s.sensor) if len(_left(s, masked))]
    read = [history(s, like.channels, like.interval, masked.get(s.sensor, NO_SPANS)) for s in members]
    histories = tuple(h for h in read if h.enough or h.sensor not in known)
    if not any(h.enough for h in histories):
        return None
    notes = _notes((), like.channels, like.targets, histories)
    if absent := sorted(known - {h.sensor for h in histories}):
        kept = f"fewer than {FEWEST_ROWS} readings, so kept as version {like.ref.version} knows them"
        notes.append(f"{kept}: {_some(absent, 'sensor')}")
    if unread := sorted({c for s in members for c in s.channels} - set(like.channels)):
        notes.append(f"not read by this group, neither here nor live: {_some(unread, 'channel')}")
    return Group(like.group, like.channels, like.targets, like.interval, histories, tuple(notes))


def unmasked(times: IntArray, spans: Spans) -> BoolArray:
    """Which of the rising `times` lie in none of the spans, (n,)."""
    left = np.ones(len(times), np.bool_)
    stops = np.searchsorted(times, spans[:, 1], side="right")
    for first, stop in zip(np.searchsorted(times, spans[:, 0]).tolist(), stops.tolist(), strict=True):
        left[first:stop] = False
    return left


def sampling_interval(times: IntArray) -> int | None:
    """Median time between readings in µs, to two digits of its unit (s, h, d); None for fewer than two readings."""
    if len(times) < 2:
        return None
    median = float(np.median(np.diff(times)))
    unit = next((UNITS[u] for u in ("d", "h") if median >= UNITS[u]), SECOND)
    return max(round(float(f"{median / unit:.1e}") * unit), 1)


def interval_name(interval: int) -> str:
    """300 s as 5min: in the largest unit that it is a whole number of."""
    unit = next(u for u, size in UNITS.items() if interval % size == 0)
    return f"{interval // UNITS[unit]}{unit}"


def sensor_statistics(history: History) -> Statistics:
    """Median, spread and deviation of each channel over the rows to fit on, missing values left out, (channels,)."""
    rows = slice(0, history.held_out)
    known = np.where(history.missing[rows], np.nan, history.values[rows])
    known[:, np.isnan(known).all(axis=0)] = 0.0  # a channel that was never seen reads as the constant 0
    robust, standard = RobustScaler(unit_variance=True).fit(known), StandardScaler().fit(known)
    low, high = np.nanquantile(known, [0.25, 0.75], axis=0)
    spread = np.where(high > low, robust.scale_, 0.0)  # scikit-learn gives 1 where the quartiles coincide
    return Statistics(robust.center_, spread, np.sqrt(standard.var_))


def target_channels(channels: Sequence[str], series: Sequence[Series]) -> tuple[str, ...]:
    """The channels worth a forecast: all but commands, unless there is nothing else.

    A command only ever is 0 or 1 and has been both. A channel that stood at 0 is a command only where it is one of
    a numbered family of them (command_01 … command_54); else it is constant, and any change of it is the anomaly.
    """
    stacked = np.concatenate([s.columns(channels) for s in series])
    binary = (np.isnan(stacked) | (stacked == 0) | (stacked == 1)).all(axis=0)
    switches = binary & (stacked == 0).any(axis=0) & (stacked == 1).any(axis=0)
    families: dict[str, list[int]] = defaultdict(list)
    for i, channel in enumerate(channels):
        families[re.sub(r"[\W_]*\d+$", "", channel)].append(i)
    commands = {i for family in families.values() if binary[family].all() and switches[family].any() for i in family}
    return tuple(c for i, c in enumerate(channels) if i not in commands) or tuple(channels)


def history(series: Series, channels: Sequence[str], interval: int, masked: Spans = NO_SPANS) -> History:
    """The readings of one sensor, cut at gaps, missing values filled with the channel's last (at first its median).

    What is masked is not there, and cut at as a gap is; the sensor was not silent then, so the limit of a gap stays.
    """
    kept = np.flatnonzero(unmasked(series.times, masked))
    times, values = series.times[kept], series.columns(channels)[kept]
    missing = np.isnan(values)
    last = np.maximum.accumulate(np.where(missing, -1, np.arange(len(values))[:, None]), axis=0)
    usual = np.where(missing.all(axis=0), 0.0, _median(values))
    filled = np.where(last < 0, usual, np.take_along_axis(values, np.maximum(last, 0), axis=0))
    limit = gap_limit(series.times, interval)
    tolerated = np.where(np.diff(kept) > 1, min(limit, USUAL_SILENCE * interval), limit)
    starts = np.r_[0, np.flatnonzero(np.diff(times) > tolerated) + 1]
    held_out = len(times) - int(HELD_OUT * len(times))
    return History(series.sensor, times, filled, missing, starts, held_out, limit, usual_step(series.times, interval))


def _median(values: FloatArray) -> FloatArray:
    known = np.where(np.isnan(values).all(axis=0), 0.0, values)
    median: FloatArray = np.nanmedian(known, axis=0)
    return median


def _left(series: Series, masked: Mapping[str, Spans]) -> Series:
    """The series without what is masked."""
    kept = unmasked(series.times, masked.get(series.sensor, NO_SPANS))
    return replace(series, times=series.times[kept], values=series.values[kept])


def _join_largest(one: Series, like: dict[tuple[frozenset[str], int], list[Series]]) -> str:
    """Put a sensor too short to tell its interval to the most of its kind; a sentence where it has no kind."""
    same = [key for key in like if key[0] == frozenset(one.channels)]
    if not same:
        return f"{one.sensor}: {len(one)} usable readings do not tell its sampling interval; not trained"
    like[max(same, key=lambda key: len(like[key]))].append(one)
    return ""


def _group(
    members: Sequence[Series], interval: int, taken: Collection[str], masked: Mapping[str, Spans]
) -> Group | None:
    """None where no member has enough readings."""
    channels, left = members[0].channels, [_left(s, masked) for s in members]
    seen = ~np.isnan(np.concatenate([s.columns(channels) for s in left])).all(axis=0)
    silent = [c for c, known in zip(channels, seen, strict=True) if not known]
    channels = tuple(c for c in channels if c not in silent)
    histories = tuple(history(s, channels, interval, masked.get(s.sensor, NO_SPANS)) for s in members)
    if not any(h.enough for h in histories):
        return None
    targets = target_channels(channels, left)
    stem = re.sub(r"\W+", "-", targets[0]).strip("-") or "channel"
    name = f"{stem}+{len(channels) - 1}" if len(channels) > 1 else stem
    name = f"{name}-{interval_name(interval)}"
    unique = next(n for n in (name, *(f"{name}-{k}" for k in range(2, len(taken) + 3))) if n not in taken)
    return Group(unique, channels, targets, interval, histories, tuple(_notes(silent, channels, targets, histories)))


def _notes(
    silent: Sequence[str], channels: Sequence[str], targets: Sequence[str], histories: Sequence[History]
) -> list[str]:
    notes = [f"channel {c!r} has no value in any sensor: left out" for c in silent]
    if inputs := [c for c in channels if c not in targets]:
        notes.append(f"only ever 0 or 1, so read but not forecast: {_some(inputs, 'channel')}")
    if short := [h.sensor for h in histories if not h.enough]:
        notes.append(f"fewer than {FEWEST_ROWS} readings, so served but not fitted on: {_some(short, 'sensor')}")
    long = [h for h in histories if h.enough]
    for i, channel in enumerate(channels):
        if unseen := [h.sensor for h in long if h.missing[:, i].all()]:
            notes.append(f"channel {channel!r} has no value, so it is taken as 0, in {_some(unseen, 'sensor')}")
        still = [h.sensor for h in long if not h.missing[:, i].all() and not np.ptp(h.values[:, i])]
        if still and channel in targets:
            notes.append(f"channel {channel!r} never changes, so any change counts, in {_some(still, 'sensor')}")
    return notes


def _some(names: Sequence[str], noun: str) -> str:
    shown = ", ".join(names[:3]) + (", …" if len(names) > 3 else "")
    return f"{len(names)} {noun}{'s' if len(names) > 1 else ''} ({shown})"
