"""The rolling state of every sensor as struct of arrays: one row a sensor, rows tagged with their partition."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, NamedTuple, TypeVar

import numpy as np
import numpy.typing as npt

from pipeline.core.model import Array, Model
from pipeline.core.names import coded
from pipeline.core.readings import IntArray

Arrays = dict[str, npt.NDArray[Any]]  # field -> rows
Scalar = TypeVar("Scalar", bound=np.generic)

FEATURES = 7  # see `features`
TAIL_BINS = 32
NOVELTY_BINS = 640
BLOCKS = 64
MARK_BITS = 32  # of a word of `filled`
NEVER = -(2**62)  # µs: before any reading


class Clock:
    """Columns of `clock`, int64: times in µs, offsets in the topic."""

    LEARN_FROM, GAP_LIMIT = 0, 1  # learned: what came before was trained on; silence beyond the limit is a gap
    USUAL_STEP = 2  # learned: the longest time between readings that is usual
    LAST, OFFSET, ONSET, ONSET_OFFSET, UPDATED, GAP_FROM = 3, 4, 5, 6, 7, 8
    ASTRAY, ASTRAY_FROM, ASTRAY_RECEIVED, ASTRAY_OFFSET, WRONG_SINCE, SET_BACK = 9, 10, 11, 12, 13, 14  # see `stamps`
    BELIEVED_OFFSET = 15  # of the reading with which the clock was last believed to be set back
    SEQ, SEQ_SEEN = 16, 17  # see `sequence`


class Count:
    """Columns of `count`, int32."""

    NETWORK, FITTED = 0, 1  # learned: which weights, and by what the sensor is scaled, see below
    LEARNED, SEEN, SINCE = 2, 3, 4  # readings counted into tails and blocks, read, read since a start or gap
    HOLD, STATE, BELOW, OPEN, REVISION, SEVERITY = 5, 6, 7, 8, 9, 10
    ASTRAY, WRONG_CLOCK = 11, 12  # see `stamps`
    FILLED = 13  # values of the window that never came, see `imputed`
    ONSETS, SPENT_FROM = 14, 15  # alarms, and LEARNED since when they are counted, see `thresholds.raised`


UNFITTED, TRAINED, UNSEEN = 0, 1, 2  # no scale yet; the model knows the sensor; scaled by its own first readings


class Held:
    """Columns of `held`, int64: a reading that waits, see `reorder`."""

    TIME, RECEIVED, SEQ, USABLE = 0, 1, 2, 3


class Level:
    """Columns of `level`, float32: the episode calibration, then the running episode."""

    USUAL, EXCESS = 0, 1  # learned: median and mean excess of the block maxima
    OWN_USUAL, OWN_EXCESS, OWN_BLOCKS = 2, 3, 4  # learned: those of its training, and how many blocks they weigh
    BLOCK, PEAK, SCORE = 5, 6, 7
    ASKED = 8  # of the score with which the running episode began


class Lane:
    """Columns of `lane`, float32, one lane a sensor and target channel."""

    LOG_ERROR, LOW, HIGH = 0, 1, 2  # learned: log of the usual error, range of the fit part
    MEAN, MEAN_THEN, BIAS, SCALED, BEYOND, LASTING = 3, 6, 9, 10, 11, 12  # MEAN and MEAN_THEN are three columns each
    OFFSET = 13  # by which the one-step forecast keeps missing
    STEP, MOVED, STEPPED = 14, 15, 16  # of a sensor the model was not trained on: what its network's say has earned


class Tally:
    """Columns of `tally`, int32, one lane a sensor and target channel."""

    STUCK_LIMIT, SEEN = 0, 1  # learned: repeats that are unusual (0: never), values the memory has been shown
    RUN, STUCK, NOVEL_BITS, BEYOND, BACK = 2, 3, 4, 5, 6
    MISSED = 7  # readings without a value since the last that had one


@dataclass(slots=True, eq=False)
class Columns:
    """Every array of the table, one row a sensor; what is used together lies in one array."""

    clock: npt.NDArray[np.int64]  # (N, 18) columns of `Clock`
    count: npt.NDArray[np.int32]  # (N, 16) columns of `Count`
    level: Array  # (N, 9) columns of `Level`
    blocks: Array  # (N, BLOCKS) ring of block maxima of the combined surprise, NaN where absent
    scale: npt.NDArray[np.float64]  # (N, channels, 2) location and scale
    lane: Array  # (N, targets, 17) columns of `Lane`
    tally: npt.NDArray[np.int32]  # (N, targets, 8) columns of `Tally`
    known: npt.NDArray[np.uint32]  # (N, targets, words) a bit for each value bin ever occupied
    prototypes: npt.NDArray[np.uint8]  # (N, targets, 4, prototypes) contexts in steps, 255 where empty
    hits: npt.NDArray[np.uint16]  # (N, targets, prototypes) when each was hit last
    tail: npt.NDArray[np.uint16]  # (N, targets, FEATURES, TAIL_BINS) how many values lie in this bin or above
    pending: npt.NDArray[np.uint8]  # (N, targets, 2, FEATURES, TAIL_BINS) counts that wait for their delay
    bounds: npt.NDArray[np.float64]  # (N, targets, 2) physical limits
    since: npt.NDArray[np.int64]  # (N, targets, 2) µs: start of the run of equal values, of the crossed limit
    raw: npt.NDArray[np.float64]  # (N, channels) last value
    carried: Array  # (N, state) the network's h and c
    window: Array  # (N, window, channels) ring of scaled values
    filled: npt.NDArray[np.uint32]  # (N, targets, words) a bit for each reading of the window that had no value
    forecast: Array  # (N, targets, sum of horizons) a ring a horizon, in asinh(x)
    held: npt.NDArray[np.int64]  # (N, reorder, 4) columns of `Held`, NEVER where nothing waits
    held_values: npt.NDArray[np.float64]  # (N, reorder, channels)

    def __getitem__(self, field: str) -> npt.NDArray[Any]:
        found: npt.NDArray[Any] = getattr(self, field)
        return found


class Field(NamedTuple):
    """The shape of one sensor's part of an array, and how many leading columns a bundle carries (-1: all)."""

    shape: tuple[int, ...]
    dtype: type[np.generic]
    fill: float
    learned: int


