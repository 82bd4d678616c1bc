"""The compiled form does what rounds do: the same alerts, the same scores but for rounding, the same state to go on."""

from __future__ import annotations

import importlib.util
from dataclasses import replace

import numpy as np
import pytest

from pipeline import app, fast
from pipeline.core.alerts import Alert
from pipeline.core.detector import Detector
from pipeline.core.events import Bound, Outcome, Rules
from pipeline.core.model import Model
from pipeline.core.readings import NO_SEQ, ReadingBatch
from pipeline.core.rounds import Rows
from pipeline.core.table import Arrays, Clock, Columns
from pipeline.core.thresholds import Budget
from pipeline.core.walking import Walker
from pipeline.fast import KernelError, walkers
from pipeline.settings import load
from tests import models

RULES = Rules(budget=Budget.parse("1/25/sensor"), bounds=(Bound("*", "c0", 14.0, 26.0, "bar"),))
ROUNDING = 1e-4  # of a score; a value within a rounding of the edge of a bin falls into the next, and moves it by more
FLIPPED = 1e-3  # the share of scores that may be moved so
COUNTED = ("clock", "count", "tally", "since", "raw", "filled")  # what no rounding reaches
SHAPES: dict[str, dict[str, object]] = {
    "one channel": {},
    "nine channels": {"channels": 9},
    "hidden 32": {"hidden": 32, "window": 256},
    "networks of their own": {"networks": 3, "channels": 2},
}


class Counted:
    """A walker that counts what it takes in."""

    def __init__(self, walker: Walker) -> None:
        self.walker, self.taken = walker, 0

    def walk(self, arrays: Columns, batch: ReadingBatch, rows: Rows, todo: Rows, out: Outcome) -> tuple[Rows, Rows]:
        first, rest = self.walker.walk(arrays, batch, rows, todo, out)
        self.taken += len(todo) - len(first) - len(rest)
        return first, rest


def knows_one_of_four(shape: dict[str, object]) -> Model:
    """A model that was trained on s0, by its first 400 readings, and scales s1 to s3 by their own first."""
    blank = models.model(**shape)  # type: ignore[arg-type]
    known = models.learnt(blank, models.one(models.waves(1, 400, len(blank.channels), seed=3)[:, 0], "s0"))
    arrays = {name: table.copy() for name, table in known.sensors.arrays.items()}
    arrays["count"][0, 0] = blank.network.networks - 1
    arrays["clock"][0, 0] = models.START + 500 * models.INTERVAL  # what comes before was trained on
    return replace(known, sensors=replace(known.sensors, arrays=arrays))


