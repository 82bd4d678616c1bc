"""What a fit reads: scaled readings in stretches without a gap, laid on tapes, and the batches read from them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from pipeline.core.lstm import features, squash
from pipeline.core.model import Array
from pipeline.core.readings import BoolArray, IntArray


@dataclass(frozen=True, slots=True, eq=False)
class Sequences:
    """A group's scaled readings, sensor by sensor, cut at every gap; no segment is empty, none holds a NaN."""

    sensors: tuple[tuple[Array, ...], ...]  # segments of (T, channels)
    target_columns: npt.NDArray[np.intp]  # (targets,)

    def segments(self) -> list[Array]:
        """All of them, sensor by sensor."""
        return [segment for of_sensor in self.sensors for segment in of_sensor]

    @property
    def rows(self) -> IntArray:
        """Readings of each sensor, (sensors,)."""
        return np.array([sum(map(len, segments)) for segments in self.sensors], np.int64)

    @property
    def channels(self) -> int:
        """Width of a reading; 0 where there is none."""
        return next((segment.shape[1] for segment in self.segments()), 0)


def network_inputs(segment: Array) -> Array:
    """(T, channels) -> (T, 2 * channels); the first reading has none before it, so its change is 0."""
    return features(segment, np.concatenate([segment[:1], segment[:-1]]))


def steps_ahead(
    segment: Array, target_columns: npt.NDArray[np.intp], horizons: Sequence[int]
) -> tuple[Array, BoolArray]:
    """z[t+h] - z[t] of the targets, (T, horizons, targets), and where t+h still lies in the segment, (T, horizons)."""
    z = squash(segment)[:, target_columns]
    now = np.arange(len(z))[:, None]
    ahead = now + np.array(horizons)
    return z[np.minimum(ahead, len(z) - 1)] - z[now], ahead < len(z)


class Batch(NamedTuple):
    """T consecutive readings of B streams for each of M networks."""

    inputs: Array  # (M, T, B, F)
    steps: Array  # (M, T, B, horizons, targets)
    known: BoolArray  # (M, T, B, horizons): the others do not count
    carry: BoolArray  # (M, T, B): False where the state before the reading is zero


@dataclass(frozen=True, slots=True, eq=False)
class Tapes:
    """Each network's segments end to end, a loop; all networks one after the other, N rows."""

    inputs: Array  # (N, F)
    steps: Array  # (N, horizons, targets)
    known: BoolArray  # (N, horizons)
    carry: BoolArray  # (N,): False at the first reading of a segment
    start: IntArray  # (M,)
    length: IntArray  # (M,)

    @classmethod
    def lay(cls, sequences: Sequences, horizons: Sequence[int], own: bool) -> Tapes:
        """One tape for all sensors, or each sensor its own."""
        segments = sequences.segments()
        ahead = [steps_ahead(segment, sequences.target_columns, horizons) for segment in segments]
        rows = sequences.rows if own else sequences.rows.sum(keepdims=True)
        return cls(
            inputs=np.concatenate([network_inputs(segment) for segment in segments]),
            steps=np.concatenate([steps for steps, _ in ahead]),
            known=np.concatenate([known for _, known in ahead]),
            carry=np.concatenate([np.arange(len(segment)) > 0 for segment in segments]),
            start=np.cumsum(rows) - rows,
            length=rows,
        )

    def read(self, at: IntArray, count: int) -> Batch:
        """`count` readings from the places `at` on, (M, B), round and round; an empty tape counts for nothing."""
        place = (at[:, None] + np.arange(count)[:, None]) % np.maximum(self.length, 1)[:, None, None]  # (M, T, B)
        row = np.minimum(self.start[:, None, None] + place, len(self.inputs) - 1)
        known = self.known[row] & (self.length > 0)[:, None, None, None]
        return Batch(self.inputs[row], self.steps[row], known, self.carry[row])

    def sweep(self, streams: int, burn_in: int, longest: int, count: int) -> Iterator[Batch]:
        """Every row counted once, by `streams` in parallel; of a share beyond `longest` rows only the first ones.

        Each stream reads `burn_in` rows before its share, which settle its state and do not count.
        """
        share = -(-self.length // streams)
        first = np.arange(streams) * share[:, None]  # (M, B)
        last = np.minimum(first + np.minimum(share, longest)[:, None], self.length[:, None])
        for offset in range(-burn_in, int((last - first).max()), count):
            batch = self.read(first + offset, count)
            place = first[:, None] + offset + np.arange(count)[:, None]  # (M, T, B)
            counted = (place >= first[:, None]) & (place < last[:, None])
            yield batch._replace(known=batch.known & counted[..., None])


def endless(tapes: Tapes, streams: int, count: int, seed: int, restarts: float, window: int | None) -> Iterator[Batch]:
    """Batches for training: streams spread over the tapes read on, and now and then start from zero elsewhere.

    Carried: a share `restarts` of the streams at every batch. Windowed: each when it has read `window` readings,
    of which the first quarter does not count. Chance is the same for every network, so that what one learns
    does not depend on which others are fitted beside it.
    """
    chance = np.random.default_rng(seed)
    at = np.arange(streams) * tapes.length[:, None] // streams  # (M, B)
    age = np.arange(streams) * count % (window or 1)  # spread, so that no batch is all burn-in
    burn_in = window // 4 if window else 0
    while True:
        fresh = age >= window if window else chance.random(streams) < restarts
        at = np.where(fresh, (chance.random(streams) * tapes.length[:, None]).astype(np.int64), at)
        age = np.where(fresh, 0, age)
        batch = tapes.read(at, count)
        batch.carry[:, 0] &= ~fresh
        batch.known[...] &= (age + np.arange(count)[:, None] >= burn_in)[None, :, :, None]
        yield batch
        at, age = at + count, age + count