def layout(model: Model, reorder: int = 0) -> dict[str, Field]:
    """Every field of a row, of which so many readings may wait. Bytes a sensor: see `row_bytes`."""
    channels, targets = len(model.channels), len(model.targets)
    prototypes = 128 if targets == 1 else 0  # see `features.new_pattern`
    state = sum(layer.recurrent.shape[1] for layer in model.network.layers) * (2 if model.network.cell == "lstm" else 1)
    return {
        "clock": Field((18,), np.int64, 0, 3),
        "count": Field((16,), np.int32, 0, 2),
        "level": Field((9,), np.float32, 0, 5),
        "blocks": Field((BLOCKS,), np.float32, np.nan, 0),
        "scale": Field((channels, 2), np.float64, 0, -1),
        "lane": Field((targets, 17), np.float32, 0, 3),
        "tally": Field((targets, 8), np.int32, 0, 2),
        "known": Field((targets, NOVELTY_BINS // 32), np.uint32, 0, -1),
        "prototypes": Field((targets, 4, prototypes), np.uint8, 255, -1),
        "hits": Field((targets, prototypes), np.uint16, 0, -1),
        "tail": Field((targets, FEATURES, TAIL_BINS), np.uint16, 0, -1),
        "pending": Field((targets, 2, FEATURES, TAIL_BINS), np.uint8, 0, 0),
        "bounds": Field((targets, 2), np.float64, 0, 0),
        "since": Field((targets, 2), np.int64, 0, 0),
        "raw": Field((channels,), np.float64, np.nan, 0),
        "carried": Field((state,), np.float32, 0, 0),
        "window": Field((model.network.window, channels), np.float32, 0, 0),
        "filled": Field((targets, -(-model.network.window // MARK_BITS)), np.uint32, 0, 0),
        "forecast": Field((targets, sum(model.network.horizons)), np.float32, 0, 0),
        "held": Field((reorder, 4), np.int64, NEVER, 0),
        "held_values": Field((reorder, channels), np.float64, np.nan, 0),
    }


def names_in(arrays: Mapping[str, npt.NDArray[Any]], of: str) -> list[str]:
    """The sensors of a snapshot's rows; ValueError, which says it is `of` what, where it does not name them."""
    names = arrays.get("names")
    if names is None or names.dtype.kind != "S" or names.ndim != 1:
        found = "nothing" if names is None else f"{names.dtype}{names.shape[1:]}"
        raise ValueError(f"{of} field names: expected bytes, found {found}")
    return [bytes(name).decode() for name in names.tolist()]


def flat(array: npt.NDArray[Scalar]) -> npt.NDArray[Scalar]:
    """(rows, targets, ...) as (lanes, ...), a view."""
    return array.reshape(array.shape[0] * array.shape[1], *array.shape[2:])


def row_bytes(model: Model, reorder: int = 0) -> int:
    """Bytes of array state a sensor of this model takes; its name and index entry come on top (about 150)."""
    return sum(int(np.prod(f.shape)) * np.dtype(f.dtype).itemsize for f in layout(model, reorder).values())


def learned(arrays: Columns, fields: Mapping[str, Field]) -> Arrays:
    """The part of rows that a bundle carries, (S, ...) per field."""
    return {
        name: arrays[name] if field.learned < 0 else arrays[name][..., : field.learned]
        for name, field in fields.items()
        if field.learned
    }


class SensorTable:
    """Rows by (partition, sensor). Each array is replaced when the table grows: take them anew for each step."""

    def __init__(self, fields: Mapping[str, Field]) -> None:
        self.fields = dict(fields)
        self.arrays = self.blank(64)
        self.names: list[str | None] = [None] * 64
        self.partition: IntArray = np.full(64, -1, np.int64)
        self.index: dict[int, dict[str, int]] = {}  # partition -> sensor -> row
        self._free = list(range(63, -1, -1))

    def __len__(self) -> int:
        return sum(len(rows) for rows in self.index.values())

    def blank(self, rows: int) -> Columns:
        """Rows as they are before anything is known of a sensor."""
        return Columns(**{name: np.full((rows, *f.shape), f.fill, f.dtype) for name, f in self.fields.items()})

    def locate(self, names: Sequence[str], partitions: IntArray) -> tuple[npt.NDArray[np.intp], list[int]]:
        """The row of each sensor, (n,), and the rows that were made for it just now."""
        if len(names) == 1:  # a lone reading is not worth columns
            partition, name = int(partitions[0]), names[0]
            index = self.index.setdefault(partition, {})
            made = [] if name in index else [self.claim(name, partition)]
            return np.array([index[name]], np.intp), made
        names = coded(names)
        home = np.full(len(names.table), -1, np.int64)  # partition of each entry; -1: no reading has it
        home[names.at] = partitions
        rows = np.full(len(names.table), -1, np.intp)
        made = []
        order = np.argsort(home, kind="stable")
        cuts = np.flatnonzero(np.diff(home[order], prepend=-1)).tolist()  # unused entries come first
        for start, stop in pairwise([*cuts, len(order)]):
            entries = order[start:stop]
            partition = int(home[entries[0]])
            index = self.index.setdefault(partition, {})
            here = [names.table[i] for i in entries.tolist()]
            found = list(map(index.get, here))  # of a large fleet, every look at a name waits for memory: one each
            if None in found:
                made += [self.claim(name, partition) for name in dict.fromkeys(here) if name not in index]
                found = list(map(index.get, here))
            rows[entries] = np.array(found, np.intp)
        return rows[names.at], made

    def find(self, name: str) -> list[int]:
        """The rows of a sensor: none, one, or several where it is seen in several partitions."""
        return [index[name] for index in self.index.values() if name in index]

    def rows_of(self, partition: int | None = None) -> npt.NDArray[np.intp]:
        """Rows of one partition (or of all), ordered by partition and name whatever the order of arrival."""
        partitions = sorted(self.index) if partition is None else [partition]
        rows = [row for p in partitions for _, row in sorted(self.index.get(p, {}).items())]
        return np.array(rows, np.intp)

    def by_name(self, rows: npt.NDArray[np.intp]) -> npt.NDArray[np.intp]:
        """These rows of one partition in the order of their names."""
        return np.array(sorted(rows.tolist(), key=lambda row: self.names[row] or ""), np.intp)

    def gather(self, rows: npt.NDArray[np.intp]) -> Arrays:
        """Copies of whole rows, with their names as UTF-8 bytes."""
        names = np.array([(self.names[r] or "").encode() for r in rows], dtype=np.bytes_)
        return {"names": names} | {name: self.arrays[name][rows] for name in self.fields}

    def put(self, partition: int, arrays: Mapping[str, npt.NDArray[Any]]) -> None:
        """Take in rows that `gather` made, into `partition`; ValueError where the layout differs."""
        for name, field in self.fields.items():
            if name not in arrays or arrays[name].shape[1:] != field.shape or arrays[name].dtype != field.dtype:
                found = f"{arrays[name].dtype}{arrays[name].shape[1:]}" if name in arrays else "nothing"
                raise ValueError(f"state field {name}: expected {np.dtype(field.dtype)}{field.shape}, found {found}")
        names = names_in(arrays, "state")
        rows, _ = self.locate(names, np.full(len(names), partition, np.int64))
        for name in self.fields:
            self.arrays[name][rows] = arrays[name]

    def remove(self, rows: npt.NDArray[np.intp]) -> None:
        """Forget these sensors; their rows are used again."""
        for row in rows.tolist():
            name = self.names[row]
            assert name is not None
            del self.index[int(self.partition[row])][name]
            self.names[row] = None
            self.partition[row] = -1
            self._free.append(row)

    def claim(self, sensor: str, partition: int) -> int:
        """A blank row for a sensor that has none."""
        if not self._free:
            self._grow()
        row = self._free.pop()
        for name, field in self.fields.items():
            self.arrays[name][row] = field.fill
        self.names[row] = sensor
        self.partition[row] = partition
        self.index[partition][sensor] = row
        return row

    def _grow(self) -> None:
        """Twice as many rows, a field at a time; a new row takes no memory until it is claimed."""
        old = len(self.names)
        for name, field in self.fields.items():
            more = np.empty((2 * old, *field.shape), field.dtype)
            more[:old] = self.arrays[name]
            setattr(self.arrays, name, more)
        self.names += [None] * old
        self.partition = np.concatenate([self.partition, np.full(old, -1, np.int64)])
        self._free = list(range(2 * old - 1, old - 1, -1))
