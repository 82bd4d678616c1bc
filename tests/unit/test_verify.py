"""A span that is replayed raises the alerts that were published; where they are not the same, it says which and how."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest

from pipeline import bundle
from pipeline.adapters.checkpoints import FolderCheckpoints
from pipeline.adapters.kafka_span import Stretch
from pipeline.adapters.memory import MemoryBroker, MemorySink, MemorySource
from pipeline.codecs import JSON
from pipeline.core.alerts import Alert, Evidence, Kind, ModelRef, Resolution, Severity, State
from pipeline.core.readings import SECOND, Reading, ReadingBatch, Record
from pipeline.progress import Clock
from pipeline.recovery import Recovery
from pipeline.replay_topic import Part, Seen, TopicReplay
from pipeline.runner import Runner
from pipeline.serving import serving
from pipeline.settings_schema import Settings
from pipeline.verify import Verdict, compare
from tests.models import START, model, stream, waves
from tests.service import saved
from tests.unit.test_runner import drained, paced

TOPIC = "sensor.readings"
PARTITIONS = 2
KERNEL = "numpy 2, openblas Haswell"
LATER = 3600.0  # s, in which nothing comes


@dataclass
class Past:
    """What a service did, and left."""

    folder: Path
    settings: Settings
    broker: MemoryBroker

    def replayed(self, *stretches: Stretch, kernel: str = KERNEL) -> tuple[list[Part], list[Alert]]:
        kept = FolderCheckpoints(self.folder / "checkpoints")
        past = TopicReplay(self.settings, TOPIC, kept, kernel)
        parts = [p for i, stretch in enumerate(stretches) for p in past.parts(i, stretch, 0)]
        return parts, [a for part in parts for a in past.alerts(part, self.read(part), lambda _: None)]

    def read(self, part: Part) -> Iterator[list[Record]]:
        records = self.broker.records[part.partition][part.begins : part.stretch.end]
        for start in range(0, len(records), 123):
            yield records[start : start + 123]

    def published(self, *stretches: Stretch) -> list[Alert]:
        return [
            alert for alert in self.broker.alerts
            if alert.kind is Kind.INPUT_SILENT or stretches[alert.evidence.partition].holds(alert.evidence.last_offset)
        ]  # fmt: skip

    def verdict(self, *stretches: Stretch) -> Verdict:
        return against(self.published(*stretches), self.replayed(*stretches)[1], *stretches)

    def whole(self) -> list[Stretch]:
        return [Stretch(0, self.broker.end(p)) for p in range(PARTITIONS)]


def against(
    published: Sequence[Alert], replayed: Sequence[Alert], *stretches: Stretch, other: Sequence[int] = ()
) -> Verdict:
    return compare(published, replayed, {p: stretch.first for p, stretch in enumerate(stretches)}, set(other))


def produced(broker: MemoryBroker, batch: ReadingBatch) -> None:
    for i, sensor in enumerate(batch.sensors):
        reading = Reading(sensor, int(batch.times[i]), {"c0": float(batch.values[i, 0])})
        partition = int(batch.partitions[i])
        broker.produce(JSON.encode(reading), key=sensor.encode(), partition=partition, timestamp=reading.time)


@pytest.fixture(scope="module")
def past(tmp_path_factory: pytest.TempPathFactory) -> Past:
    """A service that was killed twice, swapped its model, and saw silences that only its clock could notice."""
    folder = tmp_path_factory.mktemp("past")
    saved(folder / "models")
    settings = Settings.model_validate(
        {
            "kafka": {"bootstrap_servers": "localhost:9092"},
            "model": {"dir": folder / "models"},
            "detection": {"budget": "1/100/sensor"},
        }
    )
    broker, days, now = MemoryBroker(partitions=PARTITIONS), itertools.count(), [0.0]
    clock = Clock(wall=lambda: START / SECOND + 86_400, monotonic=lambda: now[0])

    def started() -> Runner:
        serves = serving(settings, bundle.load_all(settings.model.dir))
        groups = serves.groups()
        store = FolderCheckpoints(folder / "checkpoints", 3650, clock=lambda: next(days) * 3600.0)
        recovery = Recovery(groups, store, TOPIC, serves.fingerprint, KERNEL)
        source, sink = MemorySource(broker, most_records=100), MemorySink(broker)
        pace = paced(checkpoint_seconds=3.0, commit_seconds=1.5)
        return Runner(groups, source, sink, recovery, pace, lambda: bundle.load_all(settings.model.dir), clock)

    batch = stream(waves(6, 700), partitions=PARTITIONS, dropped=0.02)
    half = len(batch) // 2
    for version, part in (("2", batch.take(slice(0, half))), ("3", batch.take(slice(half, len(batch))))):
        runner = started()
        produced(broker, part)
        for _ in range(12):
            now[0] += 0.7
            runner.turn()
        runner = started()  # the one before was killed
        drained(runner, broker)
        now[0] += LATER
        runner.turn()
        saved(settings.model.dir, model(version=version, seed=9))
        runner.take_up_models()
        runner.turn()
        runner.drain(0)
    assert {alert.model.version for alert in broker.alerts} == {"", "1", "2"}  # no model speaks for a partition
    return Past(folder, settings, broker)


def test_nothing_differs_though_the_service_was_killed_and_its_model_swapped(past: Past) -> None:
    whole = past.whole()
    parts, raised = past.replayed(*whole)
    verdict = against(past.published(*whole), raised, *whole)
    assert verdict.differences == ()
    assert verdict.published > 30
    assert {alert.kind for alert in raised} >= {Kind.FORECAST, Kind.STUCK, Kind.GAP}
    assert {alert.model.version for alert in raised} == {"1", "2"}
    assert all(part.checkpoint and not part.changed and not part.kernel for part in parts)
    assert {alert.kind for alert, _ in verdict.apart} == {Kind.GAP, Kind.INPUT_SILENT}


@pytest.mark.parametrize("seed", range(5))
def test_any_span_can_be_verified(past: Past, seed: int) -> None:
    rng = np.random.default_rng(seed)
    stretches = [Stretch(*sorted(rng.integers(0, past.broker.end(p), 2).tolist())) for p in range(PARTITIONS)]
    assert past.verdict(*stretches).differences == ()


def test_of_a_span_without_a_checkpoint_it_says_so_and_begins_with_what_is_left(past: Past, tmp_path: Path) -> None:
    empty = replace(past, folder=tmp_path)
    parts, raised = empty.replayed(*past.whole())
    assert [(part.begins, part.checkpoint) for part in parts] == [(0, ""), (0, "")]
    assert against(past.published(*past.whole()), raised, *past.whole()).differences, (
        "the models that served are in no checkpoint"
    )


def test_other_settings_are_said_and_make_a_difference(past: Past) -> None:
    detection = past.settings.detection.model_copy(update={"budget": "1/1000/sensor"})
    other = replace(past, settings=past.settings.model_copy(update={"detection": detection}))
    parts, raised = other.replayed(*past.whole())
    assert {part.changed for part in parts} == {"other settings in [detection], [model] or sensors.csv"}
    differences = against(past.published(*past.whole()), raised, *past.whole()).differences
    assert {difference.what for difference in differences} >= {"missing", "spurious"}


def test_a_bundle_that_is_gone_is_said_and_the_one_of_today_makes_a_difference(past: Past, tmp_path: Path) -> None:
    saved(tmp_path, model(version="other", seed=3))
    settings = past.settings.model_copy(update={"model": past.settings.model.model_copy(update={"dir": tmp_path})})
    parts, raised = replace(past, settings=settings).replayed(*past.whole())
    assert {part.changed for part in parts} == {"another model for g"}
    assert against(past.published(*past.whole()), raised, *past.whole()).differences


def test_scores_are_left_as_a_replay_of_files_leaves_them(past: Past, tmp_path: Path) -> None:
    kept, seen = FolderCheckpoints(past.folder / "checkpoints"), Seen()
    replay, stretch, raised = TopicReplay(past.settings, TOPIC, kept, KERNEL), Stretch(100, 300), list[Alert]()
    for part in replay.parts(0, stretch, 0):
        seen.under(part.groups)
        raised += replay.alerts(part, past.read(part), seen.add)
    left = seen.replay(raised, replay.fleet)
    assert sum(len(one.series) for one in left.sensors) == 200
    left.write(tmp_path, "1/100/sensor")
    assert sorted(path.name for path in tmp_path.glob("*.csv")) == ["s0.csv", "s2.csv", "s4.csv"]
    assert left.groups["g"].sensors == ("s0", "s2", "s4")


# -- what a comparison says of single alerts


ALERT = Alert(
    "a" * 16, 1, State.FIRING, Kind.FORECAST, Severity.WARNING, "s", START, START, Evidence(0, 7, 7, TOPIC, "then"),
    ModelRef("g", "1", "0" * 64), score=4.0004, threshold=4.0, expected={"c0": 1.5}, actual={"c0": float("nan")},
)  # fmt: skip
GAP = replace(ALERT, kind=Kind.GAP, score=None, threshold=None, measure=300.0, limit=50.0)
OVER = replace(
    GAP, revision=2, state=State.RESOLVED, resolution=Resolution.RETURNED, end=START + 300 * SECOND, measure=300.0
)


GAP_OF_ALL = replace(GAP, alert_id="b" * 16, kind=Kind.INPUT_SILENT, sensor="partition-0", start=START + 100 * SECOND)


def said(published: Sequence[Alert], replayed: Sequence[Alert]) -> list[tuple[str, int]]:
    return [(what, alert.revision) for what, alert, _ in against(published, replayed).differences]


def test_what_the_moment_of_telling_decides_is_no_difference() -> None:
    told = replace(ALERT, mode="catchup", evidence=replace(ALERT.evidence, checkpoint="now"))
    assert against([told], [ALERT]) == Verdict(1, 1, (), ())


def test_each_way_to_differ_is_told_apart() -> None:
    later = replace(ALERT, revision=2)
    assert said([], [ALERT]) == [("missing", 1)]
    assert said([ALERT, later], [ALERT]) == [("spurious", 2)]
    assert said([ALERT, ALERT], [ALERT]) == [("twice", 1)]
    other = replace(ALERT, severity=Severity.CRITICAL, expected={"c0": 1.6}, evidence=Evidence(0, 6, 7, TOPIC))
    (changed,) = against([other], [ALERT]).differences
    assert changed.fields == {
        "severity": ("critical", "warning"), "expected.c0": (1.6, 1.5), "evidence.first_offset": (6, 7),
    }  # fmt: skip


def test_a_gap_is_compared_by_its_end_whoever_noticed_it_first() -> None:
    by_tick = replace(GAP, last=START + 60 * SECOND, measure=60.0, detection_delay_ms=60_000)
    assert against([by_tick, OVER], [GAP, OVER]) == Verdict(2, 2, (), ())
    assert against([by_tick, OVER], [OVER]) == Verdict(2, 1, (), ()), "the checkpoint knew that it had begun"
    assert said([OVER], [GAP, OVER]) == [("missing", 1)]
    assert said([by_tick], [GAP, OVER]) == [("missing", 2)]
    assert said([by_tick, replace(OVER, end=START)], [GAP, OVER]) == [("changed", 2)]
    assert said([by_tick, OVER], []) == [("spurious", 2)]


def test_a_gap_that_no_reading_could_tell_of_is_listed_apart() -> None:
    short = replace(OVER, measure=40.0)
    for published, why in (
        ([GAP], "still open at the end of the span"),
        ([GAP, short], "a silence that only the service's clock could notice"),
        ([GAP, GAP_OF_ALL], "beside an input-silent alert, which may stand for it"),
    ):
        verdict = against(published, [])
        assert verdict.differences == ()
        assert verdict.apart[0].why == why
    assert said([short], []) == [("spurious", 2)], "nobody was told that it began"
    assert against([GAP_OF_ALL], [GAP, OVER]).differences == ()
    elsewhere = replace(GAP_OF_ALL, evidence=Evidence(1, 7, 9, TOPIC))
    assert said([elsewhere], [GAP, OVER]) == [("missing", 1), ("missing", 2)]


def test_on_another_kernel_numbers_are_alike_and_what_opened_near_the_threshold_is_listed_apart() -> None:
    grown = replace(ALERT, revision=2, state=State.UPDATE, score=6.2)
    digit = replace(grown, score=6.2 + 1e-6, expected={"c0": 1.5 + 1e-7})
    assert against([ALERT, digit], [ALERT, grown], other=[0]).differences == ()
    assert said([ALERT, digit], [ALERT, grown]) == [("changed", 2)]
    verdict = against([ALERT, grown], [], other=[0])
    assert verdict.differences == ()
    assert {apart.why for apart in verdict.apart} == {"on another kernel, and this near the threshold"}
    clear = replace(ALERT, score=4.2)
    assert [difference.what for difference in against([clear], [], other=[0]).differences] == ["spurious"]
