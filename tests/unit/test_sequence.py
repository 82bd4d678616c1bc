"""Numbered readings: what has come before is known by its number, and a number that starts again drops nothing."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from pipeline.core import sequence
from pipeline.core.alerts import Kind
from pipeline.core.frames import Frame, batch_of
from pipeline.core.readings import NO_SEQ, FloatArray, Reading, ReadingBatch
from pipeline.core.table import Clock
from tests.models import INTERVAL
from tests.settled import CALM, after, assert_same_state, at, calm, settled


def numbered(values: FloatArray, first: int = 0, *, offset: int = CALM) -> ReadingBatch:
    """The next readings of the settled sensor, numbered from `first` on."""
    return replace(after(values, first=offset), seqs=first + np.arange(len(values), dtype=np.int64))


def test_a_reading_sent_again_is_a_duplicate_by_its_number_and_one_that_was_missed_is_late() -> None:
    detector, batch = settled(), numbered(calm(20))
    detector.step(batch.take(np.setdiff1d(np.arange(20), [7])))
    again = replace(batch, offsets=batch.offsets + 1000)  # by another message
    assert detector.step(again.take(np.array([5, 12, 19]))).counts == {"duplicate": 3}
    assert detector.step(again.take(np.array([7]))).counts == {"late": 1}
    assert detector.step(replace(again.take(np.array([7])), offsets=np.array([2000]))).counts == {"late": 1}


def test_without_a_number_only_the_newest_reading_is_known_again() -> None:
    detector, batch = settled(), after(calm(20))
    detector.step(batch)
    assert detector.step(batch.take(np.array([5, 19]))).counts == {"late": 1, "duplicate": 1}


def test_another_number_under_the_same_stamp_and_value_is_no_duplicate() -> None:
    detector, batch = settled(), numbered(calm(5))
    detector.step(batch)
    twin = replace(batch.take(np.array([4])), seqs=np.array([5]), offsets=np.array([CALM + 5]))
    assert detector.step(twin).counts == {"late": 1}


def test_the_newest_reading_stamped_anew_at_once_is_a_duplicate_and_changes_nothing() -> None:
    detector, other, batch = settled(), settled(), numbered(calm(5))
    detector.step(batch)
    other.step(batch)
    anew = replace(batch.take(np.array([4])), times=batch.times[4:] + INTERVAL // 3, offsets=np.array([CALM + 5]))
    assert detector.step(anew).counts == {"duplicate": 1}
    assert_same_state(detector, other)


def test_a_number_that_starts_again_drops_nothing_wherever_it_starts() -> None:
    for first in (0, 30, 49, 50, 1000):
        detector = settled()
        detector.step(numbered(calm(50)))
        outcome = detector.step(numbered(calm(50, seed=3), first, offset=CALM + 50))
        assert outcome.counts == {"scored": 50}


def test_a_sender_that_never_counts_is_read_all_the_same() -> None:
    detector = settled()
    batch = after(np.r_[calm(20)[:, 0], np.full(5, 20.0)])
    assert detector.step(replace(batch, seqs=np.zeros(25, np.int64))).counts == {"scored": 25}


def test_a_device_that_was_reset_with_its_clock_and_its_number_is_followed_again() -> None:
    detector = settled()
    detector.step(numbered(calm(50)))
    reset = replace(numbered(calm(40, seed=3), offset=CALM + 50), times=at(0) + np.arange(40) * INTERVAL)
    outcome = detector.step(replace(reset, received=np.zeros(40, np.int64)))
    assert outcome.counts == {"late": 9, "scored": 31}
    assert [a.kind for a in outcome.alerts] == [Kind.CLOCK] * 2


def test_a_constant_sensor_that_counts_is_told_of_when_its_clock_stands_still() -> None:
    detector = settled()
    stood = numbered(np.full(160, 20.5))
    times = np.full(160, at(CALM))
    outcome = detector.step(replace(stood, times=times))
    assert outcome.counts == {"scored": 1, "late": 159}
    assert [a.kind for a in outcome.alerts] == [Kind.CLOCK]


def test_delivering_again_changes_nothing_whatever_the_numbers_do() -> None:
    rng = np.random.default_rng(5)
    batch = after(calm(80))
    batch = replace(batch, seqs=rng.integers(0, 40, 80), times=batch.times + rng.integers(-3, 3, 80) * INTERVAL)
    once, twice = settled(), settled()
    once.step(batch.take(slice(0, 60)))
    twice.step(batch.take(slice(0, 60)))
    assert twice.step(batch.take(slice(20, 60))).alerts == []
    assert_same_state(once, twice)
    for detector in (once, twice):
        detector.step(batch.take(slice(60, None)))
    assert_same_state(once, twice)


def test_how_a_batch_is_cut_changes_nothing_whatever_the_numbers_do() -> None:
    rng = np.random.default_rng(6)
    batch = replace(after(calm(80)), seqs=rng.integers(-1, 30, 80))
    whole, cut = settled(), settled()
    scores = whole.step(batch).scores
    np.testing.assert_array_equal(
        np.concatenate([cut.step(batch.take(slice(i, i + 1))).scores for i in range(80)]), scores
    )
    assert_same_state(whole, cut)


@given(st.lists(st.tuples(st.integers(0, 150), st.booleans()), max_size=80))
def test_the_window_is_the_last_64_numbers(said: list[tuple[int, bool]]) -> None:
    """Against sets: fresh numbers move the window, and one that is known or far behind starts it again."""
    clock = np.zeros((1, Clock.SEQ_SEEN + 1), np.int64)
    newest, known = 0, set[int]()
    for seq, fresh in said:
        one, flag = np.array([seq]), np.array([fresh])
        assert sequence.seen(clock, one)[0] == (seq in known and seq > newest - 64)
        if fresh and (not known or seq in known or abs(seq - newest) >= 64):
            newest, known = seq, {seq}
        elif fresh or (known and seq <= newest):
            newest, known = max(newest, seq), known | ({seq} if seq > newest - 64 else set())
        known = {k for k in known if k > newest - 64}
        sequence.note(clock, one, flag, ~flag)
        assert {s for s in range(160) if sequence.seen(clock, np.array([s]))[0]} == known


def test_a_batch_of_messages_carries_numbers_only_where_there_are_any() -> None:
    plain, counted = Reading("s", 0, {"c": 1.0}), Reading("s", 1, {"c": 2.0}, seq=7, offset=1)
    assert batch_of(Frame.of([plain]), ["c"]).seqs is None
    seqs = batch_of(Frame.of([plain, counted]), ["c"]).seqs
    assert seqs is not None
    assert seqs.tolist() == [NO_SEQ, 7]
