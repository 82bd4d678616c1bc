"""The promises of the operator: batching, restarts, redelivery and moves change no score and no alert."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.core.alerts import Alert
from pipeline.core.detector import Detector
from pipeline.core.events import Bound, Rules
from pipeline.core.readings import ReadingBatch
from pipeline.core.thresholds import Budget
from tests import models

RULES = Rules(budget=Budget.parse("1/25/sensor"), bounds=(Bound("*", "c0", 14.0, 26.0, "bar"),))
SHAPES: dict[str, dict[str, object]] = {
    "one channel": {},
    "three channels": {"channels": 3},
    "gru, two layers": {"cell": "gru", "layers": 2},
    "windowed": {"mode": "windowed"},
}


@dataclass(frozen=True)
class Followed:
    scores: np.ndarray
    alerts: list[Alert]

    def __eq__(self, other: object) -> bool:
        assert isinstance(other, Followed)
        return np.array_equal(self.scores, other.scores) and self.alerts == other.alerts


def follow(detector: Detector, batches: Iterable[ReadingBatch]) -> Followed:
    outcomes = [detector.step(batch) for batch in batches]
    return Followed(np.concatenate([o.scores for o in outcomes]), [a for o in outcomes for a in o.alerts])


def cut(batch: ReadingBatch, at: Iterable[int]) -> list[ReadingBatch]:
    edges = [0, *sorted(at), len(batch)]
    return [batch.take(slice(a, b)) for a, b in pairwise(edges)]


@dataclass(frozen=True)
class Case:
    shape: dict[str, object]
    batch: ReadingBatch
    whole: Followed

    def __repr__(self) -> str:
        return f"Case({self.shape})"


@pytest.fixture(scope="module", params=SHAPES, ids=lambda name: name.replace(" ", "-"))
def stream(request: pytest.FixtureRequest) -> Case:
    shape = SHAPES[request.param]
    channels = int(str(shape.get("channels", 1)))
    rows = 110 if shape.get("mode") == "windowed" else 460  # counts enter the tails 150 to 300 readings late
    batch = models.stream(models.waves(2, rows, channels), partitions=2, dropped=0.02)
    whole = follow(Detector(models.model(**shape), RULES), [batch])  # type: ignore[arg-type]
    return Case(shape, batch, whole)


def detector(shape: dict[str, object]) -> Detector:
    return Detector(models.model(**shape), RULES)  # type: ignore[arg-type]


def test_the_stream_of_these_tests_raises_every_kind_of_alert() -> None:
    batch = models.stream(models.waves(2, 460), partitions=2, dropped=0.02)
    alerts = follow(detector({}), [batch]).alerts
    assert {a.kind.value for a in alerts} == {"forecast", "stuck", "gap", "limit"}
    assert {a.state.value for a in alerts} >= {"firing", "resolved"}


@settings(max_examples=6, deadline=None)  # each follows the whole stream
@given(where=st.data())
def test_cutting_the_stream_into_other_batches_changes_nothing(stream: Case, where: st.DataObject) -> None:
    shape, batch, whole = stream.shape, stream.batch, stream.whole
    at = where.draw(st.lists(st.integers(0, len(batch)), max_size=12))
    assert follow(detector(shape), cut(batch, at)) == whole


def test_one_reading_at_a_time_changes_nothing(stream: Case) -> None:
    shape, batch, whole = stream.shape, stream.batch, stream.whole
    assert follow(detector(shape), cut(batch, range(1, len(batch)))) == whole


@settings(max_examples=6, deadline=None)  # each follows the whole stream
@given(where=st.data())
def test_restoring_from_a_snapshot_at_any_cut_changes_nothing(stream: Case, where: st.DataObject) -> None:
    shape, batch, whole = stream.shape, stream.batch, stream.whole
    before, after = cut(batch, [where.draw(st.integers(0, len(batch)))])
    first, second = detector(shape), detector(shape)
    head = follow(first, [before])
    for partition in (0, 1):
        second.restore(partition, first.snapshot(partition))
    tail = follow(second, [after])
    assert Followed(np.concatenate([head.scores, tail.scores]), head.alerts + tail.alerts) == whole


@settings(max_examples=6, deadline=None)  # each follows the whole stream
@given(where=st.data())
def test_redelivering_any_part_raises_nothing_and_changes_nothing_after_it(stream: Case, where: st.DataObject) -> None:
    shape, batch, whole = stream.shape, stream.batch, stream.whole
    a, b = sorted((where.draw(st.integers(0, len(batch))), where.draw(st.integers(0, len(batch)))))
    once, again, rest = batch.take(slice(0, b)), batch.take(slice(a, b)), batch.take(slice(b, None))
    follower = detector(shape)
    head, repeated, tail = follow(follower, [once]), follow(follower, [again]), follow(follower, [rest])
    assert repeated.alerts == []
    assert Followed(np.concatenate([head.scores, tail.scores]), head.alerts + tail.alerts) == whole


@settings(max_examples=6, deadline=None)  # each follows the whole stream
@given(where=st.data())
def test_moving_a_partition_to_another_table_changes_nothing(stream: Case, where: st.DataObject) -> None:
    shape, batch, whole = stream.shape, stream.batch, stream.whole
    at = where.draw(st.integers(0, len(batch)))
    before, after = cut(batch, [at])
    ours, theirs = detector(shape), detector(shape)
    crowd = models.stream(models.waves(9, 40, len(ours.model.channels), seed=5), partitions=1)
    theirs.step(
        ReadingBatch(
            crowd.sensors, crowd.times, crowd.values, crowd.usable, crowd.partitions + 7, crowd.offsets, crowd.received
        )
    )
    head = ours.step(before)
    theirs.restore(1, ours.snapshot(1))
    ours.drop(1)
    moved = after.partitions == 1
    stayed, went = ours.step(after.take(np.flatnonzero(~moved))), theirs.step(after.take(np.flatnonzero(moved)))
    scores = np.empty(len(after))
    scores[~moved], scores[moved] = stayed.scores, went.scores
    assert np.array_equal(np.concatenate([head.scores, scores]), whole.scores)
    assert by_sensor(head.alerts + stayed.alerts + went.alerts) == by_sensor(whole.alerts)


def test_the_future_moves_no_earlier_score(stream: Case) -> None:
    shape, batch, whole = stream.shape, stream.batch, stream.whole
    at = len(batch) * 2 // 3
    changed = ReadingBatch(
        batch.sensors, batch.times, np.where(np.arange(len(batch))[:, None] < at, batch.values, 1e3), batch.usable,
        batch.partitions, batch.offsets, batch.received,
    )  # fmt: skip
    assert np.array_equal(follow(detector(shape), [changed]).scores[:at], whole.scores[:at])


def by_sensor(alerts: list[Alert]) -> dict[str, list[Alert]]:
    return {s: [a for a in alerts if a.sensor == s] for s in sorted({a.sensor for a in alerts})}
