"""What readers found, compared by content, and the figures that come of it."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any, NamedTuple

import numpy as np

from pipeline.codecs.json import decode_alert
from pipeline.core.alerts import Alert, State
from pipeline.testing import plain
from tests.chaos.members import Course, Killed
from tests.service import records

EXAMPLES = 5  # of each kind of difference


class Said(NamedTuple):
    """An alert or a dead letter as a reader found it."""

    key: tuple[Any, ...]  # which it is
    content: Any  # what it says, but for what the moment of telling adds
    time: float  # s since 1970, when it was handed to the producer
    partition: int  # of the readings
    offset: int  # of the last reading that it speaks of


@dataclass(frozen=True, slots=True)
class Difference:
    """What was said under kills, held against what was said without."""

    missing: Sequence[Said]  # without only, or said otherwise
    spurious: Sequence[Said]  # under kills only, or said otherwise
    twice: Sequence[Said]  # said before, in whatever words


@dataclass(frozen=True, slots=True)
class Figures:
    """What `--json` writes."""

    broker: str
    kills: int
    readings: int
    members: int
    episodes: int
    open_at_kill: int
    missing: int
    spurious: int
    duplicates: int
    recovery_p95_seconds: float
    drain_seconds: float


def said(bootstrap: str, outputs: Mapping[str, str], isolation: str = "read_committed") -> list[Said]:
    """All alerts and dead letters of a group, in the order of their topics."""
    found = [_alert(record) for record in records(bootstrap, outputs["alerts"], isolation)]
    return found + [_dead_letter(record) for record in records(bootstrap, outputs["dead_letter"], isolation)]


def compared(expected: Collection[Said], found: Collection[Said]) -> Difference:
    """By identity and content."""
    wanted = {one.key: one.content for one in expected}
    first: dict[tuple[Any, ...], Said] = {}
    twice = []
    for one in found:
        if one.key in first:
            twice.append(one)
        else:
            first[one.key] = one
    missing = [one for one in expected if one.key not in first or first[one.key].content != one.content]
    spurious = [one for one in first.values() if one.key not in wanted or wanted[one.key] != one.content]
    return Difference(missing, spurious, twice)


def episodes(found: Iterable[Said]) -> set[str]:
    """Their ids."""
    return {one.content.alert_id for one in found if isinstance(one.content, Alert)}


def open_at(found: Iterable[Said], killed: Sequence[Killed]) -> set[str]:
    """Episodes that had been told to be open, and not to be over, when the member that followed them was killed."""
    spans: dict[str, list[Any]] = {}  # id -> partition, opened, over
    for one in found:
        if isinstance(one.content, Alert):
            span = spans.setdefault(one.content.alert_id, [one.partition, one.time, np.inf])
            if one.content.state is State.RESOLVED:
                span[2] = one.time
    return {
        of for of, (partition, opened, over) in spans.items()
        if any(opened <= kill.time < over and partition in kill.partitions for kill in killed)
    }  # fmt: skip


def figures(broker: str, readings: int, members: int, course: Course, found: list[Said], of: Difference) -> Figures:
    """Everything in numbers."""
    recoveries = recovery_seconds(course)
    return Figures(
        broker=broker,
        kills=len(course.killed),
        readings=readings,
        members=members,
        episodes=len(episodes(found)),
        open_at_kill=len(open_at(found, course.killed)),
        missing=len(of.missing),
        spurious=len(of.spurious),
        duplicates=len(of.twice),
        recovery_p95_seconds=round(float(np.percentile(recoveries, 95)), 2),
        drain_seconds=round(course.drain_seconds, 2),
    )


def recovery_seconds(course: Course, point: str | None = None) -> list[float]:
    """Of each kill of a member that was at work, at that point or at all."""
    of_interest = [killed for killed in course.killed if point in (None, killed.point)]
    return [seconds for killed in of_interest if (seconds := course.recovery_seconds(killed)) is not None]


def examples(of: Difference, course: Course) -> Iterator[str]:
    """The first of each kind, with what a person needs to look into them."""
    wanted = {one.key: one for one in of.missing}
    for what, those in (("missing", of.missing), ("spurious", of.spurious), ("twice", of.twice)):
        for one in those[:EXAMPLES]:
            yield f"{what}: {_words(one)}; {_place(one, course)}"
            if what == "spurious" and one.key in wanted:
                yield f"  instead of: {_difference(wanted[one.key].content, one.content)}"
        if len(those) > EXAMPLES:
            yield f"{what}: {len(those) - EXAMPLES} more"


def _alert(record: Any) -> Said:
    alert = decode_alert(record.value)
    evidence, key = alert.evidence, (alert.alert_id, alert.revision)
    return Said(key, plain(alert), record.timestamp / 1000, evidence.partition, evidence.last_offset)


def _dead_letter(record: Any) -> Said:
    letter = json.loads(record.value)
    key = (letter["topic"], letter["partition"], letter["offset"])
    return Said(key, letter, record.timestamp / 1000, letter["partition"], letter["offset"])


def _words(one: Said) -> str:
    if not isinstance(one.content, Alert):
        return f"dead letter, {one.content['reason']}"
    alert = one.content
    return (
        f"{alert.kind.value} alert {alert.alert_id} of {alert.sensor}, revision {alert.revision}, {alert.state.value}"
    )


def _place(one: Said, course: Course) -> str:
    """Where its reading is, and the last kill of whoever had the partition before that was committed."""
    where = f"partition {one.partition}, offset {one.offset}"
    done = next((look.answered for look in course.looks if look.offsets.get(one.partition, 0) > one.offset), None)
    if done is None:
        return f"{where}, which was never committed"
    before = [kill for kill in course.killed if kill.time <= done and one.partition in kill.partitions]
    if not before:
        return f"{where}, committed before any kill"
    last = before[-1]
    return f"{where}, committed {done - last.time:.1f} s after kill {last.number} (member {last.member}, {last.point})"


def _difference(expected: Any, found: Any) -> str:
    if not isinstance(expected, Alert) or not isinstance(found, Alert):
        return str(expected)
    pairs = ((f.name, getattr(expected, f.name), getattr(found, f.name)) for f in fields(Alert))
    return ", ".join(f"{name} {wanted}, not {got}" for name, wanted, got in pairs if wanted != got)
