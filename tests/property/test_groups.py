"""What is raised, and by the record of which time, follows from the records, however polls and pieces cut them."""

from __future__ import annotations

from collections.abc import Iterable
from functools import cache
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline import groups
from pipeline.codecs import JSON
from pipeline.codecs.events import encode_retirement
from pipeline.core.alerts import Kind, Resolution
from pipeline.core.detector import Detector
from pipeline.core.events import Bound, Rules
from pipeline.core.model import Model
from pipeline.core.readings import SECOND, Reading, Record
from pipeline.core.thresholds import Budget
from pipeline.groups import Groups, Raised
from pipeline.routing import Group, Router
from tests import models

RULES = Rules(
    budget=Budget.parse("1/25/sensor"), bounds=(Bound("*", "c0", 14.0, 26.0),), most_sensors=2
)  # of the three that come in one of the partitions


@cache
def known() -> Model:
    return models.learnt(models.model(), models.stream(models.waves(5, 400)))


@cache
def records() -> tuple[Record, ...]:
    """Two partitions; every record has a time of its own, a minute or more behind its reading's."""
    batch = models.stream(models.waves(5, 170, seed=2), partitions=2, dropped=0.1)
    begin = 401 * models.INTERVAL
    made: list[Record] = []
    for i, sensor in enumerate(batch.sensors):
        if sensor == "s4" and i % 97 > 40:  # comes and goes, and takes the row of another
            continue
        time, partition = int(batch.times[i]) + begin, int(batch.partitions[i])
        value = JSON.encode(Reading(sensor, time, {"c0": float(batch.values[i, 0])}))
        made.append(Record("t", partition, i, time + models.INTERVAL + i * SECOND // 1000, None, value))
    event, headers = encode_retirement("s1")
    at = next(i for i, record in enumerate(made) if i > 400 and record.partition == 1)
    made[at] = made[at]._replace(value=event, headers=tuple(headers))
    return tuple(made)


def raised(cuts: Iterable[int]) -> list[Raised]:
    detector = Detector(known(), RULES)
    serving = Groups({"g": detector}, Router({"g": Group(detector.model.channels)}))
    edges = [0, *sorted(cuts), len(records())]
    return [one for a, b in pairwise(edges) for one in serving.step(records()[a:b]).raised]


@cache
def expected() -> list[Raised]:
    """Each record by itself."""
    return raised(range(1, len(records())))


def test_the_records_of_these_tests_raise_what_could_go_wrong() -> None:
    assert {one.alert.kind for one in expected()} >= {Kind.FORECAST, Kind.GAP, Kind.STUCK, Kind.LIMIT}
    assert {one.alert.resolution for one in expected()} >= {*Resolution} - {Resolution.ACCEPTED}
    stamps = {(record.partition, record.offset): record.timestamp for record in records()}
    places = [(one.alert.evidence.partition, one.alert.evidence.last_offset) for one in expected()]
    assert any(stamps[place] != one.received for place, one in zip(places, expected(), strict=True))


@settings(max_examples=15, deadline=None)
@given(st.lists(st.integers(0, 850), max_size=12))
def test_alerts_and_the_times_of_their_records_do_not_depend_on_how_records_are_polled(cuts: list[int]) -> None:
    assert raised(min(cut, len(records())) for cut in cuts) == expected()


def test_nor_on_the_pieces_that_are_stepped_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(groups, "PIECE_READINGS", 7)
    assert raised([]) == expected()