def hostile(channels: int, rows: int = 1100) -> ReadingBatch:
    """Jumps, repeats, gaps to fill and to tell of, missing values, huge ones, late ones, duplicates, an hour of nothing
    usable; most readings are numbered, and the numbers start again.
    """
    rng = np.random.default_rng(11)
    batch = models.stream(models.waves(4, rows, channels, seed=4), partitions=2, dropped=0.02)
    values, usable, times = batch.values.copy(), batch.usable.copy(), batch.times.copy()
    n = len(batch)
    values[rng.integers(n, size=n // 200)] *= 1e30
    values[rng.integers(n, size=n // 100), rng.integers(channels, size=n // 100)] = np.inf
    times[rng.integers(n, size=n // 100)] -= 3 * models.INTERVAL
    usable[n // 2 : n // 2 + 60] = False
    numbers = np.where(rng.random(n) < 0.03, NO_SEQ, (batch.times - models.START) // models.INTERVAL % 400)
    again = np.sort(np.concatenate([np.arange(n), rng.integers(n, size=n // 50)]))
    return replace(batch, values=values, usable=usable, times=times, seqs=numbers).take(again)


def told(alerts: list[Alert]) -> list[tuple[object, ...]]:
    """Everything about alerts that is no number of the network's."""
    return [(a.alert_id, a.revision, a.state, a.severity, a.end, a.resolution, a.evidence, a.measure) for a in alerts]


@pytest.fixture(scope="module", params=SHAPES, ids=lambda name: name.replace(" ", "-"))
def model(request: pytest.FixtureRequest) -> Model:
    return knows_one_of_four(SHAPES[request.param])


def test_a_hostile_stream_raises_the_same_alerts_with_the_same_scores_but_for_rounding(model: Model) -> None:
    batch = hostile(len(model.channels))
    by_rounds, compiled = Detector(model, RULES), Detector(model, RULES, walkers=walkers("numba"))
    assert compiled._walker is not None
    compiled._walker = counted = Counted(compiled._walker)
    ours, theirs = by_rounds.step(batch), compiled.step(batch)
    assert counted.taken > len(batch) // 2
    apart = np.abs(ours.scores - theirs.scores) > ROUNDING * np.maximum(np.abs(ours.scores), 1)
    assert apart.mean() <= FLIPPED
    assert told(ours.alerts) == told(theirs.alerts)
    assert {a.kind.value for a in ours.alerts} >= {"forecast", "stuck", "gap", "limit"}
    assert ours.counts == theirs.counts
    assert ours.counts.keys() >= {"imputed", "duplicate", "late", "unusable"}
    assert ours.rejected == theirs.rejected
    np.testing.assert_array_equal(ours.alerting, theirs.alerting)
    np.testing.assert_array_equal(ours.imputed, theirs.imputed)
    for of in ("expected", "band"):
        np.testing.assert_allclose(getattr(ours, of), getattr(theirs, of), rtol=1e-3, atol=1e-3)
    for partition in (0, 1):
        by_name: tuple[Arrays, Arrays] = by_rounds.snapshot(partition), compiled.snapshot(partition)
        for name in COUNTED:
            a, b = (one[name] for one in by_name)
            if name == "tally":  # one bit a reading of which values were new, within a rounding of a step
                a, b = np.delete(a, 4, axis=2), np.delete(b, 4, axis=2)
            np.testing.assert_array_equal(a, b, err_msg=name)


@pytest.mark.parametrize("kernels", [("numpy", "numba"), ("numba", "numpy")])
def test_a_checkpoint_of_one_form_goes_on_under_the_other(kernels: tuple[fast.Kernel, fast.Kernel]) -> None:
    model, batch = knows_one_of_four(SHAPES["one channel"]), hostile(1, 900)
    half = len(batch) // 2
    first, second = (Detector(model, RULES, walkers=walkers(kernel)) for kernel in kernels)
    head = first.step(batch.take(slice(0, half)))
    for partition in (0, 1):
        second.restore(partition, first.snapshot(partition))
    tail = second.step(batch.take(slice(half, None)))
    assert told(head.alerts + tail.alerts) == told(Detector(model, RULES).step(batch).alerts)


def test_columns_that_are_read_only_or_strided_are_as_good_as_others() -> None:
    model = knows_one_of_four({"channels": 2})
    batch = hostile(2, 300)
    strided = replace(batch, values=np.asfortranarray(batch.values), times=np.repeat(batch.times, 2)[::2])
    strided.times.flags.writeable = False
    ours, theirs = (Detector(model, RULES, walkers=walkers("numba")).step(one) for one in (batch, strided))
    np.testing.assert_array_equal(ours.scores, theirs.scores)


def test_a_numbered_stream_with_short_gaps_is_compiled_but_for_what_is_special_in_it() -> None:
    model = knows_one_of_four({"channels": 2})
    batch = models.stream(models.waves(4, 900, 2, seed=4), partitions=2)
    row = (batch.times - models.START) // models.INTERVAL
    batch = replace(batch, seqs=row, received=np.zeros_like(row)).take(np.flatnonzero(row % 150 != 149))
    by_rounds, compiled = Detector(model, RULES), Detector(model, RULES, walkers=walkers("numba"))
    assert compiled._walker is not None
    compiled._walker = counted = Counted(compiled._walker)
    ours, theirs = by_rounds.step(batch), compiled.step(batch)
    assert ours.counts == theirs.counts
    assert ours.counts["imputed"] > 0
    assert counted.taken > 0.9 * (ours.counts["scored"] - ours.counts["imputed"])
    np.testing.assert_array_equal(ours.imputed, theirs.imputed)
    for column in (Clock.SEQ, Clock.SEQ_SEEN):
        for partition in (0, 1):
            here, there = (one.snapshot(partition)["clock"][:, column] for one in (by_rounds, compiled))
            np.testing.assert_array_equal(here, there)


def test_readings_that_may_have_to_wait_are_stepped_in_rounds() -> None:
    model = knows_one_of_four({"channels": 2})
    assert Detector(model, replace(RULES, reorder=3), walkers=walkers("numba"))._walker is None


@pytest.mark.parametrize("shape", [{"cell": "gru"}, {"layers": 2}, {"mode": "windowed"}], ids=str)
def test_what_has_no_compiled_form_is_stepped_in_rounds(shape: dict[str, object]) -> None:
    model = models.model(**shape)  # type: ignore[arg-type]
    batch = models.stream(models.waves(2, 80))
    ours, theirs = (Detector(model, RULES, walkers=walkers(kernel)).step(batch) for kernel in ("numpy", "numba"))
    np.testing.assert_array_equal(ours.scores, theirs.scores)


def test_numpy_needs_nothing_and_numba_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    assert walkers("numpy") is None
    with pytest.raises(KernelError, match=r"install the extra `fast`"):
        walkers("numba")


def test_a_checkpoint_records_what_computed_it() -> None:
    kernels = [
        app.kernel(load(None, {"KAFKA_BOOTSTRAP_SERVERS": "b:1", "FORESHOCK_KERNEL": kernel}))
        for kernel in ("numpy", "numba")
    ]
    assert kernels[1].startswith(f"{kernels[0]}, numba ")
