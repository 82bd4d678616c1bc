"""Each reading goes to one group or is refused, and which it is depends on nothing but the reading and the models."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.core.frames import Frame
from pipeline.core.readings import Reading, Reason, Rejected
from pipeline.routing import MAX_CACHED, Group, Router

PLANT = {
    "pumps": Group(("temperature", "vibration"), frozenset({"plant1/pump-7"})),
    "motors": Group(("temperature", "vibration", "current"), frozenset({"plant1/motor-1"})),
    "tanks": Group(("level",), frozenset()),
    "furnaces": Group(("temperature", "vibration"), frozenset(), pattern="*/furnace-*"),
}


def reading(sensor: str, *channels: str) -> Reading:
    return Reading(sensor, 0, {channel: float(i) for i, channel in enumerate(channels)}, partition=3, offset=17)


def split(router: Router, *readings: Reading) -> tuple[dict[str, list[Reading]], list[Rejected]]:
    routed, rejected = router.split(Frame.of(readings))
    found = {group: sorted(row for frame in frames for row in frame.readings()) for group, frames in routed.items()}
    return {group: [reading for _, reading in rows] for group, rows in found.items()}, rejected


def group_of(router: Router, sensor: str, *channels: str) -> str | None:
    routed, rejected = split(router, reading(sensor, *channels))
    assert len(routed) + len(rejected) == 1
    return next(iter(routed), None)


@pytest.mark.parametrize(
    ("sensor", "channels", "expected"),
    [
        ("plant1/pump-7", ("temperature", "vibration", "current"), "pumps"),  # known by name, whatever it sends
        ("plant1/motor-1", ("temperature",), "motors"),
        ("plant9/furnace-2", ("temperature", "vibration"), "furnaces"),  # claimed by the pattern
        ("plant9/furnace-2", ("temperature",), "furnaces"),
        ("new", ("temperature", "vibration"), "pumps"),  # the same channels
        ("new", ("vibration", "temperature"), "pumps"),
        ("new", ("temperature",), "pumps"),  # the smallest set around it
        ("new", ("current",), "motors"),
        ("new", ("current", "noise"), "motors"),  # the widest overlap
        ("new", ("level", "noise", "smell"), "tanks"),
        ("new", ("value",), "tanks"),  # the only group of one channel
        ("new", ("noise",), None),
        ("new", ("value", "noise"), None),
        ("new", ("level", "current"), "tanks"),  # one each: the group with fewer others
        ("plant1/pump-7", ("noise",), None),  # known, but nothing of it can be read
        ("plant1/pump-7", ("value",), None),
        ("plant9/furnace-2", ("level",), None),  # claimed, so no other group has it
    ],
)
def test_the_rules_in_their_order(sensor: str, channels: tuple[str, ...], expected: str | None) -> None:
    assert group_of(Router(PLANT), sensor, *channels) == expected


def test_equal_groups_are_a_tie_that_a_pattern_breaks() -> None:
    same = {"north": Group(("level",)), "south": Group(("level",))}
    assert group_of(Router(same), "north/tank", "level") is None
    assert group_of(Router(same), "north/tank", "value") is None
    broken = {"north": Group(("level",), pattern="north/*"), "south": Group(("level",), pattern="south/*")}
    assert group_of(Router(broken), "north/tank", "level") == "north"
    assert group_of(Router(broken), "NORTH/tank", "level") is None


def test_a_sensor_known_to_two_groups_goes_where_its_channels_fit() -> None:
    both = {name: group._replace(sensors=frozenset({"pump"})) for name, group in PLANT.items()}
    assert group_of(Router(both), "pump", "level") == "tanks"
    assert group_of(Router(both), "pump", "current") == "motors"


def test_the_plain_value_takes_the_name_of_the_only_channel() -> None:
    routed, _ = split(Router(PLANT), reading("tank", "value"))
    assert routed["tanks"][0].values == {"level": 0.0}


def test_a_channel_that_is_named_value_keeps_its_name() -> None:
    routed, _ = split(Router({"plain": Group(("value",))}), reading("tank", "value", "noise"))
    assert routed["plain"][0].values == {"value": 0.0, "noise": 1.0}


def test_a_missing_value_that_is_named_does_not_move_a_sensor() -> None:
    routed, _ = split(Router(PLANT), Reading("new", 0, {"temperature": 1.0, "vibration": math.nan, "current": 1.0}))
    assert list(routed) == ["motors"]


def test_readings_keep_their_order_within_a_group() -> None:
    readings = [reading("new", "level")._replace(offset=offset) for offset in range(100)]
    routed, _ = split(Router(PLANT), *readings)
    assert routed == {"tanks": readings}


@pytest.mark.parametrize(
    ("groups", "sensor", "channel", "words"),
    [
        (PLANT, "new", "noise", ["'new'", "noise", "fits no group", "pumps reads temperature, vibration", "tanks"]),
        (PLANT, "plant1/pump-7", "noise", ["fits no group: pumps reads temperature, vibration"]),
        ({"a": Group(("x",)), "b": Group(("x",))}, "new", "x", ["fits several groups equally", "a reads x; b reads x"]),
        ({"a": Group(("x",), pattern="a*")}, "new", "x", ["every group has a pattern", "a*"]),
        ({}, "new", "x", ["there is no group"]),
        ({f"g{i}": Group((f"c{i}",)) for i in range(100)}, "new", "x", ["and 92 more groups"]),
    ],
)
def test_a_refusal_says_what_was_seen_and_what_there_is(
    groups: dict[str, Group], sensor: str, channel: str, words: list[str]
) -> None:
    _, (rejected,) = split(Router(groups), reading(sensor, channel))
    assert (rejected.reason, rejected.partition, rejected.offset) == (Reason.NO_GROUP, 3, 17)
    for word in words:
        assert word in rejected.detail


def test_a_refusal_stays_short_however_many_channels_are_sent() -> None:
    _, (rejected,) = split(Router(PLANT), reading("\u202e" * 256, *(f"{i:0500}" for i in range(1000))))
    assert len(rejected.detail) < 1500


def test_senders_that_name_channels_without_end_use_bounded_memory() -> None:
    router = Router(PLANT)
    for i in range(2 * MAX_CACHED + 5):
        group_of(router, "new", "level", str(i))
    assert len(router._chosen) <= MAX_CACHED
    assert group_of(router, "new", "level", "0") == "tanks"


channels = st.sampled_from("abcd")
subsets = st.frozensets(channels, min_size=1)
models = st.dictionaries(
    st.sampled_from(["g1", "g2", "g3"]),
    st.builds(
        Group,
        subsets.map(sorted).map(tuple),
        st.frozensets(st.sampled_from(["s1", "s2"])),
        st.none() | st.sampled_from(["s*", "s1", "*2"]),
    ),
)
sent = st.lists(st.tuples(st.sampled_from(["s1", "s2", "t"]), st.lists(channels | st.just("value"), min_size=1)))


@given(models, sent)
def test_neither_neighbours_nor_the_order_of_the_models_change_a_decision(
    groups: dict[str, Group], messages: list[tuple[str, list[str]]]
) -> None:
    readings = [reading(sensor, *names)._replace(offset=i) for i, (sensor, names) in enumerate(messages)]
    routed, rejected = split(Router(groups), *readings)
    found = {r.offset: name for name, mine in routed.items() for r in mine} | {r.offset: None for r in rejected}
    other = Router(dict(reversed(groups.items())))
    assert found == {i: group_of(other, sensor, *names) for i, (sensor, names) in enumerate(messages)}


@given(models, subsets)
def test_a_sensor_that_one_bundle_knows_stays_there_whichever_of_its_channels_it_sends(
    groups: dict[str, Group], names: frozenset[str]
) -> None:
    router = Router(groups)
    for sensor in ("s1", "s2"):
        knowing = [name for name, group in groups.items() if sensor in group.sensors]
        if len(knowing) == 1 and names <= set(groups[knowing[0]].channels):
            assert group_of(router, sensor, *names) == knowing[0]
