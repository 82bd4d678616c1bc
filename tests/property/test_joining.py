"""Readings joined from parts: cuts and restarts show nowhere, and whole readings come out of their parts."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.core.joining import Joiner
from pipeline.core.readings import NO_SEQ, SECOND, ReadingBatch

CHANNELS, INTERVAL, START, FUTURE = 3, 10 * SECOND, 10**15, 60 * SECOND

WHOLE = 2**CHANNELS - 1

Part = tuple[int, int, int, int, bool]  # sensor, seconds, channels as bits, value, usable

parts = st.lists(
    st.tuples(
        st.integers(0, 4), st.integers(0, 60) | st.just(1000), st.integers(0, WHOLE) | st.just(WHOLE),
        st.integers(0, 3), st.booleans(),
    ),
    max_size=60,
)  # fmt: skip


def joiner(most: int | None = None) -> Joiner:
    return Joiner(CHANNELS, INTERVAL, max_future=FUTURE, most=most)


def batch(said: list[Part], partitions: int = 2) -> ReadingBatch:
    """The parts as they come, each at an offset of its own."""
    n = len(said)
    bits = np.array([[named >> c & 1 for c in range(CHANNELS)] for _, _, named, _, _ in said], bool)
    values = np.array([[float(value)] * CHANNELS for *_, value, _ in said])
    times = np.array([START + second * SECOND for _, second, *_ in said], np.int64)
    return ReadingBatch(
        [f"s{sensor}" for sensor, *_ in said], times,
        np.where(bits.reshape(n, CHANNELS), values.reshape(n, CHANNELS), np.nan),
        np.array([usable for *_, usable in said], bool),
        np.array([sensor % partitions for sensor, *_ in said], np.int64), np.arange(n, dtype=np.int64),
        np.full(n, START + 60 * SECOND, np.int64), np.where(np.arange(n) % 3 == 2, NO_SEQ, np.arange(n)),
    )  # fmt: skip


def rows(batch: ReadingBatch) -> list[tuple[object, ...]]:
    """What says all of it, NaN as None."""
    values = [[None if np.isnan(v) else v for v in row] for row in batch.values.tolist()]
    seqs = np.full(len(batch), NO_SEQ) if batch.seqs is None else batch.seqs
    columns = (batch.usable, batch.partitions, batch.offsets, batch.received, seqs)
    numbers = zip(*(column.tolist() for column in columns), strict=True)
    told = zip(batch.sensors, batch.times.tolist(), values, numbers, strict=True)
    return [(sensor, time, tuple(row), *rest) for sensor, time, row, rest in told]


@given(said=parts, cuts=st.sets(st.integers(0, 60)), most=st.sampled_from([None, 1, 2]))
@settings(max_examples=300, deadline=None)
def test_neither_cuts_nor_restarts_change_what_comes_out(said: list[Part], cuts: set[int], most: int | None) -> None:
    whole, counts = joiner(most).join(batch(said))
    edges = sorted({0, len(said), *(cut for cut in cuts if cut < len(said))})
    at_work, found, counted = joiner(most), list[tuple[object, ...]](), dict[str, int]()
    for begin, end in pairwise(edges):
        part, some = at_work.join(batch(said).take(slice(begin, end)))
        found += rows(part)
        for what, how_many in some.items():
            counted[what] = counted.get(what, 0) + how_many
        after = joiner(most)  # another process
        for partition in (0, 1):
            after.restore(partition, at_work.snapshot(partition))
        at_work = after
    assert found == rows(whole)
    assert counted == counts


@given(said=parts)
@settings(max_examples=200, deadline=None)
def test_offsets_rise_and_no_value_is_made_up_or_said_twice(said: list[Part]) -> None:
    sent, (made, _) = batch(said), joiner().join(batch(said))
    for partition in (0, 1):
        assert (np.diff(made.offsets[made.partitions == partition]) >= 0).all()
    for sensor in set(made.sensors):
        for channel in range(CHANNELS):
            ours, theirs = (
                [v for s, v in zip(b.sensors, b.values[:, channel].tolist(), strict=True) if s == sensor and v == v]
                for b in (made, sent)
            )
            for value in set(ours):
                assert ours.count(value) <= theirs.count(value)


@given(
    minutes=st.integers(1, 12), jitter=st.lists(st.integers(0, 4), min_size=36, max_size=36), seed=st.integers(0, 99)
)  # fmt: skip
@settings(max_examples=100, deadline=None)
def test_parts_that_are_less_than_half_an_interval_apart_are_one_reading(
    minutes: int, jitter: list[int], seed: int
) -> None:
    rng = np.random.default_rng(seed)
    said = [
        (0, 10 * row + jitter[row * CHANNELS + int(c)], 1 << int(c), row % 4, True)
        for row in range(minutes)
        for c in rng.permutation(CHANNELS)
    ]
    made, counts = joiner().join(batch(said))
    assert made.values.tolist() == [[float(row % 4)] * CHANNELS for row in range(minutes)]
    assert counts == {}


def test_a_channel_that_no_longer_comes_has_no_value_once_the_next_reading_begins() -> None:
    made, _ = joiner().join(batch([(0, 0, 0b001, 1, True), (0, 1, 0b010, 2, True), (0, 10, 0b001, 3, True)]))
    assert rows(made) == [("s0", START, (1.0, 2.0, None), True, 0, 2, START + 60 * SECOND, NO_SEQ)]


def test_readings_that_are_whole_pass_as_they_are() -> None:
    whole = batch([(0, 0, 0b111, 1, True), (1, 0, 0b111, 1, False)])
    made, _ = joiner().join(whole)
    assert made is whole


def test_a_part_that_is_not_usable_is_there_and_has_no_value() -> None:
    made, _ = joiner().join(batch([(0, 0, 0b001, 1, False), (0, 1, 0b110, 2, True)]))
    assert [(row[2], row[3]) for row in rows(made)] == [((None, 2.0, 2.0), True)]


def test_a_clock_that_was_set_back_joins_again_after_as_many_readings_as_there_are_channels() -> None:
    said = [(0, 50, 0b001, 1, True), *((0, 10 * row, 1 << c, 1, True) for row in range(4) for c in range(CHANNELS))]
    made, counts = joiner().join(batch(said))
    assert [row[2] for row in rows(made)] == [(1.0, None, None), *[(1.0, 1.0, 1.0)] * 3]
    assert counts == {"late": CHANNELS}


def test_a_part_that_lies_before_the_open_reading_is_late_and_makes_no_reading_of_its_own() -> None:
    begun = [(0, 0, WHOLE, 1, True), (0, 20, 0b001, 3, True)]
    stragglers = [(0, 10, 0b010, 2, True), (0, 10, 0b000, 2, True)]
    made, counts = joiner().join(batch([*begun, *stragglers, (0, 20, 0b110, 3, True)]))
    assert [(row[1], row[2]) for row in rows(made)] == [
        (START, (1.0, 1.0, 1.0)), (START + 20 * SECOND, (3.0, 3.0, 3.0))
    ]  # fmt: skip
    assert counts == {"late": 2}


def test_a_whole_reading_that_lies_before_the_open_one_is_left_to_the_detector() -> None:
    made, counts = joiner().join(batch([(0, 20, 0b001, 3, True), (0, 10, WHOLE, 2, True), (0, 20, 0b110, 3, True)]))
    assert [row[2] for row in rows(made)] == [(2.0, 2.0, 2.0), (3.0, 3.0, 3.0)]
    assert counts == {}


def test_the_same_part_once_more_is_counted() -> None:
    _, counts = joiner().join(
        batch([(0, 0, 0b001, 1, True), (0, 0, 0b001, 1, True), (0, 2, 0b001, 3, True), (0, 3, 0b010, 1, True)])
    )
    assert counts == {"duplicate": 1, "late": 1}


def test_an_open_reading_that_makes_room_is_late_and_no_sensor_that_was_evicted() -> None:
    made, counts = joiner(most=1).join(batch([(0, 0, 0b001, 1, True), (2, 0, 0b001, 1, True), (2, 1, 0b110, 1, True)]))
    assert [row[0] for row in rows(made)] == ["s2"]
    assert counts == {"late": 1}


@pytest.mark.parametrize("field", ["names", "stamps", "values", "came", "usable"])
def test_a_snapshot_without_one_of_its_fields_is_refused_by_its_name(field: str) -> None:
    at_work = joiner()
    at_work.join(batch([(0, 0, 0b001, 1, True)]))
    arrays = at_work.snapshot(0)
    del arrays[field]
    with pytest.raises(ValueError, match=f"open readings.* field {field}"):
        joiner().restore(0, arrays)


def test_a_snapshot_of_other_channels_is_refused() -> None:
    other = Joiner(2, INTERVAL, max_future=FUTURE)
    with pytest.raises(ValueError, match="open readings"):
        joiner().restore(0, other.snapshot(0))
