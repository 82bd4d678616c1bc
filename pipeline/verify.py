"""The alerts that a service published beside those that a replay of its readings raises: what differs, if anything.

An alert is known by its id and revision, and belongs to the partition and offset of the newest reading it knows. All it
says is compared but what the moment of telling decides: `mode`, and the name of the checkpoint.

A replay has no ticks, which are the service's clock. A gap is thus compared by its id and its end, whoever noticed that
it had begun. What only a tick could tell is listed apart: a gap that is still open, or was over before its readings
would have told of it, and `input-silent`, with the gaps that it stands for.
"""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

from pipeline.codecs.json import encode_alert
from pipeline.core.alerts import Alert, Kind, Resolution, State

NEAR = 1e-3  # decades of score: on another kernel, an episode that opened this near the threshold may not have
ALIKE = 1e-3  # relative, or absolute: numbers of another kernel that are the same
OF_THE_MOMENT = ("mode",)
BY_AN_EVENT = (Resolution.RETIRED, Resolution.EVICTED)  # not by a reading of this sensor

What = Literal["missing", "spurious", "changed", "twice"]
Key = tuple[str, int]


class Difference(NamedTuple):
    """One alert that is not as the replay has it."""

    what: What  # missing: the replay raises it, nobody published it; spurious: the reverse
    alert: Alert
    fields: Mapping[str, tuple[Any, Any]] = {}  # of one that changed: as published, as replayed


class Outage(NamedTuple):
    """When a partition was silent itself, µs of event time."""

    start: int
    end: float


class Apart(NamedTuple):
    """One alert that cannot be compared, and why."""

    alert: Alert
    why: str


@dataclass(frozen=True, slots=True)
class Verdict:
    """What a comparison came to."""

    published: int  # messages
    replayed: int
    differences: tuple[Difference, ...]
    apart: tuple[Apart, ...]


def compare(
    published: Iterable[Alert],
    replayed: Iterable[Alert],
    firsts: Mapping[int, int],
    other_kernel: AbstractSet[int] = frozenset(),
) -> Verdict:
    """Both are the alerts of the same stretches, `published` with every `input-silent` of their partitions.

    `firsts` are the offsets at which the stretches begin, by partition; `other_kernel` the partitions whose checkpoint
    another kernel had computed.
    """
    told, raised = list(published), list(replayed)
    often = Counter(map(_key, told))
    here, there = {_key(alert): alert for alert in told}, {_key(alert): alert for alert in raised}
    near = {alert.alert_id for alert in (*told, *raised) if _near(alert, other_kernel)}
    outages = _outages(told)
    differences = [Difference("twice", here[key]) for key, times in often.items() if times > 1]
    apart: list[Apart] = []
    for found in _unlike(here, there, other_kernel):
        alert = found.alert
        if alert.alert_id in near:
            apart.append(Apart(alert, "on another kernel, and this near the threshold"))
        elif why := _by_the_clock(found, here, firsts, outages):
            apart.append(Apart(alert, why))
        else:
            differences.append(found)
    return Verdict(len(told), len(raised), tuple(differences), tuple(apart))


def _unlike(
    here: Mapping[Key, Alert], there: Mapping[Key, Alert], other_kernel: AbstractSet[int]
) -> Iterator[Difference]:
    over = {alert.alert_id for alerts in (here, there) for alert in alerts.values() if _ended_gap(alert)}
    for key, alert in there.items():
        if key not in here:
            yield Difference("missing", alert)
    for key, alert in here.items():
        if key in there:
            if fields := _fields(alert, there[key], alert.evidence.partition in other_kernel):
                yield Difference("changed", alert, fields)
        elif not (_opened_gap(alert) and alert.alert_id in over):
            yield Difference("spurious", alert)


def _by_the_clock(
    found: Difference, here: Mapping[Key, Alert], firsts: Mapping[int, int], outages: Mapping[int, list[Outage]]
) -> str:
    """Why published and replayed may rightly differ in this alert; "" where they may not."""
    alert = found.alert
    if alert.kind is Kind.INPUT_SILENT:
        return "only the service's clock can tell of it"
    if alert.kind is Kind.GAP:
        end = math.inf if alert.end is None else alert.end
        if any(
            outage.start <= end and alert.start <= outage.end for outage in outages.get(alert.evidence.partition, ())
        ):
            return "beside an input-silent alert, which may stand for it"
    if found.what != "spurious":
        return ""
    if _opened_gap(alert):
        return "still open at the end of the span"
    if _ended_gap(alert) and (alert.measure or 0) <= (alert.limit or 0) and _was_opened(alert, here, firsts):
        return "a silence that only the service's clock could notice"
    return "ended by an event that may lie behind the span" if alert.resolution in BY_AN_EVENT else ""


def _was_opened(alert: Alert, here: Mapping[Key, Alert], firsts: Mapping[int, int]) -> bool:
    """Whether somebody was told that it began, as far as that belongs to the span."""
    at = alert.evidence
    return (alert.alert_id, 1) in here or at.first_offset < firsts.get(at.partition, 0)


def _outages(told: Iterable[Alert]) -> dict[int, list[Outage]]:
    """Partition -> when it was silent itself."""
    spans: dict[tuple[int, str], Outage] = {}
    for alert in told:
        if alert.kind is Kind.INPUT_SILENT:
            key, before = (alert.evidence.partition, alert.alert_id), Outage(alert.start, math.inf)
            spans[key] = before if alert.end is None else Outage(alert.start, alert.end)
    found: dict[int, list[Outage]] = {}
    for (partition, _), outage in spans.items():
        found.setdefault(partition, []).append(outage)
    return found


def _fields(told: Alert, raised: Alert, loosely: bool) -> dict[str, tuple[Any, Any]]:
    ours, theirs = _flat(told), _flat(raised)
    names = [name for name in {**ours, **theirs} if name not in OF_THE_MOMENT]
    if _opened_gap(told):  # as late as whoever noticed it
        names = [name for name in names if name not in ("last", "measure", "detection_delay_ms")]
    pairs = {name: (ours.get(name), theirs.get(name)) for name in names}
    return {name: pair for name, pair in pairs.items() if not _same(*pair, loosely)}


def _flat(alert: Alert) -> dict[str, Any]:
    """As on the wire, nested fields by their path; without the name of the checkpoint."""
    flat: dict[str, Any] = {}
    for name, value in json.loads(encode_alert(alert)).items():
        if isinstance(value, dict):
            flat |= {f"{name}.{inner}": of for inner, of in value.items()}
        else:
            flat[name] = value
    del flat["evidence.checkpoint"]
    return flat


def _same(one: Any, other: Any, loosely: bool) -> bool:
    if loosely and isinstance(one, list) and isinstance(other, list) and len(one) == len(other):
        return all(_same(a, b, loosely) for a, b in zip(one, other, strict=True))
    if loosely and isinstance(one, float) and isinstance(other, float):
        return math.isclose(one, other, rel_tol=ALIKE, abs_tol=ALIKE)
    return bool(one == other)


def _near(alert: Alert, other_kernel: AbstractSet[int]) -> bool:
    if alert.evidence.partition not in other_kernel or alert.score is None or alert.threshold is None:
        return False
    return alert.state is State.FIRING and abs(alert.score - alert.threshold) <= NEAR


def _opened_gap(alert: Alert) -> bool:
    return alert.kind is Kind.GAP and alert.state is State.FIRING


def _ended_gap(alert: Alert) -> bool:
    return alert.kind is Kind.GAP and alert.resolution is Resolution.RETURNED


def _key(alert: Alert) -> Key:
    return alert.alert_id, alert.revision
