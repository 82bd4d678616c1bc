"""Who works on which sensor: what is kept of it, for how long, and in a snapshot."""

from __future__ import annotations

import numpy as np
import pytest

from pipeline.codecs import JSON
from pipeline.codecs.events import encode_maintenance
from pipeline.core.detector import Detector
from pipeline.core.events import Maintain
from pipeline.core.maintenance import LOOKS, Maintenance
from pipeline.core.readings import DAY, Reading, Record
from pipeline.groups import Groups
from pipeline.routing import Group, Router
from tests.models import START, model, stream, waves


def told(*events: Maintain) -> Maintenance:
    found = Maintenance()
    for event in events:
        found.apply(event)
    return found


@pytest.mark.parametrize("field", ["names", "spans"])
def test_a_snapshot_without_one_of_its_fields_is_refused_by_its_name(field: str) -> None:
    arrays = told(Maintain("s", START, START + 1)).snapshot(0)
    del arrays[field]
    with pytest.raises(ValueError, match=f"maintenance field {field}"):
        Maintenance().restore(0, arrays)


def test_what_was_said_of_a_sensor_is_shown_with_its_state() -> None:
    one = model()
    groups = Groups({"g": Detector(one)}, Router({"g": Group(one.channels)}))
    reading = JSON.encode(Reading("s", START, {"c0": 1.0}))
    value, headers = encode_maintenance("s", START, START + DAY)
    groups.step([Record("t", 3, 0, START, None, reading)])
    before = groups.describe("s")
    groups.step([Record("t", 3, 1, START, b"s", value, tuple(headers))])
    after = groups.describe("s")
    assert before is not None
    assert after is not None
    assert (before["maintenance"], before["last_time"]) == (None, START / 1000)
    assert after["maintenance"] == {"start": START / 1000, "end": (START + DAY) / 1000}


def names(of: Maintenance) -> list[str]:
    return [name.decode() for name in of.snapshot(0)["names"].tolist()]


def test_what_was_over_for_a_day_is_forgotten_in_turn_and_what_is_not_stays() -> None:
    events = [Maintain(f"s{i}", START, START + (i % 2) * 9 * DAY, 0, START) for i in range(10)]
    found = told(*events, *(Maintain("later", START + 2 * DAY, START + 9 * DAY, 0, START + 2 * DAY) for _ in range(6)))
    assert sorted(names(found)) == ["later", "s1", "s3", "s5", "s7", "s9"]


@pytest.mark.parametrize(("time", "received", "forgotten"), [(0, 900, 0), (900, 0, 0), (900, 900, LOOKS)])
def test_one_event_of_a_wrong_time_forgets_two_others_at_most(time: int, received: int, forgotten: int) -> None:
    found = told(*(Maintain(f"s{i}", START, START + DAY, 0, START) for i in range(50)))
    found.apply(Maintain("x", START + time * DAY, START + 901 * DAY, 0, START + received * DAY))
    assert len(names(found)) == 51 - forgotten


def test_what_is_forgotten_and_when_does_not_depend_on_restarts() -> None:
    events = [Maintain(f"s{i % 17}", START + i * DAY // 9, START + i * DAY // 8, 0, START + i * DAY // 9)
              for i in range(300)]  # fmt: skip
    whole, cut = Maintenance(), Maintenance()
    for event in events:
        whole.apply(event)
        cut.apply(event)
        after = Maintenance()
        after.restore(0, cut.snapshot(0))
        cut = after
        assert names(cut) == names(whole)


def test_readings_are_masked_by_what_was_said_in_their_own_partition() -> None:
    batch = stream(waves(4, 3), partitions=2)  # s1 is in partition 1
    until = int(batch.times.max())
    found = told(Maintain("s0", START, until, 0), Maintain("s1", START, until, 0), Maintain("s3", START, until, 1))
    masked = found.masked(batch)
    at_work = np.isin(list(batch.sensors), ["s0", "s3"]) & (batch.times < until)
    assert np.array_equal(masked.usable, batch.usable & ~at_work)
