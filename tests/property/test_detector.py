"""The promises of the operator: batching, restarts, redelivery and moves change no score and no alert."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.core.alerts import Alert, Kind
from pipeline.core.detector import Detector
from pipeline.core.events import Bound, Outcome, Rules
from pipeline.core.model import Model
from pipeline.core.readings import FloatArray, ReadingBatch
from pipeline.core.table import TRAINED, UNSEEN, Count
from pipeline.core.thresholds import Budget
from pipeline.core.walking import Walkers
from pipeline.fast import walkers
from tests import models

RULES = Rules(budget=Budget.parse("1/25/sensor"), bounds=(Bound("*", "c0", 14.0, 26.0, "bar"),))
SHAPES: dict[str, dict[str, object]] = {
    "one channel": {},
    "nine channels": {"channels": 9},
    "gru, two layers": {"cell": "gru", "layers": 2},
    "windowed": {"mode": "windowed"},
    "wrong clocks": {},
    "wrong clocks, out of order": {},
}
COMPILED = ("one channel", "nine channels", "wrong clocks")  # of which the extra `fast` has a form
FORMS = [*((shape, "numpy") for shape in SHAPES), *((shape, "numba") for shape in COMPILED)]
ROWS, HISTORY = 460, 120  # readings; counts enter the tails 150 to 300 readings late


@dataclass(frozen=True)
class Followed:
    scores: np.ndarray
    alerts: list[Alert]
    received: list[int]  # the timestamp of the record that each alert was told at, µs

    def __eq__(self, other: object) -> bool:
        assert isinstance(other, Followed)
        ours, theirs = (self.alerts, self.received), (other.alerts, other.received)
        return np.array_equal(self.scores, other.scores) and ours == theirs

    def __add__(self, rest: Followed) -> Followed:
        scores = np.concatenate([self.scores, rest.scores])
        return Followed(scores, self.alerts + rest.alerts, self.received + rest.received)


def follow(detector: Detector, batches: Iterable[ReadingBatch]) -> Followed:
    followed = Followed(np.empty(0), [], [])
    for batch in batches:
        followed += of(batch, detector.step(batch))
    return followed


def of(batch: ReadingBatch, outcome: Outcome) -> Followed:
    assert len(outcome.told_at) == len(outcome.alerts)
    return Followed(outcome.scores, outcome.alerts, batch.received[outcome.told_at].tolist() if outcome.alerts else [])


def cut(batch: ReadingBatch, at: Iterable[int]) -> list[ReadingBatch]:
    edges = [0, *sorted(at), len(batch)]
    return [batch.take(slice(a, b)) for a, b in pairwise(edges)]


@dataclass(frozen=True)
class Case:
    model: Model
    rules: Rules
    batch: ReadingBatch
    outcome: Outcome  # of all of it at once
    walkers: Walkers | None

    @property
    def whole(self) -> Followed:
        return of(self.batch, self.outcome)

    def __repr__(self) -> str:
        return f"Case({self.model.network.cell}, {self.model.network.mode}, {len(self.model.channels)} channels)"

    def detector(self) -> Detector:
        return Detector(self.model, self.rules, walkers=self.walkers)


def trained_on_one_of_three(shape: dict[str, object]) -> Model:
    """A model that was trained on s0, and scales s1 and s2 by their first readings."""
    blank = models.model(**shape)  # type: ignore[arg-type]
    return models.learnt(blank, models.one(models.waves(1, HISTORY, len(blank.channels), seed=3)[:, 0], "s0"))


def later(batch: ReadingBatch) -> ReadingBatch:
    """The same after the history."""
    times = batch.times + HISTORY * models.INTERVAL
    return replace(batch, times=times, received=times)


def with_wrong_clocks(batch: ReadingBatch) -> ReadingBatch:
    """One clock is ahead for a while, one stands still, one is set back and put right; records are right."""
    sensors, times = np.array(batch.sensors), batch.times.copy()
    row = (times - times.min()) // models.INTERVAL
    ahead, still, behind = (
        (sensors == sensor) & (row >= first) & (row < last)
        for sensor, first, last in (("s0", 200, 216), ("s1", 250, 270), ("s2", 150, 300))
    )
    times[ahead] += 90 * models.INTERVAL
    times[still] = times[still][0] - models.INTERVAL
    times[behind] -= 60 * models.INTERVAL
    return replace(batch, times=times, seqs=row % 90)  # and all count, from 0 again now and then


def overtaken(batch: ReadingBatch, by: int, seed: int = 0) -> ReadingBatch:
    """The readings in another order: each may be overtaken by so many of its sensor, or fewer."""
    rng, places = np.random.default_rng(seed), np.arange(len(batch))
    order = np.empty(len(batch), np.intp)
    for sensor in sorted(set(batch.sensors)):
        own = places[np.array(batch.sensors) == sensor]
        order[own] = own[np.argsort(np.arange(len(own)) + rng.uniform(0, by + 1, len(own)), kind="stable")]
    return replace(batch.take(order), offsets=batch.offsets, partitions=batch.partitions)


@pytest.fixture(scope="module", params=FORMS, ids=lambda form: "-".join(form).replace(" ", "-"))
def stream(request: pytest.FixtureRequest) -> Case:
    shape, kernel = request.param
    model, walk = trained_on_one_of_three(SHAPES[shape]), walkers(kernel)
    rows = 110 if model.network.mode == "windowed" else ROWS
    batch = later(models.stream(models.waves(3, rows, len(model.channels)), partitions=2, dropped=0.02, bad=0.02))
    if "wrong clocks" in shape:
        batch = with_wrong_clocks(batch)
    rules = RULES
    if "out of order" in shape:
        batch, rules = overtaken(batch, 5), replace(RULES, reorder=3)  # some come too late
    detector = Detector(model, rules, walkers=walk)
    outcome = detector.step(batch)
    assert [detector.snapshot(p)["count"][:, Count.FITTED].tolist() for p in (0, 1)] == [[TRAINED, UNSEEN], [UNSEEN]]
    return Case(model, rules, batch, outcome, walk)


def test_the_streams_of_these_tests_raise_every_kind_of_alert() -> None:
    batch = later(models.stream(models.waves(3, ROWS), partitions=2, dropped=0.02, bad=0.02))
    alerts = follow(Detector(trained_on_one_of_three({}), RULES), [batch]).alerts
    for sensor in ("s0", "s1", "s2"):
        assert {a.kind.value for a in alerts if a.sensor == sensor} >= {"forecast"}
    assert {a.kind.value for a in alerts} >= {"forecast", "stuck", "gap", "limit"}
    assert {a.state.value for a in alerts} >= {"firing", "resolved"}
    alerts = follow(Detector(trained_on_one_of_three({}), RULES), [with_wrong_clocks(batch)]).alerts
    clocks = [(a.sensor, a.state.value) for a in alerts if a.kind is Kind.CLOCK]
    assert sorted(clocks) == [(f"s{i}", state) for i in range(3) for state in ("firing", "resolved")]


@settings(max_examples=6, deadline=None)  # each follows the whole stream
@given(where=st.data())
def test_cutting_the_stream_into_other_batches_changes_nothing(stream: Case, where: st.DataObject) -> None:
    batch, whole = stream.batch, stream.whole
    at = where.draw(st.lists(st.integers(0, len(batch)), max_size=12))
    assert follow(stream.detector(), cut(batch, at)) == whole


def test_one_reading_at_a_time_changes_nothing(stream: Case) -> None:
    batch, whole = stream.batch, stream.whole
    assert follow(stream.detector(), cut(batch, range(1, len(batch)))) == whole


@settings(max_examples=6, deadline=None)  # each follows the whole stream
@given(where=st.data())
def test_restoring_from_a_snapshot_at_any_cut_changes_nothing(stream: Case, where: st.DataObject) -> None:
    batch, whole = stream.batch, stream.whole
    before, after = cut(batch, [where.draw(st.integers(0, len(batch)))])
    first, second = stream.detector(), stream.detector()
    head = follow(first, [before])
    for partition in (0, 1):
        second.restore(partition, first.snapshot(partition))
    tail = follow(second, [after])
    assert head + tail == whole


@settings(max_examples=6, deadline=None)  # each follows the whole stream
@given(where=st.data())
def test_redelivering_any_part_raises_nothing_and_changes_nothing_after_it(stream: Case, where: st.DataObject) -> None:
    batch, whole = stream.batch, stream.whole
    a, b = sorted((where.draw(st.integers(0, len(batch))), where.draw(st.integers(0, len(batch)))))
    once, again, rest = batch.take(slice(0, b)), batch.take(slice(a, b)), batch.take(slice(b, None))
    follower = stream.detector()
    head, repeated, tail = follow(follower, [once]), follow(follower, [again]), follow(follower, [rest])
    assert repeated.alerts == []
    assert head + tail == whole


@settings(max_examples=6, deadline=None)  # each follows the whole stream
@given(where=st.data())
def test_moving_a_partition_to_another_table_changes_nothing(stream: Case, where: st.DataObject) -> None:
    batch, whole = stream.batch, stream.whole
    at = where.draw(st.integers(0, len(batch)))
    before, after = cut(batch, [at])
    ours, theirs = stream.detector(), stream.detector()
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


FUTURES: dict[str, Callable[[FloatArray, np.random.Generator], FloatArray]] = {
    "huge": lambda values, rng: np.full_like(values, 1e9),
    "still": lambda values, rng: np.full_like(values, 21.5),
    "missing": lambda values, rng: np.full_like(values, np.nan),
    "other": lambda values, rng: 20 + 3 * rng.standard_normal(values.shape),
    "backwards": lambda values, rng: values[::-1],
    "larger": lambda values, rng: values * 1.5,
}


@settings(max_examples=6, deadline=None)  # each follows the whole stream
@given(where=st.data())
def test_the_future_moves_nothing_that_was_said_before_it(stream: Case, where: st.DataObject) -> None:
    """Past and future come in one batch. One sensor's future may change, or all sensors'; so may its times."""
    batch, theirs = stream.batch, stream.outcome
    at = where.draw(st.integers(1, len(batch) - 1))
    future = FUTURES[where.draw(st.sampled_from(sorted(FUTURES)))]
    sensors = where.draw(st.sampled_from([("s0",), ("s1",), ("s0", "s1", "s2")]))
    later_by = where.draw(st.sampled_from([0, models.INTERVAL, 500 * models.INTERVAL]))
    changed = np.flatnonzero((np.arange(len(batch)) >= at) & np.isin(batch.sensors, sensors))
    values, times, received = batch.values.copy(), batch.times.copy(), batch.received.copy()
    values[changed] = future(values[changed], np.random.default_rng(at))
    times[changed] += later_by
    received[changed] += later_by
    mine = stream.detector().step(replace(batch, values=values, times=times, received=received))
    for name in ("scores", "alerting", "expected", "band"):
        np.testing.assert_array_equal(getattr(mine, name)[:at], getattr(theirs, name)[:at], err_msg=name)
    before = len(stream.detector().step(batch.take(slice(0, at))).alerts)  # they come in the order of the readings
    assert mine.alerts[:before] == theirs.alerts[:before]
    untouched = ~np.isin(batch.sensors, sensors)
    np.testing.assert_array_equal(mine.scores[untouched], theirs.scores[untouched])


def by_sensor(alerts: list[Alert]) -> dict[str, list[Alert]]:
    return {s: [a for a in alerts if a.sensor == s] for s in sorted({a.sensor for a in alerts})}
